/*
 * A plug-in made of callables of C++. Its settings are "mode", which says what it does at x > 100 and when it is made;
 * "scale", which a lambda holds.
 */
#define DEMOS_WITHOUT_MPI
#include "demos_maas.h"

#include <cmath>

namespace {

[[noreturn]] void fail(const std::string &mode) {
    if (mode == "error") {
        throw demos::Error(DEMOS_INVALID_INPUT, "x is above 100");
    }
    if (mode == "ok") {
        throw demos::Error(DEMOS_OK, "an error that is none");
    }
    if (mode == "status") {
        throw demos::Error(DEMOS_REFUSED, "not for models");
    }
    if (mode == "number") {
        throw 3;
    }
    throw std::out_of_range("no table for x");
}

/* A callable with a state: the exponential distribution. */
struct Decay {
    std::string mode;
    double scale;

    double operator()(const double *x, const double *params) const {
        if (x[0] > 100) {
            fail(mode);
        }
        const double lifetime = scale * params[0];
        return x[0] < 0 ? -INFINITY : -x[0] / lifetime - std::log(lifetime);
    }
};

double plain(const double *x, const double *params) {
    return x[0] > 100 ? -1 : std::exp(-x[0] / params[0]) / params[0];
}

void add_functions(DemosMaaSServer &server, const std::string &mode, double scale) {
    const Decay log_density{mode, scale};
    if (mode == "plain") {
        server.register_density(plain);
    } else if (mode == "density") {
        server.register_density([log_density](const double *x, const double *params) {
            return x[0] > 100 ? -1 : std::exp(log_density(x, params));
        });
    } else if (mode != "nothing") {
        server.register_log_density(log_density);
    }
    if (mode == "nothing" || mode == "plain") {
        return;
    }
    server.register_log_density_gradient([log_density](const double *x, const double *params, double *gradient) {
        gradient[0] = x[0] / (log_density.scale * params[0] * params[0]) - 1 / params[0];
        return log_density(x, params);
    });
    server.register_log_density_gradient_x([log_density](const double *x, const double *params, double *gradient) {
        gradient[0] = -1 / (log_density.scale * params[0]);
        return log_density(x, params);
    });
    server.register_sampler([mode, scale](double *x, const double *params) {
        if (params[0] > 100) {
            fail(mode);
        }
        x[0] = -scale * params[0] * std::log(1 - demos_uniform());
    });
    server.register_evaluate([scale](double *out, const double *params) { out[0] = scale * params[0]; });
}

void describe(DemosMaaSServer &server, const std::string &mode) {
    if (mode == "no json") {
        server.describe("{\"name\": ");
        return;
    }
    if (mode == "undescribed") {
        return;
    }
    server.register_parameter("lifetime \"\\\t\"", 2.2, 1e-3, INFINITY, "us");
    server.register_observable("t", 0);
    server.register_output("mean", "us");
    if (mode == "twice") {
        server.describe("{}");
    }
}

} // namespace

std::int32_t demos_model_init(demos_model *model, const char *config, demos_error *error) {
    return demos::guard(error, [&] {
        char mode[32] = "";
        double scale = 1;
        if (demos_config_text(config, "mode", mode, sizeof mode, error) != DEMOS_OK ||
            demos_config_number(config, "scale", &scale, error) != DEMOS_OK) {
            throw demos::Error(error->status, error->message);
        }
        const bool is_named = std::string(mode) != "undescribed" && std::string(mode) != "no json";
        auto server = std::make_unique<DemosMaaSServer>(is_named ? "lambdas" : "");
        server->thread_safe();
        add_functions(*server, mode, scale);
        describe(*server, mode);
        *model = server.release()->model();
        model->destroy = [](void *user) { delete static_cast<DemosMaaSServer *>(user); };
    });
}
