// The twin of csrc/examples/gaussian.c with one column.
#include "demos_maas.h"

constexpr double log_sqrt_2_pi = 0.91893853320467274178;

static double log_density(const double *x, const double *params) {
    const double z = (x[0] - params[0]) / params[1];
    return -0.5 * (z * z) - (std::log(params[1]) + log_sqrt_2_pi);
}

static double gradient(const double *x, const double *params, double *slope) {
    const double z = (x[0] - params[0]) / params[1];
    slope[0] = z / params[1];
    slope[1] = (z * z - 1) / params[1];
    return log_density(x, params);
}

static double gradient_x(const double *x, const double *params, double *slope) {
    slope[0] = (params[0] - x[0]) / (params[1] * params[1]);
    return log_density(x, params);
}

int main() {
    DemosMaaSServer server("gaussian");
    server.register_parameter("mu", 0.0);
    server.register_parameter("sigma", 1.0, 1e-3);
    server.register_observable("x0");
    server.register_output("mean");
    server.register_output("variance");
    server.register_log_density(log_density);
    server.register_log_density_gradient(gradient);
    server.register_log_density_gradient_x(gradient_x);
    server.register_sampler([](double *x, const double *params) { x[0] = params[0] + params[1] * demos_normal(); });
    server.register_evaluate([](double *out, const double *params) {
        out[0] = params[0];
        out[1] = params[1] * params[1];
    });
    server.thread_safe();
    server.serve();
}
