// A code that was not written to be served: the decay of something heavy, by its time t and the energy that is seen of
// it. my_model.json says what the numbers mean, my_server.cpp serves it.
#include "demos.h"

#include <cmath>

double my_model_density(const double *x, const double *params);
void my_model_sample(double *x, const double *params);

static const double SQRT_2_PI = 2.50662827463100050242;

double my_model_density(const double *x, const double *params) {
    const double lifetime = params[0], energy = params[1], resolution = params[2];
    if (x[0] < 0) {
        return 0;
    }
    const double z = (x[1] - energy) / resolution;
    return std::exp(-x[0] / lifetime - 0.5 * z * z) / (lifetime * resolution * SQRT_2_PI);
}

void my_model_sample(double *x, const double *params) {
    x[0] = -params[0] * std::log(1 - demos_uniform());
    x[1] = params[1] + params[2] * demos_normal();
}
