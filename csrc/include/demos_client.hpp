/*
 * demos_client.hpp: models that are served elsewhere, called from C++17; demos_maas.h includes it.
 *
 *     demos::Client model("my_model");
 *     std::vector<double> value = model.log_density(x, params);
 *
 * Programs are linked with libdemos_mpi, and are ranks of an MPI launch, or clients of a server (demos_mpi.h). With
 * DEMOS_WITHOUT_MPI defined before this header, libdemos is enough, and they are clients of servers alone.
 */
#ifndef DEMOS_CLIENT_HPP
#define DEMOS_CLIENT_HPP

#ifdef DEMOS_WITHOUT_MPI
#include "demos.h"
#else
/* Not the C++ bindings of MPI-2, which would have to be linked. */
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#include "demos_mpi.h"
#endif

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace demos {

/* Whatever goes wrong. Thrown by a model, its status and text are what the caller gets. */
class Error : public std::runtime_error {
  public:
    Error(std::int32_t status, const std::string &message) : std::runtime_error(message), status_(status) {}
    /* enum demos_status */
    std::int32_t status() const noexcept { return status_; }

  private:
    std::int32_t status_;
};

namespace detail {

#ifdef DEMOS_WITHOUT_MPI
inline constexpr auto serve = &demos_serve;
inline constexpr auto connect = &demos_connect;
#else
inline constexpr auto serve = &demos_mpi_serve;
inline constexpr auto connect = &demos_mpi_connect;
#endif

inline void check(std::int32_t status, const demos_error &error) {
    if (status != DEMOS_OK) {
        throw Error(status, error.message);
    }
}

} // namespace detail

/*
 * A model that is served elsewhere: demos.h, 9, with exceptions for statuses. In a launch all ranks of the analysis
 * make one, and the end of the last waits until the others are done. What was moved from can be assigned to, no more.
 * One thread at a time uses the clients of a process.
 *
 * Arrays are rows one behind the other. With vectors, params are one point [p], one for each row [n][p], or {} for the
 * server's own.
 */
class Client {
  public:
    using Vector = std::vector<double>;
    struct WithGradient {
        Vector value, gradient;
    };

    /* A name or UUID; "" where only one is served. */
    explicit Client(const std::string &model = "") {
        demos_client *client = nullptr;
        demos_error error{};
        detail::check(detail::connect(model.empty() ? nullptr : model.c_str(), &client, &error), error);
        client_.reset(client);
    }

    /* d, p and q. */
    std::size_t observables() const noexcept { return demos_client_observables(client_.get()); }
    std::size_t params() const noexcept { return demos_client_params(client_.get()); }
    std::size_t outputs() const noexcept { return demos_client_outputs(client_.get()); }
    /* What the server says of the model now, in JSON. */
    std::string metadata() {
        demos_error error{};
        const char *text = demos_client_metadata(client_.get(), &error);
        detail::check(text == nullptr ? error.status : std::int32_t{DEMOS_OK}, error);
        return text;
    }
    /* The server's own parameters [p] now; nan where there is none. */
    Vector defaults() {
        Vector values(params());
        ask(demos_client_defaults, values.data());
        return values;
    }
    /* Changes them for everybody, as {"mass": 91.2} says; returns their new revision. */
    std::uint32_t set_params(const std::string &changes) {
        std::uint32_t revision = 0;
        ask(demos_client_set_params, changes.c_str(), &revision);
        return revision;
    }
    /* Seconds that a call may take from now on. */
    void timeout(double seconds) noexcept { demos_client_timeout(client_.get(), seconds); }

    /* ---- As in C ---- */

    void log_density(std::size_t n, const double *x, const double *params, std::size_t params_stride, double *value) {
        ask(demos_client_log_density, n, x, params, params_stride, value);
    }
    void log_density_gradient(std::size_t n, const double *x, const double *params, std::size_t params_stride,
                              double *value, double *gradient) {
        ask(demos_client_log_density_gradient, n, x, params, params_stride, value, gradient);
    }
    void log_density_gradient_x(std::size_t n, const double *x, const double *params, std::size_t params_stride,
                                double *value, double *gradient) {
        ask(demos_client_log_density_gradient_x, n, x, params, params_stride, value, gradient);
    }
    void log_likelihood(std::size_t n, const double *x, std::size_t k, const double *params, double *value,
                        double *gradient = nullptr) {
        ask(demos_client_log_likelihood, n, x, k, params, value, gradient);
    }
    void sample(std::uint64_t seed, std::uint64_t first_row, std::size_t n, const double *params, double *x) {
        ask(demos_client_sample, seed, first_row, n, params, x);
    }
    void evaluate(std::size_t m, const double *params, double *out) { ask(demos_client_evaluate, m, params, out); }

    /* ---- With vectors ---- */

    Vector log_density(const Vector &x, const Vector &params = {}) {
        const std::size_t n = count("x", x, observables());
        Vector value(n);
        log_density(n, x.data(), point(params), stride(params, n), value.data());
        return value;
    }
    WithGradient log_density_gradient(const Vector &x, const Vector &params = {}) {
        const std::size_t n = count("x", x, observables());
        WithGradient made{Vector(n), Vector(n * this->params())};
        log_density_gradient(n, x.data(), point(params), stride(params, n), made.value.data(), made.gradient.data());
        return made;
    }
    WithGradient log_density_gradient_x(const Vector &x, const Vector &params = {}) {
        const std::size_t n = count("x", x, observables());
        WithGradient made{Vector(n), Vector(n * observables())};
        log_density_gradient_x(n, x.data(), point(params), stride(params, n), made.value.data(), made.gradient.data());
        return made;
    }
    /* The sums over all rows at each of k points [k][p]. */
    Vector log_likelihood(const Vector &x, const Vector &params = {}) {
        Vector value(count_points(params));
        log_likelihood(count("x", x, observables()), x.data(), value.size(), point(params), value.data());
        return value;
    }
    WithGradient log_likelihood_gradient(const Vector &x, const Vector &params = {}) {
        const std::size_t n = count("x", x, observables()), k = count_points(params);
        WithGradient made{Vector(k), Vector(k * this->params())};
        log_likelihood(n, x.data(), k, point(params), made.value.data(), made.gradient.data());
        return made;
    }
    /* Draws first_row to first_row + n of the sequence that the seed names. */
    Vector sample(std::size_t n, const Vector &params, std::uint64_t seed, std::uint64_t first_row = 0) {
        if (!params.empty() && params.size() != this->params()) {
            refuse("params", params, this->params(), "exactly");
        }
        Vector x(n * observables());
        sample(seed, first_row, n, point(params), x.data());
        return x;
    }
    /* The forward map at m points [m][p]. */
    Vector evaluate(const Vector &params = {}) {
        const std::size_t m = count_points(params);
        Vector out(m * outputs());
        evaluate(m, point(params), out.data());
        return out;
    }

  private:
    struct Ending {
        void operator()(demos_client *client) const noexcept { demos_disconnect(client); }
    };

    template <class Function, class... Arguments> void ask(Function function, Arguments... arguments) {
        demos_error error{};
        detail::check(function(client_.get(), arguments..., &error), error);
    }
    [[noreturn]] static void refuse(const char *what, const Vector &given, std::size_t width, const char *how) {
        throw Error(DEMOS_INVALID_INPUT, std::string(what) + " has " + std::to_string(given.size()) +
                                             " numbers; this model takes " + how + " " + std::to_string(width));
    }
    static std::size_t count(const char *what, const Vector &given, std::size_t width) {
        if (width == 0 ? !given.empty() : given.size() % width != 0) {
            refuse(what, given, width, "a multiple of");
        }
        return width == 0 ? 0 : given.size() / width;
    }
    std::size_t count_points(const Vector &given) const { return given.empty() ? 1 : count("params", given, params()); }
    static const double *point(const Vector &given) { return given.empty() ? nullptr : given.data(); }
    std::size_t stride(const Vector &given, std::size_t n) const {
        const std::size_t p = params();
        if (!given.empty() && given.size() != p && given.size() != n * p) {
            refuse("params", given, p, "one point, or one for each row, of");
        }
        return given.size() > p ? p : 0;
    }

    std::unique_ptr<demos_client, Ending> client_;
};

} // namespace demos

#endif
