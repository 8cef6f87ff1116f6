/* Calling a model as a worker does: rows, points, blocks of draws, cells of likelihoods. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "caller.h"
#include "error.h"
#include "sums.h"

/* ---- One slice of a call ---------------------------------------------------------------------------------------- */

static const char *const NAMES[] = {"log_density", "log_density_gradient", "log_density_gradient_x"};

/* The gradient outside of the support is nothing that one could rely on: it becomes 0. */
static void clear_outside(const double *value, double *gradient, size_t n, size_t width) {
    for (size_t i = 0; i < n; i++) {
        if (value[i] == (double)-INFINITY) {
            memset(gradient + i * width, 0, width * sizeof *gradient);
        }
    }
}

/* n rows that start at those given; the table's function for them. */
static int32_t call_rows(const demos_caller *c, demos_call_kind kind, int32_t who, size_t n, const double *x,
                         const double *params, size_t stride, double *value, double *gradient, demos_error *error) {
    void *user = c->users[who];
    int32_t status;
    if (kind == DENSITY) {
        status = c->model.log_density(user, n, c->d, c->p, x, params, stride, value, error);
    } else if (kind == GRADIENT) {
        status = c->model.log_density_gradient(user, n, c->d, c->p, x, params, stride, value, gradient, error);
    } else {
        status = c->model.log_density_gradient_x(user, n, c->d, c->p, x, params, stride, value, gradient, error);
    }
    if (status == DEMOS_OK && gradient != NULL) {
        clear_outside(value, gradient, n, kind == GRADIENT ? c->p : c->d);
    }
    return demos_settle(error, status, NAMES[kind]);
}

/* How many rows, of n, have the params of the first one. */
static size_t count_equal(const double *params, size_t p, size_t n) {
    size_t count = 1;
    while (count < n && memcmp(params, params + count * p, p * sizeof *params) == 0) {
        count++;
    }
    return count;
}

static int32_t do_rows(void *argument, size_t first, size_t count, int32_t who, demos_error *error) {
    const demos_job *j = argument;
    const demos_caller *c = j->caller;
    size_t width = j->kind == GRADIENT ? c->p : c->d;
    int is_split = (c->model.flags & DEMOS_ONE_POINT) != 0 && j->params_stride != 0;
    for (size_t end = first + count; first < end;) {
        const double *params = j->params + first * j->params_stride;
        size_t n = is_split ? count_equal(params, c->p, end - first) : end - first;
        double *gradient = j->gradient == NULL ? NULL : j->gradient + first * width;
        int32_t status = call_rows(c, j->kind, who, n, j->x + first * c->d, params, is_split ? 0 : j->params_stride,
                                   j->value + first, gradient, error);
        if (status != DEMOS_OK) {
            return status;
        }
        first += n;
    }
    return DEMOS_OK;
}

static int32_t do_points(void *argument, size_t first, size_t count, int32_t who, demos_error *error) {
    const demos_job *j = argument;
    const demos_caller *c = j->caller;
    const double *params = j->params + first * c->p;
    int32_t status = c->model.evaluate(c->users[who], count, c->p, c->q, params, j->out + first * c->q, error);
    return demos_settle(error, status, "evaluate");
}

static size_t count_rows(const demos_job *j, size_t block) {
    size_t first = block * j->block_rows;
    return j->n - first < j->block_rows ? j->n - first : j->block_rows;
}

/* n draws, the stream being that of this thread as well. */
static int32_t draw(const demos_caller *c, int32_t who, size_t n, const double *params, demos_stream *stream, double *x,
                    demos_error *error) {
    demos_stream *before = demos_use_stream(stream);
    int32_t status = c->model.sample(c->users[who], n, c->d, c->p, params, stream, x, error);
    demos_use_stream(before);
    return demos_settle(error, status, "sample");
}

static int32_t do_blocks(void *argument, size_t first, size_t count, int32_t who, demos_error *error) {
    const demos_job *j = argument;
    const demos_caller *c = j->caller;
    for (size_t block = first; block < first + count; block++) {
        demos_stream stream;
        demos_stream_set(&stream, j->seed, j->first_block + block);
        double *x = j->out + block * j->block_rows * c->d;
        int32_t status = draw(c, who, count_rows(j, block), j->params, &stream, x, error);
        if (status != DEMOS_OK) {
            return status;
        }
    }
    return DEMOS_OK;
}

static int32_t do_cells(void *argument, size_t first, size_t count, int32_t who, demos_error *error) {
    const demos_job *j = argument;
    const demos_caller *c = j->caller;
    double *value = j->scratch + (size_t)who * j->block_rows * (1 + c->p), *gradient = value + j->block_rows;
    for (size_t cell = first; cell < first + count; cell++) {
        size_t block = cell % j->n_blocks, rows = count_rows(j, block);
        const double *params = j->params + cell / j->n_blocks * c->p;
        int32_t status =
            call_rows(c, j->gradient == NULL ? DENSITY : GRADIENT, who, rows, j->x + block * j->block_rows * c->d,
                      params, 0, value, j->gradient == NULL ? NULL : gradient, error);
        if (status != DEMOS_OK) {
            return status;
        }
        j->value[cell] = demos_sum(value, rows, 1);
        for (size_t column = 0; j->gradient != NULL && column < c->p; column++) {
            j->gradient[cell * c->p + column] = demos_sum(gradient + column, rows, c->p);
        }
    }
    return DEMOS_OK;
}

/* ---- The whole of it -------------------------------------------------------------------------------------------- */

static int32_t miss(const char *function, demos_error *error) {
    return demos_fail(error, DEMOS_NOT_OFFERED, "the model has no %s()", function);
}

static int may_share_rows(const demos_caller *caller) { return (caller->model.flags & DEMOS_ROWS_DEPEND) == 0; }

int32_t demos_call_log_density(demos_caller *caller, size_t n, const double *x, const double *params,
                               size_t params_stride, double *value, demos_error *error) {
    if (caller->model.log_density == NULL) {
        return miss("log_density", error);
    }
    demos_job j = {
        .caller = caller, .kind = DENSITY, .x = x, .params = params, .params_stride = params_stride, .value = value};
    return demos_run_job(caller, do_rows, &j, n, may_share_rows(caller), error);
}

static int32_t call_gradient(demos_caller *caller, demos_call_kind kind, size_t n, const double *x,
                             const double *params, size_t params_stride, double *value, double *gradient,
                             demos_error *error) {
    demos_job j = {.caller = caller,
                   .kind = kind,
                   .x = x,
                   .params = params,
                   .params_stride = params_stride,
                   .value = value,
                   .gradient = gradient};
    return demos_run_job(caller, do_rows, &j, n, may_share_rows(caller), error);
}

int32_t demos_call_log_density_gradient(demos_caller *caller, size_t n, const double *x, const double *params,
                                        size_t params_stride, double *value, double *gradient, demos_error *error) {
    if (caller->model.log_density_gradient == NULL) {
        return miss("log_density_gradient", error);
    }
    return call_gradient(caller, GRADIENT, n, x, params, params_stride, value, gradient, error);
}

int32_t demos_call_log_density_gradient_x(demos_caller *caller, size_t n, const double *x, const double *params,
                                          size_t params_stride, double *value, double *gradient, demos_error *error) {
    if (caller->model.log_density_gradient_x == NULL) {
        return miss("log_density_gradient_x", error);
    }
    return call_gradient(caller, GRADIENT_X, n, x, params, params_stride, value, gradient, error);
}

int32_t demos_call_evaluate(demos_caller *caller, size_t m, const double *params, double *out, demos_error *error) {
    if (caller->model.evaluate == NULL) {
        return miss("evaluate", error);
    }
    demos_job j = {.caller = caller, .kind = EVALUATE, .params = params, .out = out};
    return demos_run_job(caller, do_points, &j, m, may_share_rows(caller), error);
}

int32_t demos_call_sample(demos_caller *caller, size_t n, const double *params, demos_stream *stream, double *x,
                          demos_error *error) {
    if (caller->model.sample == NULL) {
        return miss("sample", error);
    }
    demos_error own;
    error = error == NULL ? &own : error;
    error->message[0] = '\0';
    return draw(caller, 0, n, params, stream, x, error);
}

static int32_t check_block_rows(size_t block_rows, demos_error *error) {
    return block_rows > 0 ? DEMOS_OK : demos_fail(error, DEMOS_INVALID_INPUT, "block_rows is 0; a block has rows");
}

int32_t demos_call_sample_rows(demos_caller *caller, uint64_t seed, uint64_t first_row, size_t n, size_t block_rows,
                               const double *params, double *x, demos_error *error) {
    if (caller->model.sample == NULL) {
        return miss("sample", error);
    }
    int32_t status = check_block_rows(block_rows, error);
    if (status != DEMOS_OK) {
        return status;
    }
    if (first_row % block_rows != 0) {
        return demos_fail(error, DEMOS_INVALID_INPUT,
                          "first_row is %llu; draws are asked for from the beginning of a"
                          " block of %zu rows on",
                          (unsigned long long)first_row, block_rows);
    }
    demos_job j = {.caller = caller,
                   .kind = SAMPLE,
                   .params = params,
                   .out = x,
                   .seed = seed,
                   .n = n,
                   .first_block = first_row / block_rows,
                   .block_rows = block_rows};
    return demos_run_job(caller, do_blocks, &j, n / block_rows + (n % block_rows != 0), 1, error);
}

int32_t demos_call_log_likelihood(demos_caller *caller, size_t n, const double *x, size_t k, const double *params,
                                  size_t block_rows, double *sum, double *gradient, demos_error *error) {
    if (gradient == NULL ? caller->model.log_density == NULL : caller->model.log_density_gradient == NULL) {
        return miss(gradient == NULL ? "log_density" : "log_density_gradient", error);
    }
    int32_t status = check_block_rows(block_rows, error);
    size_t n_blocks = status == DEMOS_OK ? n / block_rows + (n % block_rows != 0) : 0;
    if (status != DEMOS_OK || k == 0 || n_blocks == 0) {
        return status;
    }
    size_t rows = n < block_rows ? n : block_rows;
    double *scratch = calloc((size_t)caller->n_threads * (1 + caller->p), rows * sizeof *scratch);
    if (scratch == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for blocks of %zu rows", rows);
    }
    demos_job j = {.caller = caller,
                   .kind = gradient == NULL ? CELL : CELL_GRADIENT,
                   .x = x,
                   .params = params,
                   .value = sum,
                   .gradient = gradient,
                   .n = n,
                   .block_rows = rows,
                   .n_blocks = n_blocks,
                   .scratch = scratch};
    status = demos_run_job(caller, do_cells, &j, k * n_blocks, 1, error);
    free(scratch);
    return status;
}
