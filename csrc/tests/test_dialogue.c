/* The dialogue of a worker, with a dispatcher played by the test: offers, beats, what is cancelled, and its end. */
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "played_worker.h"

/* ---- Dialogue --------------------------------------------------------------------------------------------------- */

static atomic_int must_wait, has_begun;

static double wait_for_leave(const double *x, const double *params) {
    (void)params;
    atomic_store(&has_begun, 1);
    while (x[0] == 1 && atomic_load(&must_wait)) {
        sched_yield();
    }
    return x[0];
}

/* Chunks that are cancelled while another one is computed. */
static void check_cancel(void) {
    static const demos_functions functions = {.size = sizeof functions, .log_density = wait_for_leave};
    static const double slow[D] = {1, 0}, fast[D] = {2, 0}, params[P];
    const demos_array arrays[] = {MATRIX(1, D), VECTOR(P)};
    demos_model model = make_model(&functions);
    played *p = start(&model, SPEC, 0);
    expect_offer(p, "played");
    atomic_store(&must_wait, 1);
    demos_header header = {.operation = DEMOS_LOG_DENSITY, .n_rows = 1};
    uint64_t running = send_chunk(p, header, 2, arrays, (const void *const[]){slow, params});
    while (!atomic_load(&has_begun)) {
        sched_yield();
    }
    uint64_t kept = send_chunk(p, header, 2, arrays, (const void *const[]){fast, params});
    uint64_t cancelled = send_chunk(p, header, 2, arrays, (const void *const[]){fast, params});
    uint64_t last = send_chunk(p, header, 2, arrays, (const void *const[]){fast, params});
    for (int i = 0; i < 2; i++) { /* twice is not more than once; what is not there cannot be cancelled */
        send_header(p->link, (demos_header){.kind = DEMOS_CANCEL, .id = cancelled});
        send_header(p->link, (demos_header){.kind = DEMOS_CANCEL, .id = running});
        send_header(p->link, (demos_header){.kind = DEMOS_CANCEL, .id = 999});
    }
    send_header(p->link, (demos_header){.kind = 200}); /* ignored, as is what is not for workers */
    send_header(p->link, (demos_header){.kind = DEMOS_WELCOME});
    send_header(p->link, (demos_header){.kind = DEMOS_REPLY});
    atomic_store(&must_wait, 0);
    const struct {
        uint64_t id;
        int32_t status;
    } wanted[] = {{running, DEMOS_OK}, {cancelled, DEMOS_CANCELLED}, {kept, DEMOS_OK}, {last, DEMOS_OK}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        demos_frame *frame = next(p);
        CHECK_EQUAL(frame->header.id, wanted[i].id);
        CHECK_EQUAL(frame->header.status, wanted[i].status);
        give(p->link, frame);
    }
    CHECK(end(p, NULL) == DEMOS_OK);
}

/* END while chunks are waiting: nobody wants their answers. */
static void check_end(void) {
    played *p = start_scalar();
    static const double x[D], params[P];
    const demos_array arrays[] = {MATRIX(1, D), VECTOR(P)};
    for (int i = 0; i < 100; i++) {
        send_chunk(p, (demos_header){.operation = DEMOS_LOG_DENSITY, .n_rows = 1}, 2, arrays,
                   (const void *const[]){x, params});
    }
    CHECK(end(p, NULL) == DEMOS_OK);
}

/* An answer larger than what the socket takes, to a dispatcher that sends more before it reads. */
static void check_large(void) {
    enum { MANY = 300000 };
    played *p = start_scalar();
    double *x = calloc(MANY * D, sizeof *x);
    static const double params[P];
    const demos_array arrays[] = {MATRIX(MANY, D), VECTOR(P)};
    demos_header header = {.operation = DEMOS_LOG_DENSITY_GRADIENT, .n_rows = MANY};
    for (int i = 0; i < 4; i++) {
        send_chunk(p, header, 2, arrays, (const void *const[]){x, params});
    }
    for (uint64_t id = 1; id <= 4; id++) {
        demos_frame *frame = next(p);
        CHECK(frame->header.id == id && frame->header.status == DEMOS_OK);
        CHECK_EQUAL(frame->layout.sizes[1], (size_t)MANY * P * sizeof *x);
        give(p->link, frame);
    }
    free(x);
    CHECK(end(p, NULL) == DEMOS_OK);
}

static void check_refused(void) {
    demos_model model = make_model(&all_functions);
    demos_error error;
    played *p = start(&model, SPEC, 0);
    expect_offer(p, "\"worker\": \"worker 1\"");
    send_text(p->link, (demos_header){.kind = DEMOS_REPLY, .flags = DEMOS_FINAL, .status = DEMOS_INVALID_INPUT},
              "{\"status\": 1, \"message\": \"another spec\"}");
    CHECK(end(p, &error) == DEMOS_INVALID_INPUT);
    CHECK(strcmp(error.message, "another spec") == 0);
    p = start(&model, SPEC, 0);
    send_header(p->link, (demos_header){.kind = DEMOS_REPLY, .flags = DEMOS_FINAL, .status = 4711});
    CHECK(end(p, &error) == DEMOS_INTERNAL);
    CHECK_TEXT(error.message, "gives no reason");
    /* A dispatcher that goes away, or is none. */
    p = start(&model, SPEC, 0);
    expect_offer(p, "worker 1");
    demos_stream_part(p->link, PATIENCE);
    pthread_join(p->thread, NULL);
    CHECK(p->status == DEMOS_SERVER_LOST);
    close_link(p->link);
    free(p);
    int ends[2];
    open_sockets(ends);
    CHECK(write(ends[0], "HTTP/1.1 400 Bad Request\r\n\r\nsomething that is long enough for it", 65) == 65);
    demos_link *link = open_link(ends[1]);
    CHECK(demos_work(link, &model, &(demos_duty){.name = "worker 1", .spec = SPEC}, &error) == DEMOS_BAD_FRAME);
    close_link(link);
    close(ends[0]);
}

static void check_beats(void) {
    demos_model model = make_model(&all_functions);
    played *p = start(&model, SPEC, 1e-3);
    demos_frame *frame = await_frame(p->link);
    CHECK_EQUAL(frame->header.kind, DEMOS_HELLO);
    give(p->link, frame);
    for (int i = 0; i < 3; i++) {
        frame = await_frame(p->link);
        CHECK_EQUAL(frame->header.kind, DEMOS_BEAT);
        CHECK(says(frame, "{\"rss\":") && ((const char *)demos_frame_data(frame, 0))[7] > '0');
        give(p->link, frame);
    }
    CHECK(end(p, NULL) == DEMOS_OK);
}

/* ---- Offers ----------------------------------------------------------------------------------------------------- */

static void expect_failure(const demos_model *model, const char *spec, const char *part) {
    static const double x[D], params[P];
    const demos_array arrays[] = {MATRIX(1, D), VECTOR(P)};
    played *p = start(model, spec, 0);
    demos_frame *offered = next(p);
    CHECK(says(offered, "\"failure\": {\"status\": ") && says(offered, part));
    give(p->link, offered);
    send_chunk(p, (demos_header){.operation = DEMOS_LOG_DENSITY, .n_rows = 1}, 2, arrays,
               (const void *const[]){x, params});
    demos_frame *frame = next(p); /* which nobody should ask */
    CHECK(frame->header.kind == DEMOS_RESULT && frame->header.status == DEMOS_INVALID_INPUT);
    give(p->link, frame);
    CHECK(end(p, NULL) == DEMOS_OK);
}

static void check_failed_offers(void) {
    demos_model model = make_model(&all_functions);
    expect_failure(&model, "{", "not JSON");
    expect_failure(&model, "{\"name\": \"played\"}", "lacks");
    expect_failure(&model, NULL, "lacks");
    expect_failure(&model, "{\"name\": \"\\u00e9\\\"\", \"paramters\": []}", "paramters");
    model.log_density = NULL;
    model.log_density_gradient = NULL;
    model.log_density_gradient_x = NULL;
    model.sample = NULL;
    model.evaluate = NULL;
    expect_failure(&model, SPEC, "");
}

static void check_chunk_bytes(void) {
    static const char spec[] = "{\"name\": \"played\", \"parameters\": [\"a\", \"b\"], \"observables\": [\"x\", \"y\"],"
                               " \"outputs\": [\"u\", \"v\", \"w\"], \"limits\": {\"chunk_bytes\": 160}}";
    static const double x[2 * D], params[P];
    demos_model model = make_model(&all_functions);
    played *p = start(&model, spec, 0);
    expect_offer(p, "played");
    const demos_array fits[] = {MATRIX(2, D), VECTOR(P)}, exceeds[] = {MATRIX(4, D), VECTOR(P)};
    demos_header header = {.operation = DEMOS_LOG_DENSITY, .n_rows = 2};
    send_chunk(p, header, 2, fits, (const void *const[]){x, params});
    give(p->link, expect_result(p, header, DEMOS_OK));
    header.n_rows = 4;
    refuse(p, header, 2, exceeds, DEMOS_TOO_LARGE, "\\\"limits\\\" of this model's description allow 160");
    CHECK(end(p, NULL) == DEMOS_OK);
}

/* Rows that depend on one another come block by block. */
static atomic_size_t most_rows, n_calls;

static int32_t count_rows(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                          size_t stride, double *value, demos_error *error) {
    (void)user, (void)p, (void)params, (void)stride, (void)error;
    for (size_t i = 0; i < n; i++) {
        value[i] = x[i * d] + (double)n;
    }
    if (n > most_rows) {
        most_rows = n;
    }
    n_calls++;
    return DEMOS_OK;
}

static void check_rows_that_depend(void) {
    static const char spec[] = "{\"name\": \"played\", \"parameters\": [\"a\", \"b\"], \"observables\": [\"x\", \"y\"],"
                               " \"block_rows\": 64, \"row_independent\": false}";
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR, .log_density = count_rows};
    played *p = start(&model, spec, 0);
    expect_offer(p, "\"row_independent\": false");
    inputs *in = make_inputs();
    const demos_array arrays[] = {MATRIX(N, D), VECTOR(P)};
    demos_header header = {.operation = DEMOS_LOG_DENSITY, .n_rows = N};
    send_chunk(p, header, 2, arrays, (const void *const[]){in->x, in->params});
    demos_frame *frame = expect_result(p, header, DEMOS_OK);
    CHECK_EQUAL(doubles(frame, 0)[N - 1], in->x[(N - 1) * D] + N % BLOCK);
    give(p->link, frame);
    CHECK_EQUAL(most_rows, BLOCK);
    CHECK_EQUAL(n_calls, BLOCKS);
    free(in);
    CHECK(end(p, NULL) == DEMOS_OK);
}

int main(void) {
    check_cancel();
    check_end();
    check_large();
    check_refused();
    check_beats();
    check_failed_offers();
    check_chunk_bytes();
    check_rows_that_depend();
    return check_failures != 0;
}
