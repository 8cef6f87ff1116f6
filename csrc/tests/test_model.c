/* Models: what is accepted as one, adapters, and calls in one thread and several. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"
#include "demos.h"
#include "sums.h"

enum { N = 5000, D = 2, P = 2, Q = 3, BLOCK = 64 };

/* ---- A code of scalar functions --------------------------------------------------------------------------------- */

static double give_density(const double *x, const double *params) { return exp(-x[0] * params[0]) * params[1]; }

static double give_negative(const double *x, const double *params) { return x[0] > 0.5 ? -0.25 * params[0] : 1; }

static double give_nan(const double *x, const double *params) { return x[0] - params[0] + (double)NAN; }

static double give_nothing(const double *x, const double *params) { return 0 * x[0] * params[0] * -1.0; }

static double give_log_density(const double *x, const double *params) { return x[0] * params[0] + x[1] * params[1]; }

static double give_gradient(const double *x, const double *params, double *gradient) {
    gradient[0] = x[0];
    gradient[1] = x[1];
    return x[0] > 0.9 ? (double)-INFINITY : give_log_density(x, params);
}

static double give_gradient_x(const double *x, const double *params, double *gradient) {
    gradient[0] = params[0];
    gradient[1] = params[1];
    return give_log_density(x, params);
}

static void draw(double *x, const double *params) {
    x[0] = params[0] + demos_uniform();
    x[1] = params[1] + demos_normal();
}

static void map(double *out, const double *params) {
    out[0] = params[0];
    out[1] = params[1];
    out[2] = params[0] * params[1];
}

static const demos_functions all_functions = {
    .size = sizeof all_functions,
    .flags = DEMOS_THREAD_SAFE,
    .density = give_density,
    .log_density = give_log_density,
    .log_density_gradient = give_gradient,
    .log_density_gradient_x = give_gradient_x,
    .sample = draw,
    .evaluate = map,
};

static int32_t init_all(demos_model *model, const char *config, demos_error *error) {
    return strcmp(config, "{}") == 0 ? demos_adapt(&all_functions, model, error)
                                     : demos_fail(error, DEMOS_MODEL_FAILED, "no table %s", config);
}

static demos_caller *open_caller(const demos_functions *functions, int32_t threads) {
    demos_model model = {.size = sizeof model};
    demos_error error;
    demos_caller *caller = NULL;
    if (!CHECK(demos_adapt(functions, &model, &error) == DEMOS_OK) ||
        !CHECK(demos_check_model(&model, &model, &error) == DEMOS_OK) ||
        !CHECK(demos_caller_open(&model, D, P, Q, threads, &caller, &error) == DEMOS_OK)) {
        exit(2);
    }
    return caller;
}

static void fill(double *numbers, size_t n, uint64_t seed) {
    demos_stream stream;
    demos_stream_set(&stream, seed, 0);
    for (size_t i = 0; i < n; i++) {
        numbers[i] = demos_stream_uniform(&stream);
    }
}

/* ---- What is a model -------------------------------------------------------------------------------------------- */

/* A model in memory of so many bytes, and no more. */
static demos_model *make_shorter(const demos_model *model, size_t size) {
    demos_model said = *model;
    void *memory = malloc(size);
    said.size = (uint32_t)size;
    return memory == NULL ? NULL : memcpy(memory, &said, size);
}

static void check_versions(void) {
    demos_model model, given = {.size = sizeof given, .major = DEMOS_ABI_MAJOR};
    demos_error error;
    CHECK(demos_adapt(&all_functions, &given, &error) == DEMOS_OK);
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_OK);
    CHECK(model.evaluate != NULL && model.sample != NULL);

    given.major = DEMOS_ABI_MAJOR + 1;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_BAD_VERSION);
    CHECK_TEXT(error.message, "version 2.0 of demos.h, and this library serves 1.0 to 1.");
    given.major = DEMOS_ABI_MAJOR;
    given.minor = DEMOS_ABI_MINOR + 1;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_BAD_VERSION);
    given.minor = 0;

    /* An older minor version knows fewer members: what lies behind its end is not read. */
    demos_model *shorter = make_shorter(&given, offsetof(demos_model, sample));
    CHECK(demos_check_model(shorter, &model, &error) == DEMOS_OK);
    CHECK(model.size == sizeof model && model.log_density != NULL && model.sample == NULL && model.evaluate == NULL);
    CHECK(demos_adapt(&all_functions, shorter, &error) == DEMOS_OK);
    free(shorter);
    shorter = make_shorter(&given, 8);
    CHECK(demos_check_model(shorter, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK(demos_adapt(&all_functions, shorter, &error) == DEMOS_INVALID_INPUT);
    free(shorter);

    demos_model nothing = {.size = sizeof nothing, .major = DEMOS_ABI_MAJOR};
    CHECK(demos_check_model(&nothing, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "offers nothing");
    nothing = (demos_model){0};
    CHECK(demos_check_model(&nothing, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "sizeof(demos_model)");
    given.flags = 64;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "0x40");
    given.flags = DEMOS_REENTRANT;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "create()");
    CHECK(demos_abi_version() == DEMOS_ABI_MAJOR * 65536 + DEMOS_ABI_MINOR);
}

/* A plug-in of a later version, whose model is larger, and one that writes nothing at all. */
static int32_t init_later(demos_model *model, const char *config, demos_error *error) {
    (void)config;
    (void)error;
    memset(model, 1, 2 * sizeof *model);
    model->size = 2 * sizeof *model;
    model->major = DEMOS_ABI_MAJOR;
    model->minor = DEMOS_ABI_MINOR + 1;
    return DEMOS_OK;
}

static int32_t init_silently(demos_model *model, const char *config, demos_error *error) {
    (void)model, (void)config, (void)error;
    return DEMOS_MODEL_FAILED;
}

static int32_t init_oddly(demos_model *model, const char *config, demos_error *error) {
    (void)model, (void)config;
    memset(error->message, 'x', sizeof error->message);
    return -1;
}

static void check_init(void) {
    demos_model model;
    demos_error error;
    CHECK(demos_init_model(init_all, "{}", &model, &error) == DEMOS_OK);
    demos_end_model(&model);
    CHECK(demos_init_model(init_all, "{\"a\": 1}", &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "no table {\"a\": 1}");
    CHECK(demos_init_model(init_later, "{}", &model, &error) == DEMOS_BAD_VERSION);
    CHECK(demos_init_model(init_silently, "{}", &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "demos_model_init() returned MODEL_FAILED and no message");
    CHECK(demos_init_model(init_oddly, "{}", &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "demos_model_init() returned -1, UNKNOWN, which no model does: xxx");
    CHECK(strlen(error.message) < sizeof error.message);
    CHECK(demos_init_model(init_silently, "{}", &model, NULL) == DEMOS_MODEL_FAILED);
}

/* ---- Adapters --------------------------------------------------------------------------------------------------- */

static int32_t try_density(demos_density_function density, const double *x, double *value, demos_error *error) {
    const demos_functions functions = {.size = sizeof functions, .density = density};
    static const double params[P] = {1, 2};
    demos_caller *caller = open_caller(&functions, 2);
    CHECK_EQUAL(demos_caller_threads(caller), 1); /* it is not said to be thread-safe */
    int32_t status = demos_call_log_density(caller, 2, x, params, 0, value, error);
    double gradient[2 * P];
    CHECK(demos_call_log_density_gradient(caller, 2, x, params, 0, value, gradient,
                                          error == NULL ? NULL : &(demos_error){0}) == DEMOS_NOT_OFFERED);
    demos_caller_close(caller);
    return status;
}

static void check_densities(void) {
    const double x[2 * D] = {0.25, 0, 0.75, 0};
    double value[2];
    demos_error error;
    CHECK(try_density(give_density, x, value, &error) == DEMOS_OK);
    CHECK_EQUAL(value[1], log(exp(-0.75) * 2));
    CHECK(try_density(give_nothing, x, value, &error) == DEMOS_OK);
    CHECK_EQUAL(value[0], (double)-INFINITY); /* of -0 */
    CHECK(try_density(give_nan, x, value, &error) == DEMOS_OK);
    CHECK(isnan(value[0]) && isnan(value[1]));
    CHECK(try_density(give_negative, x, value, &error) == DEMOS_MODEL_FAILED);
    CHECK_EQUAL(error.status, DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "the density is -0.25, and none is negative, at x = (0.75, 0), params = (1, 2)");
    CHECK(try_density(give_negative, x, value, NULL) == DEMOS_MODEL_FAILED);
}

static void check_functions(void) {
    demos_functions later = all_functions;
    demos_model model = {.size = sizeof model};
    demos_error error;
    later.size = sizeof later + 8;
    CHECK(demos_adapt(&later, &model, &error) == DEMOS_INVALID_INPUT);
    later.size = offsetof(demos_functions, sample); /* an earlier version */
    CHECK(demos_adapt(&later, &model, &error) == DEMOS_OK);
    CHECK(model.log_density != NULL && model.sample == NULL && model.evaluate == NULL);
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

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
    check_versions();
    check_init();
    check_densities();
    check_functions();
    check_threads();
    check_arguments();
    check_state();
    check_flags();
    return check_failures != 0;
}
