/* What a worker makes of chunks, with a dispatcher played by the test: the bits of calls, and a word on all else. */
#include <math.h>

#include "played_worker.h"

static void check_rows(void) {
    played *p = start_scalar();
    inputs *in = make_inputs();
    demos_caller *caller = open_caller(&all_functions, 1);
    static double value[N], gradient[N * P];
    for (int per_row = 0; per_row < 2; per_row++) {
        size_t stride = per_row ? P : 0;
        const demos_array arrays[] = {demos_describe_matrix(DEMOS_FLOAT64, N, D),
                                      per_row ? demos_describe_matrix(DEMOS_FLOAT64, N, P)
                                              : demos_describe_vector(DEMOS_FLOAT64, P)};
        const void *const data[] = {in->x, in->params};
        demos_header header = {.operation = DEMOS_LOG_DENSITY, .first_row = 12, .n_rows = N};
        demos_call_log_density(caller, N, in->x, in->params, stride, value, NULL);
        ask(p, header, 2, arrays, data, value, N, NULL, 0);
        header.operation = DEMOS_LOG_DENSITY_GRADIENT;
        demos_call_log_density_gradient(caller, N, in->x, in->params, stride, value, gradient, NULL);
        ask(p, header, 2, arrays, data, value, N, gradient, N * P);
        header.flags = DEMOS_WRT_X;
        demos_call_log_density_gradient_x(caller, N, in->x, in->params, stride, value, gradient, NULL);
        ask(p, header, 2, arrays, data, value, N, gradient, N * D);
    }
    demos_caller_close(caller);
    free(in);
    CHECK(end(p, NULL) == DEMOS_OK);
}

static void turn(const double *cells, double *turned, size_t width) {
    for (size_t j = 0; j < POINTS; j++) {
        for (size_t b = 0; b < BLOCKS; b++) {
            memcpy(turned + (b * POINTS + j) * width, cells + (j * BLOCKS + b) * width, width * sizeof *cells);
        }
    }
}

static void check_cells(void) {
    played *p = start_scalar();
    inputs *in = make_inputs();
    demos_caller *caller = open_caller(&all_functions, 1);
    static double sum[POINTS * BLOCKS], slope[POINTS * BLOCKS * P], turned[POINTS * BLOCKS],
        turned_slope[POINTS * BLOCKS * P];
    const demos_array arrays[] = {demos_describe_matrix(DEMOS_FLOAT64, N, D),
                                  demos_describe_matrix(DEMOS_FLOAT64, POINTS, P)};
    const void *const data[] = {in->x, in->params};
    for (int is_gradient = 0; is_gradient < 2; is_gradient++) {
        demos_header header = {.operation = is_gradient ? DEMOS_LOG_LIKELIHOOD_GRADIENT : DEMOS_LOG_LIKELIHOOD,
                               .first_row = 7,
                               .n_rows = POINTS * BLOCKS};
        demos_call_log_likelihood(caller, N, in->x, POINTS, in->params, BLOCK, sum, is_gradient ? slope : NULL, NULL);
        ask(p, header, 2, arrays, data, sum, POINTS * BLOCKS, is_gradient ? slope : NULL, POINTS * BLOCKS * P);
        turn(sum, turned, 1);
        turn(slope, turned_slope, P);
        header.flags = DEMOS_BLOCK_MAJOR;
        ask(p, header, 2, arrays, data, turned, POINTS * BLOCKS, is_gradient ? turned_slope : NULL,
            POINTS * BLOCKS * P);
    }
    demos_caller_close(caller);
    free(in);
    CHECK(end(p, NULL) == DEMOS_OK);
}

static void check_draws_and_points(void) {
    played *p = start_scalar();
    inputs *in = make_inputs();
    demos_caller *caller = open_caller(&all_functions, 1);
    static double drawn[N * D], out[N * Q];
    demos_header header = {.operation = DEMOS_SAMPLE, .first_row = 5 * BLOCK, .n_rows = N, .seed = 11};
    demos_array array = demos_describe_vector(DEMOS_FLOAT64, P);
    const void *const data[] = {in->params};
    demos_call_sample_rows(caller, 11, 5 * BLOCK, N, BLOCK, in->params, drawn, NULL);
    ask(p, header, 1, &array, data, drawn, N * D, NULL, 0);
    header = (demos_header){.operation = DEMOS_EVALUATE, .first_row = 5, .n_rows = N};
    array = demos_describe_matrix(DEMOS_FLOAT64, N, P);
    demos_call_evaluate(caller, N, in->params, out, NULL);
    ask(p, header, 1, &array, data, out, N * Q, NULL, 0);
    demos_caller_close(caller);
    free(in);
    CHECK(end(p, NULL) == DEMOS_OK);
}

/* ---- What does not suit ----------------------------------------------------------------------------------------- */

static void check_mistakes(void) {
    static const char part[] = "whose arrays do not suit it";
    played *p = start_scalar();
    const struct {
        uint8_t operation;
        uint64_t n_rows;
        uint32_t n;
        demos_array arrays[3];
    } chunks[] = {
        {DEMOS_LOG_DENSITY, 4, 0, {{0}}},
        {DEMOS_LOG_DENSITY, 4, 1, {MATRIX(4, D)}},
        {DEMOS_LOG_DENSITY, 4, 3, {MATRIX(4, D), VECTOR(P), VECTOR(P)}},
        {DEMOS_LOG_DENSITY, 4, 2, {MATRIX(4, D + 1), VECTOR(P)}},
        {DEMOS_LOG_DENSITY, 4, 2, {VECTOR(4 * D), VECTOR(P)}},
        {DEMOS_LOG_DENSITY, 4, 2, {MATRIX(4, D), VECTOR(P + 1)}},
        {DEMOS_LOG_DENSITY, 4, 2, {MATRIX(4, D), MATRIX(3, P)}},
        {DEMOS_LOG_DENSITY, 4, 2, {MATRIX(4, D), MATRIX(5, P)}},
        {DEMOS_LOG_DENSITY, 5, 2, {MATRIX(4, D), VECTOR(P)}},
        {DEMOS_LOG_DENSITY, 4, 2, {demos_describe_matrix(DEMOS_INT64, 4, D), VECTOR(P)}},
        {DEMOS_LOG_DENSITY, 4, 2, {MATRIX(4, D), demos_describe_vector(DEMOS_FLOAT32, P)}},
        {DEMOS_LOG_DENSITY, 4, 2, {demos_describe_matrix(DEMOS_COMPLEX128, 4, D), VECTOR(P)}},
        {DEMOS_LOG_DENSITY_GRADIENT, 4, 2, {MATRIX(4, P + 1), VECTOR(P)}},
        {DEMOS_LOG_LIKELIHOOD, 4, 2, {MATRIX(4, D), VECTOR(P)}},
        {DEMOS_LOG_LIKELIHOOD, 2, 2, {MATRIX(65, D), MATRIX(2, P)}},
        {DEMOS_LOG_LIKELIHOOD, 0, 2, {MATRIX(0, D), MATRIX(2, P)}},
        {DEMOS_LOG_LIKELIHOOD, 0, 2, {MATRIX(65, D), MATRIX(0, P)}},
        {DEMOS_LOG_LIKELIHOOD, UINT64_MAX, 2, {MATRIX(65, D), MATRIX(2, P)}},
        {DEMOS_LOG_LIKELIHOOD_GRADIENT, 4, 1, {MATRIX(65, D)}},
        {DEMOS_SAMPLE, 4, 1, {VECTOR(P + 1)}},
        {DEMOS_SAMPLE, 4, 1, {MATRIX(1, P)}},
        {DEMOS_SAMPLE, 4, 1, {demos_describe_vector(DEMOS_UINT64, P)}},
        {DEMOS_EVALUATE, 4, 1, {MATRIX(3, P)}},
        {DEMOS_EVALUATE, 4, 1, {VECTOR(P)}},
        {DEMOS_EVALUATE, 4, 2, {MATRIX(4, P), VECTOR(P)}},
    };
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        int failures = check_failures;
        refuse(p, (demos_header){.operation = chunks[i].operation, .n_rows = chunks[i].n_rows}, chunks[i].n,
               chunks[i].arrays, DEMOS_INVALID_INPUT, part);
        if (check_failures > failures) {
            fprintf(stderr, "    in chunk %zu\n", i);
        }
    }
    const demos_array point[] = {VECTOR(P)}, cells[] = {MATRIX(65, D), MATRIX(2, P)};
    refuse(p, (demos_header){.operation = DEMOS_SAMPLE, .n_rows = 4, .first_row = 5}, 1, point, DEMOS_INVALID_INPUT,
           "first_row is 5");
    refuse(p, (demos_header){.operation = DEMOS_SAMPLE, .n_rows = UINT64_MAX}, 1, point, DEMOS_INVALID_INPUT,
           "cannot be sent");
    refuse(p, (demos_header){.operation = DEMOS_LOG_LIKELIHOOD, .n_rows = 4, .flags = DEMOS_RESIDENT}, 2, cells,
           DEMOS_NOT_OFFERED, "hold no data");
    for (uint8_t operation = 0; operation < 20; operation++) {
        if (operation == 0 || operation > DEMOS_EVALUATE) {
            refuse(p, (demos_header){.operation = operation, .n_rows = 4}, 1, point, DEMOS_NOT_OFFERED, "operation");
        }
    }
    /* No rows are no mistake. */
    const demos_array nothing[] = {MATRIX(0, D), VECTOR(P)};
    static const double params[P];
    ask(p, (demos_header){.operation = DEMOS_LOG_DENSITY_GRADIENT}, 2, nothing, (const void *const[]){NULL, params},
        NULL, 0, params, 0);
    CHECK(end(p, NULL) == DEMOS_OK);
}

/* A model of no parameters, of which any number of points takes no bytes. */
static double give_x(const double *x, const double *params) {
    (void)params;
    return x[0];
}

static void check_no_params(void) {
    static const demos_functions functions = {.size = sizeof functions, .log_density = give_x};
    static const char spec[] =
        "{\"name\": \"played\", \"parameters\": [], \"observables\": [\"x\"], \"block_rows\": 1}";
    demos_model model = make_model(&functions);
    played *p = start(&model, spec, 0);
    expect_offer(p, "played");
    const demos_array many[] = {MATRIX(32, 1), MATRIX(((uint64_t)1 << 59) + 1, 0)},
                      one[] = {MATRIX(2, 1), MATRIX(1, 0)};
    refuse(p, (demos_header){.operation = DEMOS_LOG_LIKELIHOOD, .n_rows = 32}, 2, many, DEMOS_INVALID_INPUT, "suit");
    static const double x[] = {3, 4};
    ask(p, (demos_header){.operation = DEMOS_LOG_LIKELIHOOD, .n_rows = 2}, 2, one, (const void *const[]){x, NULL}, x, 2,
        NULL, 0);
    CHECK(end(p, NULL) == DEMOS_OK);
}

/* ---- Models that go wrong --------------------------------------------------------------------------------------- */

static int32_t go_wrong(void *user, size_t n, size_t d, size_t p, const double *x, const double *params, size_t stride,
                        double *value, demos_error *error) {
    (void)user, (void)p, (void)params, (void)stride;
    for (size_t i = 0; i < n; i++) {
        value[i] = x[i * d];
        if (x[i * d] == 77) {
            return demos_fail(error, DEMOS_MODEL_FAILED, "row %zu: \"no\ttable\"", i);
        }
        if (x[i * d] == 78) {
            return -5;
        }
    }
    return DEMOS_OK;
}

static void ask_wrong(played *p, const double x[4], int32_t status, uint32_t nonfinite, const char *part) {
    static const double params[P];
    const demos_array arrays[] = {MATRIX(2, D), VECTOR(P)};
    demos_header header = {.operation = DEMOS_LOG_DENSITY, .n_rows = 2};
    send_chunk(p, header, 2, arrays, (const void *const[]){x, params});
    demos_frame *frame = expect_result(p, header, status);
    if (status == DEMOS_OK) {
        CHECK_EQUAL(frame->header.deadline_ms, nonfinite);
    } else {
        CHECK(says(frame, part));
    }
    give(p->link, frame);
}

static void check_models_that_go_wrong(void) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR, .log_density = go_wrong};
    played *p = start(&model, SPEC, 0);
    expect_offer(p, "\"operations\": [\"log_density\", \"log_likelihood\"]");
    ask_wrong(p, (double[]){77, 0, 0, 0}, DEMOS_MODEL_FAILED, 0, "row 0: \\\"no\\u0009table\\\" (worker 1)");
    ask_wrong(p, (double[]){0, 0, 78, 0}, DEMOS_MODEL_FAILED, 0, "returned -5");
    ask_wrong(p, (double[]){0, 0, 0, 0}, DEMOS_OK, 0, "");
    ask_wrong(p, (double[]){(double)NAN, 0, 0, 0}, DEMOS_OK, 1, "");
    ask_wrong(p, (double[]){(double)-INFINITY, 0, 0, 0}, DEMOS_OK, 0, "");
    ask_wrong(p, (double[]){(double)INFINITY, 0, (double)NAN, 0}, DEMOS_OK, 2, "");
    refuse(p, (demos_header){.operation = DEMOS_SAMPLE, .n_rows = 4}, 1, (const demos_array[]){VECTOR(P)},
           DEMOS_NOT_OFFERED, "the model has no sample()");
    CHECK(end(p, NULL) == DEMOS_OK);
}

int main(void) {
    check_rows();
    check_cells();
    check_draws_and_points();
    check_mistakes();
    check_no_params();
    check_models_that_go_wrong();
    return check_failures != 0;
}
