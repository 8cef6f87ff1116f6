/*
 * What a dispatcher may send to a worker: bytes into a link over a socket, and what comes out of it into a worker. It
 * answers, or gives the link up; it never waits for ever, reads on or writes beyond.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

/* What no memory can hold is to be refused, by us. */
const char *__asan_default_options(void) { return "allocator_may_return_null=1:max_allocation_size_mb=64"; }

FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode);

/* No file is opened: offers have a digest of this program, which takes more time than all the rest. */
FILE *__wrap_fopen(const char *path, const char *mode) {
    (void)path, (void)mode;
    return NULL;
}
FILE *__wrap_fopen64(const char *path, const char *mode) { return __wrap_fopen(path, mode); }

static double give(const double *x, const double *params) { return x[0] * params[0] + x[1] - params[1]; }

static double give_gradient(const double *x, const double *params, double *gradient) {
    gradient[0] = x[0];
    gradient[1] = -1;
    return give(x, params);
}

static void draw(double *x, const double *params) { x[0] = x[1] = params[0] + demos_uniform(); }

static void map(double *out, const double *params) { out[0] = out[1] = out[2] = params[0] + params[1]; }

static const demos_functions functions = {
    .size = sizeof functions,
    .log_density = give,
    .log_density_gradient = give_gradient,
    .log_density_gradient_x = give_gradient,
    .sample = draw,
    .evaluate = map,
};

static const char SPEC[] = "{\"name\": \"m\", \"parameters\": [\"a\", \"b\"], \"observables\": [\"x\", \"y\"],"
                           " \"outputs\": [\"u\", \"v\", \"w\"], \"block_rows\": 4, \"log_level\": \"error\"}";

/* A link that takes its frames from a link over a socket, and looks at what it is given to send. */
typedef struct tap {
    demos_link link; /* first */
    demos_link *stream;
} tap;

static int32_t send_frame(demos_link *link, demos_frame *frame, demos_error *error) {
    (void)error;
    demos_layout layout;
    demos_header header;
    /* What is sent is a frame, with all of its bytes. */
    if (demos_read_header(frame->bytes, frame->room, &header, NULL) != DEMOS_OK ||
        demos_read_layout(&header, frame->bytes, frame->room, &layout, NULL) != DEMOS_OK || layout.end > frame->room ||
        layout.end != frame->layout.end) {
        abort();
    }
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < layout.end; i++) {
        sum = (uint8_t)(sum + frame->bytes[i]);
    }
    demos_frame_give(&link->frames, frame);
    return DEMOS_OK;
}

static int32_t receive(demos_link *link, demos_frame **frame, demos_error *error) {
    demos_link *stream = ((tap *)link)->stream;
    int32_t status = stream->kind->receive(stream, frame, error);
    if (status == DEMOS_OK && *frame != NULL && (*frame)->header.n_rows > 100000) {
        (*frame)->header.n_rows = 100000; /* draws without end are what was asked for */
    }
    return status;
}

static int32_t is_sent(demos_link *link) {
    (void)link;
    return 1;
}

static void wait_for(demos_link *link, double seconds) {
    (void)link, (void)seconds;
    abort(); /* the other side has ended: there is nothing to wait for */
}

static void close_tap(demos_link *link) { demos_frames_close(&link->frames); }

static const demos_link_kind TAP = {
    .send = send_frame, .receive = receive, .is_sent = is_sent, .wait = wait_for, .close = close_tap};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int ends[2];
    demos_error error;
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR};
    tap t = {.link = {.kind = &TAP, .most_bytes = UINT64_MAX}};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || demos_adapt(&functions, &model, NULL) != DEMOS_OK ||
        demos_stream_open(ends[1], &t.stream, &error) != DEMOS_OK) {
        abort();
    }
    if (send(ends[0], data, size, MSG_DONTWAIT) != (ssize_t)size && size > 0) {
        abort();
    }
    close(ends[0]);
    demos_work(&t.link, &model, &(demos_duty){.name = "w", .spec = SPEC}, &error);
    t.stream->kind->close(t.stream);
    close_tap(&t.link);
    return 0;
}
