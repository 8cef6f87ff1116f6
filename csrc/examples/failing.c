/*
 * A plug-in that goes wrong: the one-dimensional Gaussian with mean 0, whose log-density, in calls with a row where
 * x > "above", does what the setting "mode" says:
 *
 *     error      returns an error                 crash      dereferences NULL
 *     status     returns a number that is none    abort      calls abort()
 *     silent     returns an error without text    exit       calls exit(3)
 *     invalid    says that the caller is wrong    leak       allocates memory and forgets it
 *     nan        gives nan in those rows          overflow   writes behind the end of an array of its own
 *     sleep      takes "seconds", then answers    none       nothing
 *     wait       waits until a byte can be read from the file descriptor "descriptor", and reads it
 *     numbered   what x says: 2 for error, 3 nan, 4 sleep, 5 crash, 6 exit, 7 leak
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <demos.h>

typedef struct fault {
    char mode[32];
    double above, seconds, descriptor;
} fault;

static const double LOG_SQRT_2_PI = 0.91893853320467274178;
static const char SPEC[] = "{\"name\": \"failing\", \"version\": \"1.0.0\", \"license\": \"BSD-3-Clause\","
                           " \"authors\": [\"The demos-hpc developers\"],"
                           " \"parameters\": [{\"name\": \"sigma\", \"default\": 1.0, \"lower\": 1e-3}],"
                           " \"observables\": [\"x\"]}";

static void wait_for(double seconds) {
    struct timespec rest = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
}

static int is(const fault *how, const char *mode) { return strcmp(how->mode, mode) == 0; }

static fault choose(fault how, double x) {
    static const char *const numbered[] = {"none", "none", "error", "nan", "sleep", "crash", "exit", "leak"};
    if (is(&how, "numbered") && x >= 0 && x < 8) {
        strcpy(how.mode, numbered[(int)x]);
    }
    return how;
}

/* What happens because of row i. */
static int32_t fail(const fault *how, size_t i, const double *x, double *value, demos_error *error) {
    if (is(how, "error")) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "x[%zu] is %g, above %g", i, x[i], how->above);
    }
    if (is(how, "status")) {
        return demos_fail(error, 4711, "x[%zu] is %g", i, x[i]);
    }
    if (is(how, "silent")) {
        return DEMOS_MODEL_FAILED;
    }
    if (is(how, "invalid")) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "there is no table for x = %g", x[i]);
    }
    if (is(how, "nan")) {
        value[i] = (double)NAN;
    }
    if (is(how, "sleep")) {
        wait_for(how->seconds);
    }
    if (is(how, "wait")) {
        char byte;
        while (read((int)how->descriptor, &byte, 1) < 0 && errno == EINTR) {
        }
    }
    if (is(how, "crash")) {
        volatile double *volatile nothing = NULL;
        *nothing = x[i];
    }
    if (is(how, "abort")) {
        abort();
    }
    if (is(how, "exit")) {
        exit(3);
    }
    if (is(how, "leak")) {
        char *volatile forgotten = malloc(1000);
        forgotten = NULL;
        (void)forgotten;
    }
    if (is(how, "overflow")) {
        volatile double *own = malloc(4 * sizeof *own); /* volatile: the compiler would leave it out, or see it */
        volatile size_t end = 4;
        if (own != NULL) {
            own[end] = x[i];
        }
        free((void *)own);
    }
    return DEMOS_OK;
}

static int32_t log_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                           size_t params_stride, double *value, demos_error *error) {
    const fault *how = user;
    (void)d, (void)p;
    for (size_t i = 0; i < n; i++) {
        double sigma = params[i * params_stride], z = x[i] / sigma;
        value[i] = -0.5 * z * z - log(sigma) - LOG_SQRT_2_PI;
    }
    for (size_t i = 0; i < n; i++) {
        if (x[i] > how->above) {
            fault chosen = choose(*how, x[i]);
            int32_t status = fail(&chosen, i, x, value, error);
            if (status != DEMOS_OK || !is(&chosen, "nan")) {
                return status;
            }
        }
    }
    return DEMOS_OK;
}

int32_t demos_model_init(demos_model *model, const char *config, demos_error *error) {
    fault *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "no memory");
    }
    *made = (fault){.mode = "none", .above = 1.0, .seconds = 0.1};
    int32_t status = demos_config_text(config, "mode", made->mode, sizeof made->mode, error);
    if (status == DEMOS_OK) {
        status = demos_config_number(config, "above", &made->above, error);
    }
    if (status == DEMOS_OK) {
        status = demos_config_number(config, "seconds", &made->seconds, error);
    }
    if (status == DEMOS_OK) {
        status = demos_config_number(config, "descriptor", &made->descriptor, error);
    }
    if (status == DEMOS_OK && is(made, "init")) {
        status = demos_fail(error, DEMOS_MODEL_FAILED, "the tables are not where they should be");
    }
    if (status != DEMOS_OK) {
        free(made);
        return status;
    }
    model->flags = DEMOS_THREAD_SAFE;
    model->spec = SPEC;
    model->user = made;
    model->log_density = log_density;
    model->destroy = free;
    return DEMOS_OK;
}
