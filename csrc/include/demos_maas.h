/*
 * demos_maas.h: models in C++17, served; over demos.h, which is the manual of what stands behind.
 *
 *     DemosMaaSServer server;
 *     server.register_density(my_model_density);
 *     server.serve();
 *
 * makes a program a rank of an MPI launch, or a worker that joins a server (demos_mpi.h): link it with libdemos_mpi.
 * With DEMOS_WITHOUT_MPI defined before this header, libdemos is enough, and it joins servers alone.
 */
#ifndef DEMOS_MAAS_H
#define DEMOS_MAAS_H

#include "demos_client.hpp"

#include <cmath>
#include <functional>
#include <limits>
#include <locale>
#include <sstream>
#include <utility>

namespace demos {

/* Calls body(), and makes status and text of what it throws. Functions of a demos_model, and demos_model_init(), are
 * called by C: this is where exceptions end. */
template <class Body> std::int32_t guard(demos_error *error, const Body &body) noexcept {
    try {
        body();
        return DEMOS_OK;
    } catch (const Error &failure) {
        const std::int32_t status = failure.status() == DEMOS_OK ? std::int32_t{DEMOS_MODEL_FAILED} : failure.status();
        return demos_fail(error, status, "%s", failure.what());
    } catch (const std::exception &failure) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "the model has thrown: %s", failure.what());
    } catch (...) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "the model has thrown something that is no std::exception");
    }
}

namespace detail {

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double not_given = std::numeric_limits<double>::quiet_NaN();

/* Calls body(function); a plain function is called without what stands around it. */
template <class Signature, class Body>
std::int32_t run(const std::function<Signature> &function, demos_error *error, const Body &body) noexcept {
    return guard(error, [&] {
        if (Signature *const *target = function.template target<Signature *>()) {
            Signature *const plain = *target;
            body(plain);
        } else {
            body(function);
        }
    });
}

/* The stream that demos_uniform() draws from, until the end of a block. */
class StreamInUse {
  public:
    explicit StreamInUse(demos_stream *stream) : before_(demos_use_stream(stream)) {}
    StreamInUse(const StreamInUse &) = delete;
    StreamInUse &operator=(const StreamInUse &) = delete;
    ~StreamInUse() { demos_use_stream(before_); }

  private:
    demos_stream *before_;
};

inline std::string show(const double *numbers, std::size_t n) {
    constexpr std::size_t most = 8;
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text.precision(9);
    for (std::size_t i = 0; i < n && i < most; i++) {
        text << (i == 0 ? "" : ", ") << numbers[i];
    }
    return "(" + text.str() + (n > most ? ", ...)" : ")");
}

/* Objects of a list in JSON, one member after the other. */
class List {
  public:
    void open(const std::string &name, const std::string &unit) {
        text_ << (is_empty() ? "{" : ", {") << quote("name") << ": " << quote(name);
        if (!unit.empty()) {
            text_ << ", " << quote("unit") << ": " << quote(unit);
        }
    }
    /* What JSON has no word for is not given. */
    void put(const char *member, double value) {
        if (std::isfinite(value)) {
            text_ << ", " << quote(member) << ": " << value;
        }
    }
    void close() { text_ << "}"; }
    bool is_empty() const { return text_.str().empty(); }
    std::string text() const { return "[" + text_.str() + "]"; }

    static std::string quote(const std::string &text) {
        std::string quoted = "\"";
        for (const char c : text) {
            if (c == '"' || c == '\\') {
                quoted += '\\';
                quoted += c;
            } else if (static_cast<unsigned char>(c) < 0x20) {
                constexpr char digits[] = "0123456789abcdef";
                quoted += "\\u00";
                quoted += digits[c >> 4];
                quoted += digits[c & 15];
            } else {
                quoted += c;
            }
        }
        return quoted + "\"";
    }

  private:
    static std::ostringstream begin() {
        std::ostringstream text;
        text.imbue(std::locale::classic());
        text.precision(17);
        return text;
    }
    std::ostringstream text_ = begin();
};

} // namespace detail
} // namespace demos

/*
 * A model made of functions of one row (demos.h, 3), or of a table of its own (demos.h, 2), and what is said of it.
 * Functions, lambdas and other callables alike; what they throw is the caller's error, with its text. Plain functions
 * are called as fast as in C. Of a description that a file brings as well (docs/legacy.md), the file's entries win.
 */
class DemosMaaSServer {
  public:
    using Density = std::function<double(const double *x, const double *params)>;
    using Gradient = std::function<double(const double *x, const double *params, double *gradient)>;
    using Sampler = std::function<void(double *x, const double *params)>;
    using Map = std::function<void(double *out, const double *params)>;

    explicit DemosMaaSServer(const std::string &name = "") : name_(name) {}
    /* Its table refers to it. */
    DemosMaaSServer(const DemosMaaSServer &) = delete;
    DemosMaaSServer &operator=(const DemosMaaSServer &) = delete;

    /* P(x | params), or log P, which is called where both are there. */
    void register_density(Density function) { density_ = std::move(function); }
    void register_log_density(Density function) { log_density_ = std::move(function); }
    /* log P, and its gradient by params, or by x. */
    void register_log_density_gradient(Gradient function) { gradient_ = std::move(function); }
    void register_log_density_gradient_x(Gradient function) { gradient_x_ = std::move(function); }
    /* One draw, by demos_uniform() and demos_normal(), or by a generator of its own: DEMOS_OWN_RANDOM. */
    void register_sampler(Sampler function) { sampler_ = std::move(function); }
    /* The outputs at one point. */
    void register_evaluate(Map function) { map_ = std::move(function); }
    /* Functions of whole batches, in place of all others, which catch what they throw by demos::guard(); `user` and
     * `spec` have to outlive serve(). */
    void register_model(const demos_model &model) {
        demos_error error{};
        demos::detail::check(demos_check_model(&model, &table_, &error), error);
        flags_ |= table_.flags;
    }

    /* Values of enum demos_model_flag, added to those that are there. */
    void add_flags(std::uint32_t flags) { flags_ |= flags; }
    /* Several threads may call the functions at a time. */
    void thread_safe() { add_flags(DEMOS_THREAD_SAFE); }

    /* What the model is, in JSON: all of it, */
    void describe(const std::string &json) {
        check_description(name_.empty() && parameters_.is_empty() && observables_.is_empty() && outputs_.is_empty());
        spec_ = json;
    }
    /* or column by column, beside the name. A default that is nan and bounds that are infinite are none. */
    void register_parameter(const std::string &name, double value = demos::detail::not_given,
                            double lower = -demos::detail::infinity, double upper = demos::detail::infinity,
                            const std::string &unit = "") {
        check_description(spec_.empty());
        parameters_.open(name, unit);
        parameters_.put("default", value);
        parameters_.put("lower", lower);
        parameters_.put("upper", upper);
        parameters_.close();
    }
    void register_observable(const std::string &name, double lower = -demos::detail::infinity,
                             double upper = demos::detail::infinity, const std::string &unit = "") {
        check_description(spec_.empty());
        observables_.open(name, unit);
        observables_.put("lower", lower);
        observables_.put("upper", upper);
        observables_.close();
    }
    void register_output(const std::string &name, const std::string &unit = "") {
        check_description(spec_.empty());
        outputs_.open(name, unit);
        outputs_.close();
    }

    /*
     * Serves until the service is over. What is missing is told to whoever calls, and on standard error. Throws where
     * there is no connection, or it is lost, or the server does not want this worker; what goes wrong with a launch
     * ends the launch.
     */
    void serve() {
        const demos_model table = model();
        demos_error error{};
        demos::detail::check(demos::detail::serve(&table, nullptr, &error), error);
    }

    /* The table that is served, for demos_model_init() of a plug-in. It refers to this object, which is its `user`
     * unless it was registered as a whole. */
    demos_model model() {
        demos_model model = table_;
        if (model.size == 0) {
            model.size = sizeof model;
            model.major = DEMOS_ABI_MAJOR;
            model.minor = DEMOS_ABI_MINOR;
            model.user = this;
            model.log_density = log_density_ ? call_log_density : density_ ? call_density : nullptr;
            model.log_density_gradient = gradient_ ? call_gradient : nullptr;
            model.log_density_gradient_x = gradient_x_ ? call_gradient_x : nullptr;
            model.sample = sampler_ ? call_sampler : nullptr;
            model.evaluate = map_ ? call_map : nullptr;
        }
        model.flags = flags_;
        text_ = spec_.empty() ? compose() : spec_;
        if (!text_.empty()) {
            model.spec = text_.c_str();
        }
        return model;
    }

  private:
    static void check_description(bool is_one) {
        if (!is_one) {
            throw demos::Error(DEMOS_INVALID_INPUT, "a model is described by describe(), or by its name,"
                                                    " register_parameter() and the like, not by both");
        }
    }

    std::string compose() const {
        using demos::detail::List;
        std::string text;
        const auto add = [&text](const char *member, const std::string &value) {
            text += (text.empty() ? "{" : ", ") + List::quote(member) + ": " + value;
        };
        if (!name_.empty()) {
            add("name", List::quote(name_));
        }
        /* A list of nothing would hide that something is missing. */
        const std::pair<const char *, const List *> lists[] = {
            {"parameters", &parameters_}, {"observables", &observables_}, {"outputs", &outputs_}};
        for (const auto &[member, list] : lists) {
            if (!list->is_empty()) {
                add(member, list->text());
            }
        }
        return text.empty() ? text : text + "}";
    }

    static const DemosMaaSServer &self(void *user) { return *static_cast<const DemosMaaSServer *>(user); }

    static std::int32_t call_density(void *user, std::size_t n, std::size_t d, std::size_t p, const double *x,
                                     const double *params, std::size_t stride, double *value, demos_error *error) {
        return demos::detail::run(self(user).density_, error, [=](const auto &density) {
            for (std::size_t i = 0; i < n; i++) {
                const double here = density(x + i * d, params + i * stride);
                if (here < 0) {
                    throw demos::Error(DEMOS_MODEL_FAILED,
                                       "the density is " + demos::detail::show(&here, 1) +
                                           ", and none is negative, at x = " + demos::detail::show(x + i * d, d) +
                                           ", params = " + demos::detail::show(params + i * stride, p) +
                                           "; if this is log P, register_log_density() takes it");
                }
                /* log(0) would stop a code that traps divisions by zero. */
                value[i] = here == 0 ? -demos::detail::infinity : std::log(here);
            }
        });
    }

    static std::int32_t call_log_density(void *user, std::size_t n, std::size_t d, std::size_t, const double *x,
                                         const double *params, std::size_t stride, double *value, demos_error *error) {
        return demos::detail::run(self(user).log_density_, error, [=](const auto &log_density) {
            for (std::size_t i = 0; i < n; i++) {
                value[i] = log_density(x + i * d, params + i * stride);
            }
        });
    }

    static std::int32_t call_gradient(void *user, std::size_t n, std::size_t d, std::size_t p, const double *x,
                                      const double *params, std::size_t stride, double *value, double *gradient,
                                      demos_error *error) {
        return demos::detail::run(self(user).gradient_, error, [=](const auto &function) {
            for (std::size_t i = 0; i < n; i++) {
                value[i] = function(x + i * d, params + i * stride, gradient + i * p);
            }
        });
    }

    static std::int32_t call_gradient_x(void *user, std::size_t n, std::size_t d, std::size_t, const double *x,
                                        const double *params, std::size_t stride, double *value, double *gradient,
                                        demos_error *error) {
        return demos::detail::run(self(user).gradient_x_, error, [=](const auto &function) {
            for (std::size_t i = 0; i < n; i++) {
                value[i] = function(x + i * d, params + i * stride, gradient + i * d);
            }
        });
    }

    static std::int32_t call_sampler(void *user, std::size_t n, std::size_t d, std::size_t, const double *params,
                                     demos_stream *stream, double *x, demos_error *error) {
        return demos::detail::run(self(user).sampler_, error, [=](const auto &sample) {
            const demos::detail::StreamInUse in_use(stream);
            for (std::size_t i = 0; i < n; i++) {
                sample(x + i * d, params);
            }
        });
    }

    static std::int32_t call_map(void *user, std::size_t m, std::size_t p, std::size_t q, const double *params,
                                 double *out, demos_error *error) {
        return demos::detail::run(self(user).map_, error, [=](const auto &evaluate) {
            for (std::size_t i = 0; i < m; i++) {
                evaluate(out + i * q, params + i * p);
            }
        });
    }

    Density density_, log_density_;
    Gradient gradient_, gradient_x_;
    Sampler sampler_;
    Map map_;
    demos_model table_{};
    std::uint32_t flags_ = 0;
    std::string name_, spec_, text_;
    demos::detail::List parameters_, observables_, outputs_;
};

#endif
