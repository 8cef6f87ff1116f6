/* A client in a thread of its own while it calls, and its dispatcher, played by a test. */
#ifndef DEMOS_TESTS_PLAYED_CLIENT_H
#define DEMOS_TESTS_PLAYED_CLIENT_H

#include <pthread.h>
#include <unistd.h>

#include "client.h"
#include "played.h"

enum { D = 2, P = 2, Q = 3, BLOCK = 64, PART_BYTES = 4 << 20 };

static const char METADATA[] =
    "{\"handle\": 3, \"revision\": 1, \"params\": {\"a\": null, \"b\": 2.5}, \"spec\": {\"name\": \"played\","
    " \"parameters\": [{\"name\": \"a\", \"lower\": -1, \"upper\": 1}, {\"name\": \"b\", \"lower\": null}],"
    " \"observables\": [{\"name\": \"x\"}, {\"name\": \"y\"}], \"outputs\": [\"u\", \"v\", \"w\"],"
    " \"block_rows\": 64}}";

/* A call of a client, in a thread of its own while the test plays the dispatcher. */
typedef struct call {
    demos_client *client;
    demos_channel *channel;
    const char *text;
    size_t n, k, stride;
    const double *x, *params;
    double *value, *gradient;
    int32_t (*make)(struct call *call);
    int32_t status;
    uint32_t revision;
    demos_error error;
    pthread_t thread;
} call;

/* Both ends of the one connection, and how often its end was called. */
static demos_channel channel;
static demos_link *server;
static int n_ended;

static inline void end_channel(demos_channel *ended) {
    n_ended++;
    CHECK(ended == &channel);
}

static inline void *run(void *argument) {
    call *c = argument;
    c->status = c->make(c);
    return NULL;
}

static inline void start(call *c, int32_t (*make)(call *)) {
    c->make = make;
    if (pthread_create(&c->thread, NULL, run, c) != 0) {
        exit(2);
    }
}

static inline int32_t finish(call *c) {
    pthread_join(c->thread, NULL);
    return c->status;
}

static inline int32_t connect_client(call *c) {
    return demos_client_open(&channel, c->text, end_channel, &c->client, &c->error);
}

static inline int32_t ask_density(call *c) {
    return demos_client_log_density(c->client, c->n, c->x, c->params, c->stride, c->value, &c->error);
}

static inline int32_t ask_gradient(call *c) {
    return demos_client_log_density_gradient(c->client, c->n, c->x, c->params, c->stride, c->value, c->gradient,
                                             &c->error);
}

static inline int32_t ask_gradient_x(call *c) {
    return demos_client_log_density_gradient_x(c->client, c->n, c->x, c->params, c->stride, c->value, c->gradient,
                                               &c->error);
}

static inline int32_t ask_likelihood(call *c) {
    return demos_client_log_likelihood(c->client, c->n, c->x, c->k, c->params, c->value, c->gradient, &c->error);
}

static inline int32_t ask_sample(call *c) {
    return demos_client_sample(c->client, 11, 5 * BLOCK, c->n, c->params, c->value, &c->error);
}

static inline int32_t ask_points(call *c) {
    return demos_client_evaluate(c->client, c->n, c->params, c->value, &c->error);
}

static inline int32_t ask_defaults(call *c) { return demos_client_defaults(c->client, c->value, &c->error); }

static inline int32_t set_params(call *c) {
    return demos_client_set_params(c->client, c->text, &c->revision, &c->error);
}

/* ---- The dispatcher --------------------------------------------------------------------------------------------- */

static inline demos_frame *expect(uint8_t kind, uint8_t operation) {
    demos_frame *frame = await_frame(server);
    CHECK_EQUAL(frame->header.kind, kind);
    CHECK_EQUAL(frame->header.operation, operation);
    CHECK(kind != DEMOS_REQUEST || (frame->header.id > 0 && frame->header.deadline_ms > 0));
    return frame;
}

/* Nothing has come. */
static inline void expect_nothing(void) {
    demos_frame *frame;
    CHECK(server->kind->receive(server, &frame, NULL) == DEMOS_OK && frame == NULL);
}

static inline void reply(uint64_t id, uint16_t flags, uint64_t first, uint64_t n, uint32_t n_arrays,
                         const uint64_t *widths, const double *const *data) {
    demos_array arrays[2];
    for (uint32_t i = 0; i < n_arrays; i++) {
        arrays[i] = widths[i] == 0 ? demos_describe_vector(DEMOS_FLOAT64, n)
                                   : demos_describe_matrix(DEMOS_FLOAT64, n, widths[i]);
    }
    demos_header header = {.kind = DEMOS_REPLY, .flags = flags, .id = id, .first_row = first, .n_rows = n};
    send_arrays(server, header, n_arrays, arrays, (const void *const *)data);
}

static inline void reply_vector(uint64_t id, uint16_t flags, uint64_t first, uint64_t n, const double *values) {
    reply(id, flags, first, n, 1, (const uint64_t[]){0}, (const double *const[]){values});
}

static inline void refuse(uint64_t id, uint16_t status, const char *text) {
    send_text(server, (demos_header){.kind = DEMOS_REPLY, .flags = DEMOS_FINAL, .id = id, .status = status}, text);
}

static inline void play_metadata(const char *question, const char *answer) {
    demos_frame *frame = expect(DEMOS_REQUEST, DEMOS_METADATA);
    CHECK(says(frame, question));
    send_text(server, (demos_header){.kind = DEMOS_REPLY, .flags = DEMOS_FINAL, .id = frame->header.id}, answer);
    give(server, frame);
}

/* Both ends, and a client. */
static inline demos_client *begin(void) {
    demos_link *ends[2];
    open_links(ends);
    server = ends[0];
    channel = (demos_channel){.link = ends[1], .owner = (int32_t)getpid()};
    n_ended = 0;
    call c = {.text = "played"};
    start(&c, connect_client);
    play_metadata("{\"model\": \"played\"}", METADATA);
    if (!CHECK(finish(&c) == DEMOS_OK)) {
        exit(2);
    }
    return c.client;
}

static inline void end(demos_client *client) {
    demos_disconnect(client);
    CHECK_EQUAL(n_ended, 1);
    expect_nothing();
    close_link(channel.link);
    close_link(server);
}

static inline double *make_numbers(size_t n) {
    double *numbers = malloc(n * sizeof *numbers);
    demos_stream stream;
    demos_stream_set(&stream, 3, 0);
    for (size_t i = 0; i < n; i++) {
        numbers[i] = demos_stream_uniform(&stream);
    }
    return numbers;
}

#endif
