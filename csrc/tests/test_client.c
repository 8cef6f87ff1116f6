/* A client, with a dispatcher played by the test: what it asks, and what it makes of answers and all else. */
#include <math.h>

#include <sys/wait.h>

#include "played_client.h"

/* ---- Connecting ------------------------------------------------------------------------------------------------- */

static void check_connecting(void) {
    demos_client *client = begin();
    CHECK(demos_client_observables(client) == D && demos_client_params(client) == P &&
          demos_client_outputs(client) == Q);
    double params[P] = {0};
    call c = {.client = client, .value = params};
    start(&c, ask_defaults);
    play_metadata("played", METADATA);
    CHECK(finish(&c) == DEMOS_OK && isnan(params[0]) && params[1] == 2.5);
    c.text = "{\"a\": 1}";
    start(&c, set_params);
    demos_frame *frame = expect(DEMOS_REQUEST, DEMOS_SET_PARAMS);
    CHECK(says(frame, "{\"a\": 1}") && frame->header.model == 3);
    send_header(server,
                (demos_header){.kind = DEMOS_REPLY, .flags = DEMOS_FINAL, .id = frame->header.id, .revision = 17});
    give(server, frame);
    CHECK(finish(&c) == DEMOS_OK);
    CHECK_EQUAL(c.revision, 17);

    /* A model that is not there, and what is no metadata, leave the connection as it was. */
    call other = {.text = "\x01\x01\"quoted\""};
    start(&other, connect_client);
    frame = expect(DEMOS_REQUEST, DEMOS_METADATA);
    CHECK(says(frame, "\\u0001\\u0001\\\"quoted\\\""));
    refuse(frame->header.id, DEMOS_INVALID_INPUT, "{\"message\": \"there is played\"}");
    give(server, frame);
    CHECK(finish(&other) == DEMOS_INVALID_INPUT && strcmp(other.error.message, "there is played") == 0);
    static const char *const broken[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"handle\": 1}",
        "{\"handle\": 70000, \"spec\": {\"block_rows\": 1}, \"revision\": 1}",
        "{\"handle\": 1, \"spec\": {\"block_rows\": 0}, \"revision\": 1}",
        "{\"handle\": 1, \"spec\": {\"block_rows\": 1, \"parameters\": [{\"lower\": \"x\"}]}, \"revision\": 1}"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        call none = {.text = NULL};
        start(&none, connect_client);
        play_metadata("{}", broken[i]);
        CHECK(finish(&none) != DEMOS_OK && none.error.message[0] != '\0' && none.client == NULL);
    }
    CHECK_EQUAL(n_ended, 0);
    char name[300] = "";
    memset(name, 'a', sizeof name - 1);
    call longest = {.text = name};
    CHECK(connect_client(&longest) == DEMOS_INVALID_INPUT);
    memset(name, '\x01', 256);
    name[256] = '\0';
    start(&longest, connect_client); /* two clients of one connection, the second with the longest of names */
    play_metadata("\\u0001", METADATA);
    CHECK(finish(&longest) == DEMOS_OK);
    demos_disconnect(longest.client);
    demos_disconnect(NULL);
    CHECK_EQUAL(n_ended, 0);
    end(client);
}

/* ---- Requests --------------------------------------------------------------------------------------------------- */

static void check_small(void) {
    demos_client *client = begin();
    double x[3 * D] = {1, 2, 3, 4, 5, 6}, params[3 * P] = {0.5, 7, 0.5, 8, 0.5, 9}, value[3], gradient[3 * P];
    call c = {.client = client, .n = 3, .x = x, .params = params, .value = value, .gradient = gradient};
    start(&c, ask_gradient_x);
    demos_frame *frame = expect(DEMOS_REQUEST, DEMOS_LOG_DENSITY_GRADIENT);
    uint64_t id = frame->header.id;
    CHECK(frame->header.model == 3 && frame->header.flags == DEMOS_WRT_X && frame->header.n_rows == 3);
    CHECK(frame->layout.n_arrays == 2 && frame->layout.sizes[0] == sizeof x && frame->layout.arrays[1].n_dims == 1 &&
          memcmp(doubles(frame, 0), x, sizeof x) == 0 && memcmp(doubles(frame, 1), params, 2 * sizeof *x) == 0);
    give(server, frame);
    /* The answer in parts, the last one first; and what is nothing to anybody. */
    reply_vector(id + 17, DEMOS_FINAL, 0, 3, x);
    reply_vector(0, DEMOS_FINAL, 0, 3, x);
    send_header(server, (demos_header){.kind = 200, .id = id});
    send_header(server, (demos_header){.kind = DEMOS_RING});
    reply(id, 0, 2, 1, 2, (const uint64_t[]){0, D}, (const double *const[]){x + 2, x + 4});
    reply(id, 0, 0, 0, 2, (const uint64_t[]){0, D}, (const double *const[]){x, x});
    reply(id, DEMOS_FINAL, 0, 2, 2, (const uint64_t[]){0, D}, (const double *const[]){x, x});
    CHECK(finish(&c) == DEMOS_OK);
    CHECK(memcmp(value, x, sizeof value) == 0 && memcmp(gradient, x, sizeof x) == 0);

    /* The server's own parameters. */
    c.params = NULL;
    start(&c, ask_density);
    frame = expect(DEMOS_REQUEST, DEMOS_LOG_DENSITY);
    CHECK(frame->layout.n_arrays == 1 && frame->header.flags == 0);
    reply_vector(frame->header.id, DEMOS_FINAL, 0, 3, x);
    give(server, frame);
    CHECK(finish(&c) == DEMOS_OK);

    double drawn[3 * D];
    c.params = params;
    c.value = drawn;
    start(&c, ask_sample);
    frame = expect(DEMOS_REQUEST, DEMOS_SAMPLE);
    CHECK(frame->header.seed == 11 && frame->header.first_row == 5 * BLOCK && frame->layout.sizes[0] == 2 * sizeof *x);
    reply(frame->header.id, DEMOS_FINAL, 0, 3, 1, (const uint64_t[]){D}, (const double *const[]){x});
    give(server, frame);
    CHECK(finish(&c) == DEMOS_OK && memcmp(drawn, x, sizeof drawn) == 0);

    double out[3 * Q];
    c.value = out;
    start(&c, ask_points);
    frame = expect(DEMOS_REQUEST, DEMOS_EVALUATE);
    CHECK(frame->layout.arrays[0].shape[0] == 3 && frame->layout.arrays[0].shape[1] == P);
    static const double mapped[3 * Q] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    reply(frame->header.id, DEMOS_FINAL, 0, 3, 1, (const uint64_t[]){Q}, (const double *const[]){mapped});
    give(server, frame);
    CHECK(finish(&c) == DEMOS_OK && memcmp(out, mapped, sizeof out) == 0);

    /* Nothing is asked for nothing. */
    c.n = 0;
    CHECK(ask_density(&c) == DEMOS_OK && ask_sample(&c) == DEMOS_OK && ask_points(&c) == DEMOS_OK);
    c.k = 2;
    c.gradient = gradient;
    CHECK(ask_likelihood(&c) == DEMOS_OK && out[0] == 0 && out[1] == 0 && gradient[3] == 0);
    c.n = 3;
    c.params = NULL;
    CHECK(ask_points(&c) == DEMOS_INVALID_INPUT && ask_likelihood(&c) == DEMOS_INVALID_INPUT);
    c.stride = 1;
    CHECK(ask_density(&c) == DEMOS_INVALID_INPUT);
    end(client);
}

/* ---- Bounds: a is from -1 to 1 ---------------------------------------------------------------------------------- */

static void check_bounds(void) {
    demos_client *client = begin();
    const double infinity = (double)INFINITY;
    static const double x[4 * D] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const double params[4 * P] = {2, 0, 0.5, 1, -1.1, 0, 1, 2}, outside[P] = {2, 0};
    double value[4], gradient[4 * P];
    call c = {.client = client, .n = 4, .x = x, .params = params, .stride = P, .value = value, .gradient = gradient};
    start(&c, ask_gradient);
    demos_frame *frame = expect(DEMOS_REQUEST, DEMOS_LOG_DENSITY_GRADIENT);
    CHECK(frame->header.n_rows == 2 && doubles(frame, 0)[0] == 3 && doubles(frame, 0)[2] == 7 &&
          doubles(frame, 1)[0] == 0.5 && doubles(frame, 1)[3] == 2);
    reply(frame->header.id, DEMOS_FINAL, 0, 2, 2, (const uint64_t[]){0, P}, (const double *const[]){x, x});
    give(server, frame);
    CHECK(finish(&c) == DEMOS_OK);
    CHECK(value[0] == -infinity && value[1] == 1 && value[2] == -infinity && value[3] == 2);
    CHECK(gradient[0] == 0 && gradient[1] == 0 && gradient[3] == 2 && gradient[4] == 0 && gradient[7] == 4);
    /* What is outside altogether is not asked. */
    c.params = outside;
    c.stride = 0;
    CHECK(ask_gradient(&c) == DEMOS_OK && value[1] == -infinity && value[3] == -infinity && gradient[7] == 0);
    CHECK(ask_sample(&c) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(c.error.message, "parameter 0 of point 0 is 2, outside [-1, 1]");
    c.params = params;
    CHECK(ask_points(&c) == DEMOS_INVALID_INPUT);
    c.k = 1;
    CHECK(ask_likelihood(&c) == DEMOS_OK && value[0] == -infinity && gradient[0] == 0);
    /* Points of a likelihood: two of four are inside. */
    c.k = 4;
    start(&c, ask_likelihood);
    frame = expect(DEMOS_REQUEST, DEMOS_LOG_LIKELIHOOD_GRADIENT);
    CHECK(frame->header.flags == DEMOS_BLOCK_MAJOR && frame->layout.arrays[1].shape[0] == 2 &&
          doubles(frame, 1)[0] == 0.5 && doubles(frame, 1)[2] == 1);
    reply(frame->header.id, DEMOS_FINAL, 0, 2, 2, (const uint64_t[]){0, P}, (const double *const[]){x, x});
    give(server, frame);
    CHECK(finish(&c) == DEMOS_OK);
    CHECK(value[0] == -infinity && value[1] == 1 && value[2] == -infinity && value[3] == 2 && gradient[7] == 4);
    end(client);
}

/* ---- What goes wrong -------------------------------------------------------------------------------------------- */

/* A request of three rows that has begun; its id. */
static uint64_t begin_call(call *c) {
    static const double x[3 * D], params[P];
    static double value[3];
    *c = (call){.client = c->client, .n = 3, .x = x, .params = params, .value = value};
    start(c, ask_density);
    demos_frame *frame = expect(DEMOS_REQUEST, DEMOS_LOG_DENSITY);
    uint64_t id = frame->header.id;
    give(server, frame);
    return id;
}

static void expect_cancel(uint64_t id) {
    demos_frame *frame = expect(DEMOS_CANCEL, 0);
    CHECK_EQUAL(frame->header.id, id);
    give(server, frame);
}

static void check_failures_of_requests(void) {
    static const double zeros[8];
    static const struct {
        uint16_t status;
        int32_t wanted;
        const char *text, *part;
    } failures[] = {
        {DEMOS_MODEL_FAILED, DEMOS_MODEL_FAILED, "{\"message\": \"no table\", \"more\": []}", "no table"},
        {DEMOS_BUSY, DEMOS_BUSY, "{\"message\": 5}", "no reason"},
        {DEMOS_DEADLINE, DEMOS_DEADLINE, "[", "no reason"},
        {999, DEMOS_INTERNAL, "{\"message\": \"news\"}", "news"},
    };
    call c = {.client = begin()};
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        refuse(begin_call(&c), failures[i].status, failures[i].text);
        CHECK(finish(&c) == failures[i].wanted && c.error.status == failures[i].wanted);
        CHECK_TEXT(c.error.message, failures[i].part);
    }
    /* Rows that were not asked for. */
    const struct {
        uint64_t first, n, width;
        uint16_t flags;
        uint32_t n_arrays;
    } wrong[] = {
        {1, 3, 0, DEMOS_FINAL, 1}, {UINT64_MAX, 1, 0, 0, 1},  {0, 4, 0, 0, 1},           {0, 3, 2, 0, 1},
        {0, 3, 0, DEMOS_FINAL, 2}, {0, 3, 0, DEMOS_FINAL, 0}, {0, 2, 0, DEMOS_FINAL, 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint64_t id = begin_call(&c);
        reply(id, wrong[i].flags, wrong[i].first, wrong[i].n, wrong[i].n_arrays, (const uint64_t[]){wrong[i].width, 0},
              (const double *const[]){zeros, zeros});
        CHECK(finish(&c) == DEMOS_INTERNAL);
        if (wrong[i].flags == 0) { /* there is more to come */
            expect_cancel(id);
        }
    }
    uint64_t id = begin_call(&c);
    reply_vector(id, 0, 0, 2, zeros); /* a row twice */
    reply_vector(id, 0, 1, 2, zeros);
    CHECK(finish(&c) == DEMOS_INTERNAL);
    expect_cancel(id);
    reply_vector(id, DEMOS_FINAL, 0, 3, zeros); /* late */
    reply_vector(begin_call(&c), DEMOS_FINAL, 0, 3, zeros);
    CHECK(finish(&c) == DEMOS_OK);
    end(c.client);
}

/* A server that says nothing. */
static void check_deadline(void) {
    static const double x[3 * D];
    double value[3];
    demos_client *client = begin();
    demos_client_timeout(client, (double)NAN);
    demos_client_timeout(client, -5);
    const demos_request request = {.header = {.operation = DEMOS_LOG_DENSITY, .n_rows = 3},
                                   .inputs = {{.data = x, .dtype = DEMOS_FLOAT64, .rows = 3, .width = D}},
                                   .n_inputs = 1,
                                   .n_units = 3,
                                   .outputs = {value},
                                   .widths = {1},
                                   .n_outputs = 1,
                                   .seconds = -1e9};
    demos_reply got = {0};
    demos_error error;
    CHECK(demos_ask(&channel, &request, &got, &error) == DEMOS_DEADLINE);
    demos_frame *frame = expect(DEMOS_REQUEST, DEMOS_LOG_DENSITY);
    CHECK_EQUAL(frame->header.deadline_ms, 1);
    expect_cancel(frame->header.id);
    reply_vector(frame->header.id, DEMOS_FINAL, 0, 3, x); /* late */
    give(server, frame);
    CHECK(demos_ask(&channel, &request, &got, NULL) == DEMOS_DEADLINE);
    give(server, expect(DEMOS_REQUEST, DEMOS_LOG_DENSITY));
    give(server, expect(DEMOS_CANCEL, 0));
    end(client);
}

/* The end of the connection is the end of all calls, then and later. */
static void check_lost(void) {
    static const double zeros[8];
    for (int how = 0; how < 4; how++) {
        call c = {.client = begin()};
        uint64_t id = begin_call(&c);
        reply_vector(id, 0, 0, 1, zeros);
        if (how == 0) {
            send_header(server, (demos_header){.kind = DEMOS_END});
        } else if (how == 1) {
            refuse(0, DEMOS_BAD_FRAME, "{\"message\": \"what was that\"}");
        } else if (how == 2) {
            demos_frame *frame = NULL;
            CHECK(demos_frame_make(&server->frames, &(demos_header){0}, NULL, 0, &frame, NULL) == DEMOS_OK);
            frame->bytes[0] = 'X';
            server->kind->send(server, frame, NULL);
        } else {
            close_link(server);
        }
        const int32_t wanted = how == 0 || how == 3 ? DEMOS_SERVER_LOST : DEMOS_BAD_FRAME;
        CHECK(finish(&c) == wanted);
        for (int i = 0; i < 2; i++) {
            c.error.message[0] = '\0';
            CHECK(ask_density(&c) == wanted && c.error.message[0] != '\0');
        }
        CHECK(demos_client_metadata(c.client, NULL) == NULL);
        if (how < 3) {
            end(c.client);
        } else {
            demos_disconnect(c.client);
            close_link(channel.link);
        }
    }
}

/* A fork would take answers that its parent waits for. */
static void check_forks(void) {
    demos_client *client = begin();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        demos_error error = {0};
        double value;
        int32_t status = demos_client_log_density(client, 1, (double[]){0, 0}, NULL, 0, &value, &error);
        demos_disconnect(client);
        _exit(status == DEMOS_INVALID_INPUT && strstr(error.message, "not to its forks") != NULL ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);
    end(client);
}

int main(void) {
    check_connecting();
    check_small();
    check_bounds();
    check_failures_of_requests();
    check_deadline();
    check_lost();
    check_forks();
    return check_failures != 0;
}
