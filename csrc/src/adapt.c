/* Scalar functions as a model: loops over rows that add nearly nothing to the time of the functions. */
#include "demos.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

enum { SHOWN_NUMBERS = 8 /* of a row, in a message */ };

static void show(char *text, size_t size, const double *numbers, size_t n) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < n && i < SHOWN_NUMBERS && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%.9g", i == 0 ? "" : ", ", numbers[i]);
    }
    if (n > SHOWN_NUMBERS && used < size) {
        snprintf(text + used, size - used, ", ... (%zu numbers)", n);
    }
}

static int32_t call_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                            size_t params_stride, double *value, demos_error *error) {
    demos_density_function density = ((const demos_functions *)user)->density;
    for (size_t i = 0; i < n; i++) {
        double density_here = density(x + i * d, params + i * params_stride);
        if (density_here < 0) {
            char row[256], point[256];
            show(row, sizeof row, x + i * d, d);
            show(point, sizeof point, params + i * params_stride, p);
            return demos_fail(error, DEMOS_MODEL_FAILED,
                              "the density is %.9g, and none is negative, at x = (%s), params = (%s); if this is log P,"
                              " register it as log_density",
                              density_here, row, point);
        }
        /* log(0) would stop a code that traps divisions by zero. */
        value[i] = density_here == 0 ? (double)-INFINITY : log(density_here);
    }
    return DEMOS_OK;
}

static int32_t call_log_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                                size_t params_stride, double *value, demos_error *error) {
    demos_density_function log_density = ((const demos_functions *)user)->log_density;
    (void)p;
    (void)error;
    for (size_t i = 0; i < n; i++) {
        value[i] = log_density(x + i * d, params + i * params_stride);
    }
    return DEMOS_OK;
}

static int32_t call_gradient(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                             size_t params_stride, double *value, double *gradient, demos_error *error) {
    demos_gradient_function function = ((const demos_functions *)user)->log_density_gradient;
    (void)error;
    for (size_t i = 0; i < n; i++) {
        value[i] = function(x + i * d, params + i * params_stride, gradient + i * p);
    }
    return DEMOS_OK;
}

static int32_t call_gradient_x(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                               size_t params_stride, double *value, double *gradient, demos_error *error) {
    demos_gradient_function function = ((const demos_functions *)user)->log_density_gradient_x;
    (void)p;
    (void)error;
    for (size_t i = 0; i < n; i++) {
        value[i] = function(x + i * d, params + i * params_stride, gradient + i * d);
    }
    return DEMOS_OK;
}

static int32_t call_sampler(void *user, size_t n, size_t d, size_t p, const double *params, demos_stream *stream,
                            double *x, demos_error *error) {
    demos_sampler_function sample = ((const demos_functions *)user)->sample;
    (void)p;
    (void)error;
    demos_stream *before = demos_use_stream(stream);
    for (size_t i = 0; i < n; i++) {
        sample(x + i * d, params);
    }
    demos_use_stream(before);
    return DEMOS_OK;
}

static int32_t call_map(void *user, size_t m, size_t p, size_t q, const double *params, double *out,
                        demos_error *error) {
    demos_map_function evaluate = ((const demos_functions *)user)->evaluate;
    (void)error;
    for (size_t i = 0; i < m; i++) {
        evaluate(out + i * q, params + i * p);
    }
    return DEMOS_OK;
}

int32_t demos_adapt(const demos_functions *functions, demos_model *model, demos_error *error) {
    if (model->size < offsetof(demos_model, log_density)) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "demos_adapt(): model->size is %u: set it to sizeof(demos_model)",
                          (unsigned)model->size);
    }
    if (functions->size == 0 || functions->size > sizeof *functions) {
        return demos_fail(error, DEMOS_INVALID_INPUT,
                          "demos_adapt(): functions->size is %u; it is sizeof(demos_functions), here at most %zu",
                          (unsigned)functions->size, sizeof *functions);
    }
    demos_functions known = {0}; /* of another minor version, it may be shorter */
    memcpy(&known, functions, functions->size);
    demos_model made = {
        .size = model->size < sizeof made ? model->size : (uint32_t)sizeof made,
        .major = DEMOS_ABI_MAJOR,
        .minor = DEMOS_ABI_MINOR,
        .flags = known.flags,
        .spec = model->spec,
        .user = (void *)(uintptr_t)functions, /* which the functions above do not write to */
        .log_density = known.log_density != NULL ? call_log_density
                       : known.density != NULL   ? call_density
                                                 : NULL,
        .log_density_gradient = known.log_density_gradient != NULL ? call_gradient : NULL,
        .log_density_gradient_x = known.log_density_gradient_x != NULL ? call_gradient_x : NULL,
        .sample = known.sample != NULL ? call_sampler : NULL,
        .evaluate = known.evaluate != NULL ? call_map : NULL,
    };
    memcpy(model, &made, made.size);
    return DEMOS_OK;
}
