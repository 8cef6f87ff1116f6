/* A worker in a thread of its own, and its dispatcher, played by a test. */
#ifndef DEMOS_TESTS_PLAYED_WORKER_H
#define DEMOS_TESTS_PLAYED_WORKER_H

#include <pthread.h>

#include "played.h"
#include "scalar_model.h"
#include "worker.h"

enum { N = 1000, BLOCK = 64, BLOCKS = (N + BLOCK - 1) / BLOCK, POINTS = 3 };

static const char SPEC[] =
    "{\"name\": \"played\", \"parameters\": [\"a\", \"b\"], \"observables\": [\"x\", \"y\"],"
    " \"outputs\": [\"u\", \"v\", \"w\"], \"block_rows\": 64, \"threads\": 2, \"log_level\": \"error\"}";

/* A worker in a thread of its own, and the dispatcher's end of its link. */
typedef struct played {
    demos_link *link, *its_link;
    demos_model model;
    demos_duty duty;
    demos_error error;
    int32_t status;
    pthread_t thread;
    uint64_t id;
} played;

static inline void *work(void *argument) {
    played *p = argument;
    p->status = demos_work(p->its_link, &p->model, &p->duty, &p->error);
    demos_link_flush(p->its_link, 1.0);
    close_link(p->its_link);
    return NULL;
}

static inline played *start(const demos_model *model, const char *spec, double heartbeat) {
    played *p = calloc(1, sizeof *p);
    demos_link *ends[2];
    open_links(ends);
    p->link = ends[0];
    p->its_link = ends[1];
    p->model = *model;
    p->duty = (demos_duty){.name = "worker 1", .spec = spec, .heartbeat = heartbeat};
    if (pthread_create(&p->thread, NULL, work, p) != 0) {
        exit(2);
    }
    return p;
}

/* The next frame but BEATs. */
static inline demos_frame *next(played *p) {
    for (;;) {
        demos_frame *frame = await_frame(p->link);
        if (frame->header.kind != DEMOS_BEAT) {
            return frame;
        }
        CHECK(says(frame, "{\"rss\":"));
        give(p->link, frame);
    }
}

static inline void expect_offer(played *p, const char *part) {
    demos_frame *frame = next(p);
    CHECK_EQUAL(frame->header.kind, DEMOS_HELLO);
    CHECK(says(frame, part));
    give(p->link, frame);
}

/* Ends it, and says how it went. */
static inline int32_t end(played *p, demos_error *error) {
    send_header(p->link, (demos_header){.kind = DEMOS_END});
    demos_link_flush(p->link, PATIENCE);
    pthread_join(p->thread, NULL);
    int32_t status = p->status;
    if (error != NULL) {
        *error = p->error;
    }
    close_link(p->link);
    free(p);
    return status;
}

static inline demos_model make_model(const demos_functions *functions) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR};
    CHECK(demos_adapt(functions, &model, NULL) == DEMOS_OK);
    return model;
}

static inline played *start_scalar(void) {
    demos_model model = make_model(&all_functions);
    played *p = start(&model, SPEC, 0);
    expect_offer(p, "\"name\": \"played\"");
    return p;
}

/* ---- Chunks ----------------------------------------------------------------------------------------------------- */

typedef struct inputs {
    double x[N * D], params[N * P];
} inputs;

static inline inputs *make_inputs(void) {
    inputs *in = calloc(1, sizeof *in);
    demos_stream stream;
    demos_stream_set(&stream, 5, 0);
    for (size_t i = 0; i < N * D; i++) {
        in->x[i] = demos_stream_uniform(&stream);
        in->params[i] = demos_stream_uniform(&stream);
    }
    return in;
}

static inline uint64_t send_chunk(played *p, demos_header header, uint32_t n, const demos_array *arrays,
                                  const void *const *data) {
    header.kind = DEMOS_CHUNK;
    header.id = ++p->id;
    header.model = 3;
    header.revision = 4;
    header.deadline_ms = 5000;
    send_arrays(p->link, header, n, arrays, data);
    return header.id;
}

/* The RESULT, whose header repeats the chunk's. */
static inline demos_frame *expect_result(played *p, demos_header chunk, int32_t status) {
    demos_frame *frame = next(p);
    const demos_header *h = &frame->header;
    CHECK_EQUAL(h->kind, DEMOS_RESULT);
    CHECK_EQUAL(h->status, status);
    CHECK(h->operation == chunk.operation && h->id == p->id && h->first_row == chunk.first_row &&
          h->n_rows == chunk.n_rows && h->flags == chunk.flags && h->model == 3 && h->revision == 4);
    CHECK(status == DEMOS_OK || (h->deadline_ms == 0 && h->seed == 0));
    return frame;
}

static inline void expect_doubles(const demos_frame *frame, uint32_t nth, const double *wanted, size_t n) {
    if (CHECK(nth < frame->layout.n_arrays && frame->layout.arrays[nth].dtype == DEMOS_FLOAT64 &&
              frame->layout.sizes[nth] == n * sizeof *wanted)) {
        CHECK(n == 0 || memcmp(doubles(frame, nth), wanted, n * sizeof *wanted) == 0);
    }
}

/* Asks, and compares with what a caller gave. */
static inline void ask(played *p, demos_header header, uint32_t n, const demos_array *arrays, const void *const *data,
                       const double *first, size_t n_first, const double *second, size_t n_second) {
    send_chunk(p, header, n, arrays, data);
    demos_frame *frame = expect_result(p, header, DEMOS_OK);
    CHECK_EQUAL(frame->layout.n_arrays, second == NULL ? 1 : 2);
    expect_doubles(frame, 0, first, n_first);
    if (second != NULL) {
        expect_doubles(frame, 1, second, n_second);
    }
    give(p->link, frame);
}

/* Asks for what is refused, with this status and words. */
static inline void refuse(played *p, demos_header header, uint32_t n, const demos_array *arrays, int32_t status,
                          const char *part) {
    static const double zeros[4096];
    const void *const data[DEMOS_MAX_ARRAYS] = {zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros};
    send_chunk(p, header, n, arrays, data);
    demos_frame *frame = expect_result(p, header, status);
    CHECK(says(frame, part));
    CHECK(says(frame, "model 'played'") && says(frame, "(worker 1)"));
    give(p->link, frame);
}

#define VECTOR(n) demos_describe_vector(DEMOS_FLOAT64, (n))
#define MATRIX(n, m) demos_describe_matrix(DEMOS_FLOAT64, (n), (m))

#endif
