/* The requests of a client. Rows and points whose params are outside of their bounds do not travel. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client_state.h"
#include "error.h"
#include "sums.h"

/* ---- What is inside of the bounds ------------------------------------------------------------------------------- */

/* nan is outside of nothing: what becomes of it is the model's to say. */
static int is_outside(const demos_client *client, const double *params) {
    int found = 0;
    for (size_t j = 0; j < client->p; j++) {
        found |= params[j] < client->lower[j] || params[j] > client->upper[j];
    }
    return found;
}

static size_t count_outside(const demos_client *client, size_t n, const double *params) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += (size_t)is_outside(client, params + i * client->p);
    }
    return count;
}

static int32_t refuse_outside(const demos_client *client, size_t n, const double *params, demos_error *error) {
    for (size_t i = 0; params != NULL && i < n; i++) {
        for (size_t j = 0; j < client->p; j++) {
            double value = params[i * client->p + j];
            if (value < client->lower[j] || value > client->upper[j]) {
                return demos_fail(error, DEMOS_INVALID_INPUT, "parameter %zu of point %zu is %g, outside [%g, %g]", j,
                                  i, value, client->lower[j], client->upper[j]);
            }
        }
    }
    return DEMOS_OK;
}

/* ---- Asking ----------------------------------------------------------------------------------------------------- */

static uint64_t find_part(const demos_client *client, uint64_t row_bytes) {
    uint64_t block = client->block_rows * row_bytes;
    uint64_t blocks = block == 0 ? 0 : DEMOS_PIECE_BYTES / block;
    return block == 0 ? 0 : client->block_rows * (blocks == 0 ? 1 : blocks);
}

static demos_request begin(const demos_client *client, uint8_t operation, uint16_t flags, uint64_t n) {
    return (demos_request){
        .header = {.operation = operation, .flags = flags, .model = client->handle, .n_rows = n},
        .n_units = n,
        .seconds = client->seconds,
    };
}

static void add_input(demos_request *request, const double *data, uint64_t rows, uint64_t width) {
    request->inputs[request->n_inputs++] =
        (demos_input){.data = data, .dtype = DEMOS_FLOAT64, .rows = rows, .width = width};
}

static void add_output(demos_request *request, double *data, uint64_t width) {
    request->outputs[request->n_outputs] = data;
    request->widths[request->n_outputs++] = width;
}

static int32_t ask(demos_client *client, const demos_request *request, demos_error *error) {
    demos_reply reply = {0};
    int32_t status = demos_ask(client->channel, request, &reply, error);
    free(reply.text);
    return status;
}

static int32_t ask_rows(demos_client *client, uint8_t operation, uint16_t flags, size_t n, const double *x,
                        const double *params, size_t stride, double *value, double *gradient, size_t width,
                        demos_error *error) {
    if (n == 0) {
        return DEMOS_OK;
    }
    demos_request request = begin(client, operation, flags, n);
    add_input(&request, x, n, client->d);
    if (params != NULL) {
        add_input(&request, params, stride == 0 ? client->p : n, stride == 0 ? 0 : client->p);
    }
    request.n_per_row = params != NULL && stride > 0 ? 2 : 1;
    request.part_rows = find_part(client, 8 * (client->d + (request.n_per_row - 1) * client->p));
    add_output(&request, value, 1);
    if (gradient != NULL) {
        add_output(&request, gradient, width);
    }
    return ask(client, &request, error);
}

/* The rows whose own params are inside, asked for alone. */
static int32_t ask_inside(demos_client *client, uint8_t operation, uint16_t flags, size_t n, size_t n_inside,
                          const double *x, const double *params, double *value, double *gradient, size_t width,
                          demos_error *error) {
    size_t d = client->d, p = client->p, row = d + p + 1 + (gradient == NULL ? 0 : width);
    double *memory = calloc(n_inside + 1, row * sizeof *memory);
    if (memory == NULL) {
        return demos_fail(error, DEMOS_TOO_LARGE, "no memory for %zu rows", n_inside);
    }
    double *xs = memory, *points = xs + n_inside * d, *values = points + n_inside * p, *slopes = values + n_inside;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_outside(client, params + i * p)) {
            memcpy(xs + at * d, x + i * d, d * sizeof *x);
            memcpy(points + at++ * p, params + i * p, p * sizeof *x);
        }
    }
    int32_t status = ask_rows(client, operation, flags, n_inside, xs, points, p, values,
                              gradient == NULL ? NULL : slopes, width, error);
    at = 0;
    for (size_t i = 0; i < n && status == DEMOS_OK; i++) {
        int inside = !is_outside(client, params + i * p);
        value[i] = inside ? values[at] : -(double)INFINITY;
        if (gradient != NULL && inside) {
            memcpy(gradient + i * width, slopes + at * width, width * sizeof *gradient);
        } else if (gradient != NULL) {
            memset(gradient + i * width, 0, width * sizeof *gradient);
        }
        at += (size_t)inside;
    }
    free(memory);
    return status;
}

static int32_t call_rows(demos_client *client, uint8_t operation, uint16_t flags, size_t n, const double *x,
                         const double *params, size_t stride, double *value, double *gradient, size_t width,
                         demos_error *error) {
    if (stride != 0 && stride != client->p) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "params_stride is %zu; it is 0 or %zu", stride, client->p);
    }
    size_t points = params == NULL ? 0 : stride == 0 ? 1 : n;
    size_t outside = count_outside(client, points, params);
    if (outside == 0) {
        return ask_rows(client, operation, flags, n, x, params, stride, value, gradient, width, error);
    }
    if (stride != 0) {
        return ask_inside(client, operation, flags, n, n - outside, x, params, value, gradient, width, error);
    }
    for (size_t i = 0; i < n; i++) {
        value[i] = -(double)INFINITY;
    }
    if (gradient != NULL && n > 0) {
        memset(gradient, 0, n * width * sizeof *gradient);
    }
    return DEMOS_OK;
}

int32_t demos_client_log_density(demos_client *client, size_t n, const double *x, const double *params,
                                 size_t params_stride, double *value, demos_error *error) {
    return call_rows(client, DEMOS_LOG_DENSITY, 0, n, x, params, params_stride, value, NULL, 0, error);
}

int32_t demos_client_log_density_gradient(demos_client *client, size_t n, const double *x, const double *params,
                                          size_t params_stride, double *value, double *gradient, demos_error *error) {
    return call_rows(client, DEMOS_LOG_DENSITY_GRADIENT, 0, n, x, params, params_stride, value, gradient, client->p,
                     error);
}

int32_t demos_client_log_density_gradient_x(demos_client *client, size_t n, const double *x, const double *params,
                                            size_t params_stride, double *value, double *gradient, demos_error *error) {
    return call_rows(client, DEMOS_LOG_DENSITY_GRADIENT, DEMOS_WRT_X, n, x, params, params_stride, value, gradient,
                     client->d, error);
}

/* Sums of k points, all of them inside; k = 0 stands for the server's own. */
static int32_t ask_sums(demos_client *client, size_t n, const double *x, size_t k, const double *params, double *value,
                        double *gradient, demos_error *error) {
    size_t p = client->p, points = k == 0 ? 1 : k, blocks = n / client->block_rows + (n % client->block_rows != 0);
    double *cells = calloc(blocks * points, (1 + (gradient == NULL ? 0 : p)) * sizeof *cells);
    if (cells == NULL) {
        return demos_fail(error, DEMOS_TOO_LARGE, "no memory for %zu partial sums", blocks * points);
    }
    double *slopes = cells + blocks * points;
    uint8_t operation = gradient == NULL ? DEMOS_LOG_LIKELIHOOD : DEMOS_LOG_LIKELIHOOD_GRADIENT;
    demos_request request = begin(client, operation, DEMOS_BLOCK_MAJOR, n);
    request.n_units = blocks * points;
    request.n_per_row = 1;
    request.part_rows = find_part(client, 8 * client->d);
    add_input(&request, x, n, client->d);
    if (k > 0) {
        add_input(&request, params, k, p);
    }
    add_output(&request, cells, 1);
    if (gradient != NULL) {
        add_output(&request, slopes, p);
    }
    int32_t status = ask(client, &request, error);
    if (status == DEMOS_OK) {
        demos_sum_pairwise(cells, blocks, points, value);
    }
    if (status == DEMOS_OK && gradient != NULL) {
        demos_sum_pairwise(slopes, blocks, points * p, gradient);
    }
    for (size_t j = 0; status == DEMOS_OK && gradient != NULL && j < points; j++) {
        if (value[j] == -(double)INFINITY) {
            memset(gradient + j * p, 0, p * sizeof *gradient);
        }
    }
    free(cells);
    return status;
}

/* The points that are inside, asked for alone; those outside are -inf. */
static int32_t ask_sums_inside(demos_client *client, size_t n, const double *x, size_t k, size_t n_inside,
                               const double *params, double *value, double *gradient, demos_error *error) {
    size_t p = client->p, at = 0;
    double *points = calloc(n_inside + 1, (2 * p + 1) * sizeof *points);
    if (points == NULL) {
        return demos_fail(error, DEMOS_TOO_LARGE, "no memory for %zu points", n_inside);
    }
    double *values = points + n_inside * p, *slopes = values + n_inside;
    for (size_t j = 0; j < k; j++) {
        if (!is_outside(client, params + j * p)) {
            memcpy(points + at++ * p, params + j * p, p * sizeof *points);
        }
    }
    int32_t status = DEMOS_OK;
    if (n_inside > 0) {
        status = ask_sums(client, n, x, n_inside, points, values, gradient == NULL ? NULL : slopes, error);
    }
    at = 0;
    for (size_t j = 0; j < k && status == DEMOS_OK; j++) {
        int inside = !is_outside(client, params + j * p);
        value[j] = inside ? values[at] : -(double)INFINITY;
        for (size_t i = 0; gradient != NULL && i < p; i++) {
            gradient[j * p + i] = inside ? slopes[at * p + i] : 0.0;
        }
        at += (size_t)inside;
    }
    free(points);
    return status;
}

int32_t demos_client_log_likelihood(demos_client *client, size_t n, const double *x, size_t k, const double *params,
                                    double *value, double *gradient, demos_error *error) {
    size_t points = params == NULL ? 0 : k;
    if (params == NULL && k != 1) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "k is %zu; without params it is 1", k);
    }
    size_t outside = count_outside(client, points, params);
    if (n == 0) { /* nothing was seen */
        for (size_t j = 0; j < k; j++) {
            value[j] = params != NULL && is_outside(client, params + j * client->p) ? -(double)INFINITY : 0.0;
        }
        if (gradient != NULL && k > 0) {
            memset(gradient, 0, k * client->p * sizeof *gradient);
        }
        return DEMOS_OK;
    }
    if (k == 0) {
        return DEMOS_OK;
    }
    return outside == 0 ? ask_sums(client, n, x, points, params, value, gradient, error)
                        : ask_sums_inside(client, n, x, k, k - outside, params, value, gradient, error);
}

int32_t demos_client_sample(demos_client *client, uint64_t seed, uint64_t first_row, size_t n, const double *params,
                            double *x, demos_error *error) {
    int32_t status = refuse_outside(client, 1, params, error);
    if (status != DEMOS_OK || n == 0) {
        return status;
    }
    demos_request request = begin(client, DEMOS_SAMPLE, 0, n);
    request.header.seed = seed;
    request.header.first_row = first_row;
    if (params != NULL) {
        add_input(&request, params, client->p, 0);
    }
    add_output(&request, x, client->d);
    return ask(client, &request, error);
}

int32_t demos_client_evaluate(demos_client *client, size_t m, const double *params, double *out, demos_error *error) {
    int32_t status = refuse_outside(client, m, params, error);
    if (status == DEMOS_OK && params == NULL && m != 1) {
        status = demos_fail(error, DEMOS_INVALID_INPUT, "m is %zu; without params it is 1", m);
    }
    if (status != DEMOS_OK || m == 0) {
        return status;
    }
    demos_request request = begin(client, DEMOS_EVALUATE, 0, m);
    if (params != NULL) {
        add_input(&request, params, m, client->p);
        request.n_per_row = 1;
        request.part_rows = find_part(client, 8 * client->p);
    }
    add_output(&request, out, client->q);
    return ask(client, &request, error);
}

int32_t demos_client_set_params(demos_client *client, const char *changes, uint32_t *revision, demos_error *error) {
    demos_request request = begin(client, DEMOS_SET_PARAMS, 0, 1);
    request.inputs[0] = (demos_input){.data = changes, .dtype = DEMOS_UINT8, .rows = strlen(changes)};
    request.n_inputs = 1;
    demos_reply reply = {0};
    int32_t status = demos_ask(client->channel, &request, &reply, error);
    free(reply.text);
    if (status == DEMOS_OK && revision != NULL) {
        *revision = reply.revision;
    }
    return status;
}
