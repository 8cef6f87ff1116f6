/*
 * A model that tells how it was called: the log-density of a row is what the setting "about" names: the address of x,
 * of params or of value, the number of rows in the call, params_stride, or which thread computes (0 for the one that
 * made the model). In C++ as well as in C.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <demos.h>

typedef struct spy {
    char about[16];
    pthread_t maker;
} spy;

static int is_about(const spy *s, const char *what) { return strcmp(s->about, what) == 0; }

static int32_t log_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                           size_t params_stride, double *value, demos_error *error) {
    const spy *s = (const spy *)user;
    (void)d, (void)p, (void)error;
    for (size_t i = 0; i < n; i++) {
        value[i] = is_about(s, "x")        ? (double)(uintptr_t)(x + i * d)
                   : is_about(s, "params") ? (double)(uintptr_t)(params + i * params_stride)
                   : is_about(s, "value")  ? (double)(uintptr_t)(value + i)
                   : is_about(s, "rows")   ? (double)n
                   : is_about(s, "stride") ? (double)params_stride
                                           : (double)!pthread_equal(pthread_self(), s->maker);
    }
    return DEMOS_OK;
}

int32_t demos_model_init(demos_model *model, const char *config, demos_error *error) {
    spy *made = (spy *)calloc(1, sizeof(spy));
    double flags = 0;
    if (made == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "no memory");
    }
    made->maker = pthread_self();
    int32_t status = demos_config_text(config, "about", made->about, sizeof made->about, error);
    if (status == DEMOS_OK) {
        status = demos_config_number(config, "flags", &flags, error);
    }
    model->flags = (uint32_t)flags;
    model->spec = "{\"name\": \"spy\", \"parameters\": [\"a\", \"b\"], \"observables\": [\"x\", \"y\", \"z\"]}";
    model->user = made;
    model->log_density = log_density;
    model->destroy = free;
    return status;
}
