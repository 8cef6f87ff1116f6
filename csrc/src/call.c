/*
 * Calling a model as a worker does. Its rows are shared among threads where its flags allow that: in slices, handed out
 * one by one, as long as they are worth the waking of a thread, which is measured.
 */
#define _POSIX_C_SOURCE 200809L
#include "demos.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "error.h"
#include "pool.h"
#include "sums.h"

enum { MOST_THREADS = 1024, SLICES_A_THREAD = 32 };
/* Nanoseconds: of work that is shared at least, and of a slice of it. */
static const double LEAST_SHARED = 40e3, LEAST_SLICE = 20e3;

/* What is called; an item of each has a cost of its own. */
typedef enum { DENSITY, GRADIENT, GRADIENT_X, EVALUATE, SAMPLE, CELL, CELL_GRADIENT, N_KINDS } call_kind;

struct demos_caller {
    demos_model model;
    size_t d, p, q;
    int32_t n_threads;
    demos_pool *pool;      /* NULL where there is one thread */
    void **users;          /* one for each thread */
    double costs[N_KINDS]; /* nanoseconds of an item; 0 = not known */
};

/* One call, in whichever threads. */
typedef struct job {
    const demos_caller *caller;
    call_kind kind;
    const double *x, *params;
    size_t params_stride;
    double *value, *gradient, *out;
    /* Of samples: */
    uint64_t seed, first_block;
    /* Of samples and likelihoods: */
    size_t n, block_rows;
    /* Of likelihoods: */
    size_t n_blocks;
    double *scratch; /* [threads][block_rows][1 + p] */
} job;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* ---- Opening and closing ---------------------------------------------------------------------------------------- */

static int32_t make_users(demos_caller *caller, demos_error *error) {
    const demos_model *model = &caller->model;
    demos_error own;
    error = error == NULL ? &own : error;
    caller->users[0] = model->user;
    for (int32_t who = 1; who < caller->n_threads; who++) {
        caller->users[who] = model->user;
        if ((model->flags & DEMOS_THREAD_SAFE) == 0) {
            error->message[0] = '\0';
            void *user = NULL;
            int32_t status = demos_settle(error, model->create(model, &user, error), "create");
            if (status != DEMOS_OK) {
                return status;
            }
            caller->users[who] = user;
        }
    }
    return DEMOS_OK;
}

int32_t demos_caller_open(const demos_model *model, size_t d, size_t p, size_t q, int32_t threads,
                          demos_caller **caller, demos_error *error) {
    if (threads < 1 || threads > MOST_THREADS) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "threads is %d; it is 1 to %d", (int)threads, MOST_THREADS);
    }
    if ((model->flags & (DEMOS_THREAD_SAFE | DEMOS_REENTRANT)) == 0) {
        threads = 1;
    }
    demos_caller *made = calloc(1, sizeof *made);
    void **users = calloc((size_t)threads, sizeof *users);
    if (made == NULL || users == NULL) {
        free(made);
        free(users);
        return demos_fail(error, DEMOS_INTERNAL, "no memory to call a model");
    }
    *made = (demos_caller){.model = *model, .d = d, .p = p, .q = q, .n_threads = threads, .users = users};
    int32_t status = make_users(made, error);
    if (status == DEMOS_OK && threads > 1) {
        status = demos_pool_open(threads, &made->pool, error);
    }
    if (status != DEMOS_OK) {
        demos_caller_close(made);
        return status;
    }
    *caller = made;
    return DEMOS_OK;
}

void demos_caller_close(demos_caller *caller) {
    if (caller == NULL) {
        return;
    }
    if (caller->pool != NULL) {
        demos_pool_close(caller->pool);
    }
    for (int32_t who = 1; who < caller->n_threads; who++) {
        void *user = caller->users[who];
        if (user != NULL && user != caller->model.user && caller->model.destroy != NULL) {
            caller->model.destroy(user);
        }
    }
    free(caller->users);
    free(caller);
}

int32_t demos_caller_threads(const demos_caller *caller) { return caller->n_threads; }

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
static int32_t call_rows(const demos_caller *c, call_kind kind, int32_t who, size_t n, const double *x,
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
    const job *j = argument;
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
    const job *j = argument;
    const demos_caller *c = j->caller;
    const double *params = j->params + first * c->p;
    int32_t status = c->model.evaluate(c->users[who], count, c->p, c->q, params, j->out + first * c->q, error);
    return demos_settle(error, status, "evaluate");
}

static size_t count_rows(const job *j, size_t block) {
    size_t first = block * j->block_rows;
    return j->n - first < j->block_rows ? j->n - first : j->block_rows;
}

static int32_t do_blocks(void *argument, size_t first, size_t count, int32_t who, demos_error *error) {
    const job *j = argument;
    const demos_caller *c = j->caller;
    for (size_t block = first; block < first + count; block++) {
        demos_stream stream;
        demos_stream_set(&stream, j->seed, j->first_block + block);
        double *x = j->out + block * j->block_rows * c->d;
        int32_t status = c->model.sample(c->users[who], count_rows(j, block), c->d, c->p, j->params, &stream, x, error);
        if (status != DEMOS_OK) {
            return demos_settle(error, status, "sample");
        }
    }
    return DEMOS_OK;
}

static int32_t do_cells(void *argument, size_t first, size_t count, int32_t who, demos_error *error) {
    const job *j = argument;
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

/* Computes n items; they may be shared among threads where they do not depend on one another. */
static int32_t run(demos_caller *caller, demos_work work, job *j, size_t n, int may_share, demos_error *error) {
    demos_error own; /* functions of models always get one */
    error = error == NULL ? &own : error;
    error->message[0] = '\0';
    if (n == 0) {
        return DEMOS_OK;
    }
    if (caller->pool == NULL || !may_share) {
        return work(j, 0, n, 0, error);
    }
    size_t first = 0;
    double *cost = &caller->costs[j->kind], n_shared = 1, begin = now();
    int32_t status = DEMOS_OK;
    if (*cost == 0) { /* one item, to know what it costs, and then the others */
        status = work(j, first++, 1, 0, error);
        *cost = now() - begin + 1;
        if (status != DEMOS_OK || n == 1) {
            return status;
        }
        begin = now();
    }
    double rest = (double)(n - first);
    if (rest * *cost < LEAST_SHARED) {
        status = work(j, first, n - first, 0, error);
    } else {
        double slice = rest / (SLICES_A_THREAD * (double)caller->n_threads), least = LEAST_SLICE / *cost;
        slice = ceil(slice > least ? slice : least);
        n_shared = caller->n_threads;
        status = demos_pool_run(caller->pool, work, j, first, n, slice < rest ? (size_t)slice : n - first, error);
    }
    *cost = 0.5 * (*cost + (now() - begin + 1) * n_shared / rest);
    return status;
}

static int32_t miss(const char *function, demos_error *error) {
    return demos_fail(error, DEMOS_NOT_OFFERED, "the model has no %s()", function);
}

static int may_share_rows(const demos_caller *caller) { return (caller->model.flags & DEMOS_ROWS_DEPEND) == 0; }

int32_t demos_call_log_density(demos_caller *caller, size_t n, const double *x, const double *params,
                               size_t params_stride, double *value, demos_error *error) {
    if (caller->model.log_density == NULL) {
        return miss("log_density", error);
    }
    job j = {
        .caller = caller, .kind = DENSITY, .x = x, .params = params, .params_stride = params_stride, .value = value};
    return run(caller, do_rows, &j, n, may_share_rows(caller), error);
}

static int32_t call_gradient(demos_caller *caller, call_kind kind, size_t n, const double *x, const double *params,
                             size_t params_stride, double *value, double *gradient, demos_error *error) {
    job j = {.caller = caller,
             .kind = kind,
             .x = x,
             .params = params,
             .params_stride = params_stride,
             .value = value,
             .gradient = gradient};
    return run(caller, do_rows, &j, n, may_share_rows(caller), error);
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
    job j = {.caller = caller, .kind = EVALUATE, .params = params, .out = out};
    return run(caller, do_points, &j, m, may_share_rows(caller), error);
}

int32_t demos_call_sample(demos_caller *caller, size_t n, const double *params, demos_stream *stream, double *x,
                          demos_error *error) {
    if (caller->model.sample == NULL) {
        return miss("sample", error);
    }
    demos_error own;
    error = error == NULL ? &own : error;
    error->message[0] = '\0';
    int32_t status = caller->model.sample(caller->users[0], n, caller->d, caller->p, params, stream, x, error);
    return demos_settle(error, status, "sample");
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
    job j = {.caller = caller,
             .kind = SAMPLE,
             .params = params,
             .out = x,
             .seed = seed,
             .n = n,
             .first_block = first_row / block_rows,
             .block_rows = block_rows};
    return run(caller, do_blocks, &j, n / block_rows + (n % block_rows != 0), 1, error);
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
    job j = {.caller = caller,
             .kind = gradient == NULL ? CELL : CELL_GRADIENT,
             .x = x,
             .params = params,
             .value = sum,
             .gradient = gradient,
             .n = n,
             .block_rows = rows,
             .n_blocks = n_blocks,
             .scratch = scratch};
    status = run(caller, do_cells, &j, k * n_blocks, 1, error);
    free(scratch);
    return status;
}
