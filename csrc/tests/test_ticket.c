/* Programs that were given a connection: what their environment says, how they serve and call, and only once. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include "guard.h"
#include "played.h"
#include "scalar_model.h"
#include "ticket.h"

static const char *directory;

static void set_ticket(int fd, const char *role) {
    char text[256];
    snprintf(text, sizeof text,
             "{\"fd\": %d, \"role\": \"%s\", \"name\": \"worker 3\", \"server\": \"s\", \"heartbeat\": 0, \"new\": 1}",
             fd, role);
    setenv("DEMOS_TICKET", text, 1);
}

static void expect_refusal(const char *text, const char *role, const char *part) {
    demos_ticket ticket = {0};
    demos_error error = {0};
    if (text == NULL) {
        unsetenv("DEMOS_TICKET");
    } else {
        setenv("DEMOS_TICKET", text, 1);
    }
    CHECK_EQUAL(demos_has_ticket(), text != NULL);
    CHECK(demos_read_ticket(role, &ticket, &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, part);
}

static void check_refusals(void) {
    expect_refusal(NULL, "worker", "demos-hpc ticket NAME -- PROGRAM");
    expect_refusal("", "worker", "DEMOS_TICKET: not JSON");
    expect_refusal("{}", "worker", "DEMOS_TICKET: ");
    expect_refusal("[1]", "worker", "DEMOS_TICKET: ");
    expect_refusal("{\"fd\": -1, \"role\": \"worker\", \"name\": \"\", \"server\": \"\", \"heartbeat\": 0}", "worker",
                   "DEMOS_TICKET: ");
    expect_refusal("{\"fd\": 1, \"role\": \"a worker beyond measure\", \"name\": \"\", \"server\": \"\"}", "worker",
                   "DEMOS_TICKET: ");
    expect_refusal("{\"fd\": 1, \"role\": \"worker\", \"name\": \"\", \"server\": \"\", \"heartbeat\": \"\"}", "worker",
                   "DEMOS_TICKET: ");
    set_ticket(1, "worker");
    demos_client *client = NULL;
    demos_error error = {0};
    CHECK(demos_connect(NULL, &client, &error) == DEMOS_INVALID_INPUT && client == NULL);
    CHECK_TEXT(error.message, "was started as a worker and acts as a client");
}

/* ---- The file that describes a model ----------------------------------------------------------------------------- */

static void check_spec(void) {
    char path[4096], *text = NULL;
    demos_error error = {0};
    unsetenv("DEMOS_SPEC");
    CHECK(demos_read_spec(&text, &error) == DEMOS_OK && text == NULL);
    setenv("DEMOS_SPEC", "", 1);
    CHECK(demos_read_spec(&text, &error) == DEMOS_OK && text == NULL);
    setenv("DEMOS_SPEC", "/nonexistent/spec.json", 1);
    CHECK(demos_read_spec(&text, &error) == DEMOS_INVALID_INPUT && text == NULL);
    CHECK_TEXT(error.message, "/nonexistent/spec.json (DEMOS_SPEC) cannot be read: No such file");
    setenv("DEMOS_SPEC", directory, 1);
    CHECK(demos_read_spec(&text, &error) == DEMOS_INVALID_INPUT && text == NULL);
    setenv("DEMOS_SPEC", "/dev/zero", 1);
    CHECK(demos_read_spec(&text, &error) == DEMOS_INVALID_INPUT && text == NULL);
    snprintf(path, sizeof path, "%s/ticket.json", directory);
    FILE *file = fopen(path, "w");
    if (!CHECK(file != NULL)) {
        exit(2);
    }
    fprintf(file, "{\"name\": \"told\", \"parameters\": [\"a\", \"b\"], \"observables\": [\"x\", \"y\"],"
                  " \"outputs\": [\"u\", \"v\", \"w\"]}");
    fclose(file);
    setenv("DEMOS_SPEC", path, 1);
    CHECK(demos_read_spec(&text, &error) == DEMOS_OK);
    CHECK_TEXT(text, "told");
    free(text);
}

/* ---- Programs, each a process of its own ------------------------------------------------------------------------- */

/* Starts one whose connection ends here. */
static pid_t start(int32_t (*program)(void), const char *role, demos_link **link) {
    int ends[2];
    open_sockets(ends);
    set_ticket(ends[1], role);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        _exit((int)program());
    }
    close(ends[1]);
    *link = open_link(ends[0]);
    return child;
}

/* Waits for its end, which has to be a happy one. */
static void expect_end(pid_t child, demos_link *link) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);
    close_link(link);
}

static int32_t serve_twice(void) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR};
    demos_error error = {0};
    if (demos_adapt(&all_functions, &model, &error) != DEMOS_OK || demos_serve(&model, NULL, &error) != DEMOS_OK) {
        return 1;
    }
    return demos_serve(&model, NULL, &error) == DEMOS_INVALID_INPUT && strstr(error.message, "cannot connect again")
               ? 0
               : 2;
}

static void check_serving(void) {
    demos_link *link;
    pid_t child = start(serve_twice, "worker", &link);
    demos_frame *frame = await_frame(link);
    CHECK(frame->header.kind == DEMOS_HELLO && says(frame, "\"worker\": \"worker 3\"") &&
          says(frame, "\"name\": \"told\""));
    give(link, frame);
    send_header(link, (demos_header){.kind = DEMOS_END});
    expect_end(child, link);
}

static int32_t serve_and_exit(void) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR};
    demos_error error = {0};
    demos_adapt(&all_functions, &model, &error);
    return demos_serve(&model, "{", &error) == DEMOS_SERVER_LOST ? 0 : 1;
}

/* A model that cannot be served says so, and waits for the end. */
static void check_nothing_to_serve(void) {
    demos_link *link;
    pid_t child = start(serve_and_exit, "worker", &link);
    demos_frame *frame = await_frame(link);
    CHECK(frame->header.kind == DEMOS_HELLO && says(frame, "\"failure\": "));
    give(link, frame);
    demos_stream_part(link, PATIENCE);
    expect_end(child, link);
}

static int32_t call_twice(void) {
    demos_client *first = NULL, *second = NULL, *none = NULL;
    demos_error error = {0};
    if (demos_connect("wrong", &none, &error) != DEMOS_INVALID_INPUT || none != NULL ||
        demos_connect("right", &first, &error) != DEMOS_OK || demos_connect(NULL, &second, NULL) != DEMOS_OK) {
        return 1;
    }
    demos_disconnect(first);
    demos_disconnect(second);
    return demos_connect(NULL, &none, &error) == DEMOS_INVALID_INPUT && strstr(error.message, "cannot connect again")
               ? 0
               : 2;
}

static void check_calling(void) {
    static const char metadata[] = "{\"handle\": 3, \"revision\": 1, \"spec\": {\"block_rows\": 64}}";
    demos_link *link;
    pid_t child = start(call_twice, "client", &link);
    for (int i = 0; i < 3; i++) {
        demos_frame *frame = await_frame(link);
        CHECK_EQUAL(frame->header.operation, DEMOS_METADATA);
        send_text(link,
                  (demos_header){.kind = DEMOS_REPLY,
                                 .flags = DEMOS_FINAL,
                                 .id = frame->header.id,
                                 .status = i == 0 ? DEMOS_INVALID_INPUT : DEMOS_OK},
                  i == 0 ? "{}" : metadata);
        give(link, frame);
    }
    /* What is unread takes nothing back of what was said last. */
    send_header(link, (demos_header){.kind = DEMOS_PONG});
    demos_frame *frame = await_frame(link);
    CHECK_EQUAL(frame->header.kind, DEMOS_GOODBYE);
    give(link, frame);
    demos_stream_part(link, PATIENCE);
    expect_end(child, link);
}

/* ---- Leashes: a ticket is for one process, which says how it ended, and ends with whoever started it ------------- */

/* Starts a program with a leash, whose other end is ours; without the byte that a process claims the ticket by where
 * another has taken that. */
static pid_t start_leashed(int32_t (*program)(void), int is_taken, demos_link **link, int *leash) {
    int ends[2], leashes[2];
    char text[256];
    open_sockets(ends);
    open_sockets(leashes);
    CHECK_EQUAL(send(leashes[0], "T", !is_taken, 0), !is_taken);
    snprintf(text, sizeof text,
             "{\"fd\": %d, \"end\": %d, \"role\": \"worker\", \"name\": \"worker 3\", \"server\": \"s\","
             " \"heartbeat\": 0}",
             ends[1], leashes[1]);
    setenv("DEMOS_TICKET", text, 1);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        close(leashes[0]);
        _exit((int)program());
    }
    close(ends[1]);
    close(leashes[1]);
    *link = open_link(ends[0]);
    *leash = leashes[0];
    return child;
}

static int32_t serve_until(int32_t wanted, const char *part) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR};
    demos_error error = {0};
    demos_adapt(&all_functions, &model, &error);
    return demos_serve(&model, NULL, &error) == wanted && strstr(error.message, part) != NULL ? 0 : 1;
}

static int32_t serve_to_the_end(void) { return serve_until(DEMOS_OK, ""); }

static int32_t serve_until_orphaned(void) {
    return serve_until(DEMOS_SERVER_LOST, "that started this program has died");
}

static int32_t serve_until_lost(void) { return serve_until(DEMOS_SERVER_LOST, "closed by the other side"); }

static int32_t serve_too_late(void) {
    return serve_until(DEMOS_INVALID_INPUT, "another process has taken this ticket");
}

/* What the program has said of its end. */
static char read_word(int leash) {
    char word = 0;
    ssize_t n = recv(leash, &word, 1, 0);
    return n == 1 ? word : '-';
}

static void check_leashes(void) {
    demos_link *link;
    int leash;
    pid_t child = start_leashed(serve_to_the_end, 0, &link, &leash);
    give(link, await_frame(link));
    send_header(link, (demos_header){.kind = DEMOS_END});
    CHECK_EQUAL(read_word(leash), 'E');
    close(leash);
    expect_end(child, link);

    child = start_leashed(serve_until_orphaned, 0, &link, &leash);
    give(link, await_frame(link));
    close(leash);
    expect_end(child, link);

    child = start_leashed(serve_until_lost, 0, &link, &leash);
    give(link, await_frame(link));
    demos_stream_part(link, PATIENCE); /* read to its end: closed with bytes unread, a connection is reset instead */
    CHECK_EQUAL(read_word(leash), 'L');
    close(leash);
    expect_end(child, link);

    child = start_leashed(serve_too_late, 1, &link, &leash);
    expect_end(child, link);
    close(leash);
}

static void give_up(void) {}

/* The code of a model forks: what its children do is their business. */
static void check_forks(void) {
    static const int codes[] = {7, 0};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        fflush(NULL);
        pid_t guarded = fork();
        if (guarded == 0) {
            demos_guard("this is not to be said\n", "nor this\n", give_up);
            pid_t child = fork();
            if (child == 0) {
                exit(codes[i]);
            }
            int status = -1;
            waitpid(child, &status, 0);
            _exit(WIFEXITED(status) && WEXITSTATUS(status) == codes[i] ? 0 : 1);
        }
        int status = -1;
        CHECK(waitpid(guarded, &status, 0) == guarded);
        CHECK_EQUAL(status, 0);
    }
}

int main(int argc, char **argv) {
    directory = argc > 1 ? argv[1] : "/tmp";
    check_refusals();
    check_spec();
    check_serving();
    check_nothing_to_serve();
    check_calling();
    check_leashes();
    check_forks();
    return check_failures != 0;
}
