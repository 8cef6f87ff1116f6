/*
 * Plug-ins of other versions of demos.h. As it is, one that was built against 1.0; with -DMAJOR, -DMINOR or -DSIZE, one
 * that says so of itself; with -DLATER, one whose model has more members, all of which it sets.
 */
#include "demos_1_0.h"

#include <string.h>

#ifndef MAJOR
#define MAJOR DEMOS_ABI_MAJOR
#endif
#ifndef MINOR
#define MINOR DEMOS_ABI_MINOR
#endif

typedef struct later_model {
    demos_model model;
    void (*more[40])(void);
} later_model;

#ifdef LATER
#define MODEL later_model
#else
#define MODEL demos_model
#endif
#ifndef SIZE
#define SIZE sizeof(MODEL)
#endif

static double log_density(const double *x, const double *params) { return -x[0] * params[0]; }

static int32_t call_log_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                                size_t params_stride, double *value, demos_error *error) {
    (void)user, (void)p, (void)error;
    for (size_t i = 0; i < n; i++) {
        value[i] = log_density(x + i * d, params + i * params_stride);
    }
    return DEMOS_OK;
}

int32_t demos_model_init(demos_model *model, const char *config, demos_error *error) {
    static MODEL made;
    (void)config, (void)error;
    memset(&made, 0, sizeof made);
    demos_model *table = (demos_model *)&made;
    table->size = SIZE;
    table->major = MAJOR;
    table->minor = MINOR;
    table->flags = DEMOS_THREAD_SAFE;
    table->spec = "{\"name\": \"old\", \"parameters\": [\"a\"], \"observables\": [\"x\"]}";
    table->log_density = call_log_density;
    memcpy(model, &made, sizeof made);
    return DEMOS_OK;
}
