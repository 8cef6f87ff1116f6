/* What large.f90 calls in place of a client: says what arrives, and looks at nothing of it. And memory of any size. */
#include <stdio.h>
#include <sys/mman.h>

#include "demos.h"

/* Of a model that has one observable, and as many parameters and outputs as a row of large.f90's arrays. */
enum { PARAMS = 1 << 16 };

void *reserve(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int32_t tell(const char *name, size_t n, size_t k, const double *params, double *value) {
    printf("%s %zu %zu %s\n", name, n, k, params == NULL ? "none" : "given");
    for (size_t i = 0; i < k; i++) {
        value[i] = (double)i;
    }
    return DEMOS_OK;
}

int32_t demos_connect(const char *model, demos_client **client, demos_error *error) {
    static char place;
    (void)model, (void)error;
    *client = (demos_client *)&place;
    return DEMOS_OK;
}

size_t demos_client_observables(const demos_client *client) {
    (void)client;
    return 1;
}

size_t demos_client_params(const demos_client *client) {
    (void)client;
    return PARAMS;
}

size_t demos_client_outputs(const demos_client *client) {
    (void)client;
    return 1;
}

int32_t demos_client_log_density(demos_client *client, size_t n, const double *x, const double *params,
                                 size_t params_stride, double *value, demos_error *error) {
    (void)client, (void)x, (void)error;
    return tell("log_density", params_stride, n, params, value);
}

int32_t demos_client_log_likelihood(demos_client *client, size_t n, const double *x, size_t k, const double *params,
                                    double *value, double *gradient, demos_error *error) {
    (void)client, (void)x, (void)gradient, (void)error;
    return tell("log_likelihood", n, k, params, value);
}

int32_t demos_client_evaluate(demos_client *client, size_t m, const double *params, double *out, demos_error *error) {
    (void)client, (void)error;
    return tell("evaluate", 0, m, params, out);
}

void demos_disconnect(demos_client *client) { (void)client; }
