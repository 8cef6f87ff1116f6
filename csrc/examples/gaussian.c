/*
 * A plug-in with all that a model may have: independent normal columns with a common mean mu and standard deviation
 * sigma, the twin of demos_hpc.testing.Gaussian.
 *
 *     cc -shared -fPIC -O2 $(demos-hpc config --cflags) gaussian.c -o libgaussian.so $(demos-hpc config --libs) -lm
 *     demos-hpc check ./libgaussian.so
 *
 * Its settings are "d", the number of columns, and "block_rows".
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <demos.h>

enum { SPEC_BYTES = 8192, MOST_COLUMNS = 100 };

static const double LOG_SQRT_2_PI = 0.91893853320467274178;

static double log_density_of(const double *x, size_t d, double mu, double sigma) {
    double sum = 0;
    for (size_t j = 0; j < d; j++) {
        double z = (x[j] - mu) / sigma;
        sum += z * z;
    }
    return -0.5 * sum - (double)d * (log(sigma) + LOG_SQRT_2_PI);
}

static int32_t log_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                           size_t params_stride, double *value, demos_error *error) {
    (void)user, (void)p, (void)error;
    for (size_t i = 0; i < n; i++, params += params_stride) {
        value[i] = log_density_of(x + i * d, d, params[0], params[1]);
    }
    return DEMOS_OK;
}

static int32_t log_density_gradient(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                                    size_t params_stride, double *value, double *gradient, demos_error *error) {
    (void)user, (void)error;
    for (size_t i = 0; i < n; i++, params += params_stride) {
        double mu = params[0], sigma = params[1], sum = 0, sum_of_squares = 0;
        for (size_t j = 0; j < d; j++) {
            double z = (x[i * d + j] - mu) / sigma;
            sum += z;
            sum_of_squares += z * z;
        }
        value[i] = log_density_of(x + i * d, d, mu, sigma);
        gradient[i * p] = sum / sigma;
        gradient[i * p + 1] = (sum_of_squares - (double)d) / sigma;
    }
    return DEMOS_OK;
}

static int32_t log_density_gradient_x(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                                      size_t params_stride, double *value, double *gradient, demos_error *error) {
    (void)user, (void)p, (void)error;
    for (size_t i = 0; i < n; i++, params += params_stride) {
        value[i] = log_density_of(x + i * d, d, params[0], params[1]);
        for (size_t j = 0; j < d; j++) {
            gradient[i * d + j] = (params[0] - x[i * d + j]) / (params[1] * params[1]);
        }
    }
    return DEMOS_OK;
}

static int32_t sample(void *user, size_t n, size_t d, size_t p, const double *params, demos_stream *stream, double *x,
                      demos_error *error) {
    (void)user, (void)p, (void)error;
    for (size_t i = 0; i < n * d; i++) {
        x[i] = params[0] + params[1] * demos_stream_normal(stream);
    }
    return DEMOS_OK;
}

static int32_t evaluate(void *user, size_t m, size_t p, size_t q, const double *params, double *out,
                        demos_error *error) {
    (void)user, (void)error;
    for (size_t i = 0; i < m; i++) {
        out[i * q] = params[i * p];
        out[i * q + 1] = params[i * p + 1] * params[i * p + 1];
    }
    return DEMOS_OK;
}

/* The spec for d columns, in memory that lives as long as the model. */
static char *describe(int d, int block_rows) {
    char *spec = malloc(SPEC_BYTES);
    if (spec == NULL) {
        return NULL;
    }
    int used = snprintf(spec, SPEC_BYTES,
                        "{\"name\": \"gaussian\", \"version\": \"1.0.0\", \"license\": \"BSD-3-Clause\","
                        " \"authors\": [\"The demos-hpc developers\"], \"block_rows\": %d,"
                        " \"parameters\": [{\"name\": \"mu\", \"default\": 0.0},"
                        " {\"name\": \"sigma\", \"default\": 1.0, \"lower\": 1e-3}],"
                        " \"outputs\": [\"mean\", \"variance\"], \"observables\": [",
                        block_rows);
    for (int j = 0; j < d; j++) {
        used += snprintf(spec + used, (size_t)(SPEC_BYTES - used), "%s\"x%d\"", j == 0 ? "" : ", ", j);
    }
    snprintf(spec + used, (size_t)(SPEC_BYTES - used), "]}");
    return spec;
}

int32_t demos_model_init(demos_model *model, const char *config, demos_error *error) {
    double d = 1, block_rows = 1024;
    int32_t status = demos_config_number(config, "d", &d, error);
    if (status == DEMOS_OK) {
        status = demos_config_number(config, "block_rows", &block_rows, error);
    }
    if (status != DEMOS_OK) {
        return status;
    }
    if (!(d >= 1 && d <= MOST_COLUMNS)) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "d is %g; it is 1 to %d", d, MOST_COLUMNS);
    }
    char *spec = describe((int)d, (int)block_rows);
    if (spec == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "no memory for a spec");
    }
    *model = (demos_model){
        .size = sizeof *model,
        .major = DEMOS_ABI_MAJOR,
        .minor = DEMOS_ABI_MINOR,
        .flags = DEMOS_THREAD_SAFE,
        .spec = spec,
        .user = spec, /* so that destroy() frees it */
        .log_density = log_density,
        .log_density_gradient = log_density_gradient,
        .log_density_gradient_x = log_density_gradient_x,
        .sample = sample,
        .evaluate = evaluate,
        .destroy = free,
    };
    return DEMOS_OK;
}
