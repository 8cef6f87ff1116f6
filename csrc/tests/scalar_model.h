/* A model of scalar functions, for the tests that need one. */
#ifndef DEMOS_TESTS_SCALAR_MODEL_H
#define DEMOS_TESTS_SCALAR_MODEL_H

#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "demos.h"

enum { D = 2, P = 2, Q = 3 };

static inline double give_density(const double *x, const double *params) { return exp(-x[0] * params[0]) * params[1]; }

static inline double give_log_density(const double *x, const double *params) {
    return x[0] * params[0] + x[1] * params[1];
}

static inline double give_gradient(const double *x, const double *params, double *gradient) {
    gradient[0] = x[0];
    gradient[1] = x[1];
    return x[0] > 0.9 ? (double)-INFINITY : give_log_density(x, params);
}

static inline double give_gradient_x(const double *x, const double *params, double *gradient) {
    gradient[0] = params[0];
    gradient[1] = params[1];
    return give_log_density(x, params);
}

static inline void draw(double *x, const double *params) {
    x[0] = params[0] + demos_uniform();
    x[1] = params[1] + demos_normal();
}

static inline void map(double *out, const double *params) {
    out[0] = params[0];
    out[1] = params[1];
    out[2] = params[0] * params[1];
}

static const demos_functions all_functions = {
    .size = sizeof all_functions,
    .flags = DEMOS_THREAD_SAFE,
    .density = give_density,
    .log_density = give_log_density,
    .log_density_gradient = give_gradient,
    .log_density_gradient_x = give_gradient_x,
    .sample = draw,
    .evaluate = map,
};

static inline demos_caller *open_caller(const demos_functions *functions, int32_t threads) {
    demos_model model = {.size = sizeof model};
    demos_error error;
    demos_caller *caller = NULL;
    if (!CHECK(demos_adapt(functions, &model, &error) == DEMOS_OK) ||
        !CHECK(demos_check_model(&model, &model, &error) == DEMOS_OK) ||
        !CHECK(demos_caller_open(&model, D, P, Q, threads, &caller, &error) == DEMOS_OK)) {
        exit(2);
    }
    return caller;
}

#endif
