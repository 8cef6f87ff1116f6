/* Calls of models, in one thread and several. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"
#include "demos.h"
#include "scalar_model.h"
#include "sums.h"

enum { N = 5000, BLOCK = 64 };

static void fill(double *numbers, size_t n, uint64_t seed) {
    demos_stream stream;
    demos_stream_set(&stream, seed, 0);
    for (size_t i = 0; i < n; i++) {
        numbers[i] = demos_stream_uniform(&stream);
    }
}

/* ---- A model of scalar functions -------------------------------------------------------------------------------- */

/* All that a model answers to the same questions. */
typedef struct answers {
    double value[N], by_params[N * P], by_x[N * D], drawn[N * D], mapped[N * Q], sums[3 * (N / BLOCK + 1)],
        sums_by_params[3 * (N / BLOCK + 1) * P];
} answers;

static answers *ask(int32_t threads, const double *x, const double *params, size_t stride, int times) {
    answers *a = calloc(1, sizeof *a);
    demos_error error;
    demos_caller *caller = open_caller(&all_functions, threads);
    CHECK_EQUAL(demos_caller_threads(caller), threads);
    for (int time = 0; time < times; time++) { /* once to learn what a row costs, and then again */
        CHECK(demos_call_log_density_gradient(caller, N, x, params, stride, a->value, a->by_params, &error) ==
              DEMOS_OK);
        CHECK(demos_call_log_density(caller, N, x, params, stride, a->value, &error) == DEMOS_OK);
        CHECK(demos_call_log_density_gradient_x(caller, N, x, params, stride, a->value, a->by_x, &error) == DEMOS_OK);
        CHECK(demos_call_sample_rows(caller, 7, 3 * BLOCK, N, BLOCK, params, a->drawn, &error) == DEMOS_OK);
        CHECK(demos_call_evaluate(caller, N, params, a->mapped, &error) == DEMOS_OK);
        CHECK(demos_call_log_likelihood(caller, N, x, 3, params, BLOCK, a->sums, NULL, &error) == DEMOS_OK);
        CHECK(demos_call_log_likelihood(caller, N, x, 3, params, BLOCK, a->sums, a->sums_by_params, &error) ==
              DEMOS_OK);
    }
    CHECK(demos_call_log_density(caller, 0, NULL, params, 0, NULL, &error) == DEMOS_OK);
    demos_caller_close(caller);
    return a;
}

static void check_threads(void) {
    double *x = malloc(N * D * sizeof *x), *params = malloc(N * P * sizeof *params);
    fill(x, N * D, 1);
    fill(params, N * P, 2);
    for (size_t stride = 0; stride <= P; stride += P) {
        answers *one = ask(1, x, params, stride, 1), *four = ask(4, x, params, stride, 3);
        CHECK(memcmp(one, four, sizeof *one) == 0);
        for (size_t i = 0; i < N; i += 37) {
            const double *point = params + i * stride;
            CHECK_EQUAL(one->value[i], give_log_density(x + i * D, point));
            CHECK_EQUAL(one->by_params[i * P], x[i * D] > 0.9 ? 0 : x[i * D]); /* nothing where the value is -inf */
            CHECK_EQUAL(one->by_x[i * D + 1], point[1]);
            CHECK_EQUAL(one->mapped[i * Q + 2], params[i * P] * params[i * P + 1]);
        }
        /* A cell has the sum of its block's rows. */
        double rows[BLOCK];
        for (size_t i = 0; i < BLOCK; i++) {
            rows[i] = give_gradient(x + (BLOCK + i) * D, params + 2 * P, &(double[P]){0}[0]);
        }
        CHECK_EQUAL(one->sums[2 * ((N + BLOCK - 1) / BLOCK) + 1], demos_sum(rows, BLOCK, 1));
        demos_stream stream;
        demos_stream_set(&stream, 7, 4);
        CHECK_EQUAL(one->drawn[BLOCK * D], params[0] + demos_stream_uniform(&stream));
        free(one);
        free(four);
    }
    free(x);
    free(params);
}

static void check_arguments(void) {
    static const double params[P] = {1, 2};
    double x[4 * D];
    demos_error error;
    demos_caller *caller = open_caller(&all_functions, 1), *none;
    CHECK(demos_call_sample_rows(caller, 7, 5, 4, 4, params, x, &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, "first_row is 5");
    CHECK(demos_call_sample_rows(caller, 7, 0, 4, 0, params, x, &error) == DEMOS_INVALID_INPUT);
    CHECK(demos_call_log_likelihood(caller, 4, x, 1, params, 0, x, NULL, &error) == DEMOS_INVALID_INPUT);
    /* A stream that the caller has goes on from call to call. */
    demos_stream stream, same;
    demos_stream_set(&stream, 9, 0);
    same = stream;
    CHECK(demos_call_sample(caller, 2, params, &stream, x, &error) == DEMOS_OK);
    CHECK(demos_call_sample(caller, 2, params, &stream, x + 2 * D, &error) == DEMOS_OK);
    double together[4 * D];
    CHECK(demos_call_sample(caller, 4, params, &same, together, &error) == DEMOS_OK);
    CHECK(memcmp(x, together, sizeof x) == 0);
    CHECK(isnan(demos_uniform()));
    demos_caller_close(caller);
    demos_caller_close(NULL);
    demos_model model = {.size = sizeof model};
    demos_adapt(&all_functions, &model, &error);
    CHECK(demos_caller_open(&model, D, P, Q, 0, &none, &error) == DEMOS_INVALID_INPUT);
    CHECK(demos_caller_open(&model, D, P, Q, 5000, &none, &error) == DEMOS_INVALID_INPUT);
}

/* ---- A model with state ----------------------------------------------------------------------------------------- */

typedef struct state {
    atomic_int *alive;
    atomic_flag is_used; /* by a call */
    int fails_from;
} state;

static int32_t call_state(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                          size_t params_stride, double *value, demos_error *error) {
    state *s = user;
    (void)p;
    CHECK(!atomic_flag_test_and_set(&s->is_used)); /* no two calls have it at a time */
    int32_t status = DEMOS_OK;
    for (size_t i = 0; i < n && status == DEMOS_OK; i++) {
        volatile double sum = 0; /* takes its time */
        for (int k = 0; k < 200; k++) {
            sum = sum + x[i * d] * params[i * params_stride];
        }
        value[i] = sum;
        if (x[i * d] >= s->fails_from) {
            status = demos_fail(error, DEMOS_MODEL_FAILED, "row %g", x[i * d]);
        }
    }
    atomic_flag_clear(&s->is_used);
    return status;
}

static int32_t create_state(const demos_model *self, void **user, demos_error *error) {
    const state *first = self->user;
    state *made = malloc(sizeof *made);
    if (made == NULL || *first->alive == 3) {
        free(made);
        return demos_fail(error, DEMOS_MODEL_FAILED, "no further license");
    }
    *made = (state){.alive = first->alive, .is_used = ATOMIC_FLAG_INIT, .fails_from = first->fails_from};
    atomic_fetch_add(made->alive, 1);
    *user = made;
    return DEMOS_OK;
}

static void destroy_state(void *user) {
    state *s = user;
    atomic_fetch_sub(s->alive, 1);
    free(s);
}

static void check_state(void) {
    atomic_int alive = 1;
    state *first = malloc(sizeof *first);
    *first = (state){.alive = &alive, .is_used = ATOMIC_FLAG_INIT, .fails_from = N};
    demos_model model = {.size = sizeof model,
                         .major = DEMOS_ABI_MAJOR,
                         .flags = DEMOS_REENTRANT,
                         .user = first,
                         .log_density = call_state,
                         .create = create_state,
                         .destroy = destroy_state};
    demos_caller *caller;
    demos_error error;
    double *x = malloc(N * sizeof *x), *value = malloc(N * sizeof *value);
    static const double params[1] = {3};
    for (size_t i = 0; i < N; i++) {
        x[i] = (double)i;
    }
    CHECK(demos_caller_open(&model, 1, 1, 0, 3, &caller, &error) == DEMOS_OK);
    CHECK_EQUAL(alive, 3);
    for (int time = 0; time < 5; time++) {
        CHECK(demos_call_log_density(caller, N, x, params, 0, value, &error) == DEMOS_OK);
    }
    CHECK_EQUAL(value[N - 1], 600.0 * (N - 1));
    demos_caller_close(caller);
    CHECK_EQUAL(alive, 1);
    CHECK(demos_caller_open(&model, 1, 1, 0, 4, &caller, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "no further license");
    CHECK_EQUAL(alive, 1);

    /* Of failures in several threads, the one of the first row is told. */
    first->fails_from = 1700;
    CHECK(demos_caller_open(&model, 1, 1, 0, 3, &caller, &error) == DEMOS_OK);
    for (int time = 0; time < 20; time++) {
        CHECK(demos_call_log_density(caller, N, x, params, 0, value, &error) == DEMOS_MODEL_FAILED);
        CHECK(strcmp(error.message, "row 1700") == 0);
    }
    demos_caller_close(caller);
    demos_end_model(&model);
    CHECK_EQUAL(alive, 0);
    CHECK(model.log_density == NULL);
    free(x);
    free(value);
}

/* ---- A sampler of batches that uses the stream of its thread ----------------------------------------------------- */

static int32_t draw_batch(void *user, size_t n, size_t d, size_t p, const double *params, demos_stream *stream,
                          double *x, demos_error *error) {
    (void)user, (void)d, (void)p, (void)params, (void)error;
    for (size_t i = 0; i < n; i++) {
        x[i] = i % 2 == 0 ? demos_uniform() : demos_stream_uniform(stream);
    }
    return DEMOS_OK;
}

static void check_stream_of_thread(void) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR, .sample = draw_batch};
    demos_caller *caller;
    demos_error error;
    demos_stream stream, same;
    double x[4];
    demos_stream_set(&stream, 5, 0);
    same = stream;
    CHECK(demos_caller_open(&model, 1, 0, 0, 1, &caller, &error) == DEMOS_OK);
    CHECK(demos_call_sample(caller, 4, NULL, &stream, x, &error) == DEMOS_OK);
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(x[i], demos_stream_uniform(&same));
    }
    CHECK(isnan(demos_uniform()));
    demos_caller_close(caller);
}

/* ---- Models that take one point a call, or whole blocks --------------------------------------------------------- */

typedef struct seen {
    size_t calls, largest;
} seen;

static int32_t see(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                   size_t params_stride, double *value, demos_error *error) {
    seen *s = user;
    (void)d, (void)p, (void)x, (void)error;
    s->calls++;
    s->largest = n > s->largest ? n : s->largest;
    for (size_t i = 0; i < n; i++) {
        value[i] = params[i * params_stride];
    }
    return params_stride == 0 ? DEMOS_OK : demos_fail(error, DEMOS_MODEL_FAILED, "more than one point");
}

static void check_flags(void) {
    seen s = {0};
    demos_model model = {.size = sizeof model,
                         .major = DEMOS_ABI_MAJOR,
                         .user = &s,
                         .log_density = see,
                         .flags = DEMOS_ONE_POINT | DEMOS_THREAD_SAFE};
    demos_caller *caller;
    demos_error error;
    double x[6] = {0}, value[6];
    const double params[6] = {1, 1, 1, 2, 2, 1};
    CHECK(demos_caller_open(&model, 1, 1, 0, 1, &caller, &error) == DEMOS_OK);
    CHECK(demos_call_log_density(caller, 6, x, params, 1, value, &error) == DEMOS_OK);
    CHECK(memcmp(value, params, sizeof value) == 0);
    CHECK_EQUAL(s.calls, 3);
    CHECK_EQUAL(s.largest, 3);
    demos_caller_close(caller);

    s = (seen){0};
    model.flags = DEMOS_ROWS_DEPEND | DEMOS_THREAD_SAFE;
    double *many = calloc(N, sizeof *many), *values = calloc(N, sizeof *values);
    CHECK(demos_caller_open(&model, 1, 1, 0, 4, &caller, &error) == DEMOS_OK);
    CHECK(demos_call_log_density(caller, N, many, params, 0, values, &error) == DEMOS_OK);
    CHECK_EQUAL(s.calls, 1); /* whoever calls has to say where blocks end */
    CHECK_EQUAL(s.largest, N);
    demos_caller_close(caller);
    free(many);
    free(values);
}

int main(void) {
    check_threads();
    check_arguments();
    check_state();
    check_stream_of_thread();
    check_flags();
    return check_failures != 0;
}
