/* Frames over a socket: wherever they are cut, whatever comes, however slowly it is taken. Called with tests/golden. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "json.h"
#include "played.h"

const char *__asan_default_options(void);
const char *__tsan_default_options(void);

/* What no memory can hold is to be refused, by us. */
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }

static unsigned char *read_file(const char *directory, const char *name, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    unsigned char *bytes = calloc(1, 1 << 20);
    *length = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void put(int fd, const void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t n = write(fd, (const char *)bytes + done, length - done);
        if (n <= 0) {
            perror("write");
            exit(2);
        }
        done += (size_t)n;
    }
}

/* ---- Frames of a stream ----------------------------------------------------------------------------------------- */

enum { MOST_FRAMES = 8 };

/* Bytes of a stream, and where its frames are. */
typedef struct sequence {
    const unsigned char *bytes;
    size_t length, n;
    size_t starts[MOST_FRAMES], sizes[MOST_FRAMES];
} sequence;

static sequence find_frames(const unsigned char *bytes, size_t length) {
    sequence s = {.bytes = bytes, .length = length};
    demos_header header;
    for (size_t start = 0; start < length; s.n++) {
        if (!CHECK(s.n < MOST_FRAMES) ||
            !CHECK(demos_read_header(bytes + start, length - start, &header, NULL) == DEMOS_OK)) {
            exit(2);
        }
        s.starts[s.n] = start;
        s.sizes[s.n] = DEMOS_HEADER_BYTES + (size_t)header.payload;
        start += (s.sizes[s.n] + 7) / 8 * 8;
    }
    return s;
}

/* Takes what has come, which are frames from `nth` on; the number of the next. */
static size_t take_frames(demos_link *link, const sequence *s, size_t nth) {
    demos_frame *frame;
    demos_error error = {0};
    while (CHECK(link->kind->receive(link, &frame, &error) == DEMOS_OK) && frame != NULL) {
        CHECK(nth < s->n && frame->layout.end == s->sizes[nth] &&
              memcmp(frame->bytes, s->bytes + s->starts[nth], s->sizes[nth]) == 0 &&
              memcmp(&frame->header, frame->bytes, DEMOS_HEADER_BYTES) == 0);
        give(link, frame);
        nth++;
    }
    return nth;
}

static size_t count_ended(const sequence *s, size_t length) {
    size_t count = 0;
    while (count < s->n && s->starts[count] + s->sizes[count] <= length) {
        count++;
    }
    return count;
}

static void check_cuts(const char *directory) {
    size_t length;
    unsigned char *bytes = read_file(directory, "stream.bin", &length);
    sequence s = find_frames(bytes, length);
    CHECK_EQUAL(s.n, 5);
    int ends[2];
    open_sockets(ends);
    demos_link *link = open_link(ends[0]);
    for (size_t cut = 0; cut <= length && check_failures == 0; cut += cut % 16608 < 400 || cut > 32900 ? 1 : 13) {
        put(ends[1], bytes, cut);
        size_t nth = take_frames(link, &s, 0);
        CHECK_EQUAL(nth, count_ended(&s, cut));
        put(ends[1], bytes + cut, length - cut);
        CHECK_EQUAL(take_frames(link, &s, nth), s.n);
    }
    size_t nth = 0;
    for (size_t at = 0; at < length; at++) {
        put(ends[1], bytes + at, 1);
        nth = take_frames(link, &s, nth);
        CHECK_EQUAL(nth, count_ended(&s, at + 1));
    }
    close_link(link);
    close(ends[1]);
    free(bytes);
}

/* What was cut off by the end of the stream was not sent. */
static void check_ends(const char *directory) {
    size_t length;
    unsigned char *bytes = read_file(directory, "stream.bin", &length);
    sequence s = find_frames(bytes, length);
    for (size_t cut = 0; cut <= length; cut += cut < 200 || cut > length - 200 ? 1 : 211) {
        int ends[2];
        demos_frame *frame = NULL;
        demos_error error = {0};
        open_sockets(ends);
        demos_link *link = open_link(ends[0]);
        put(ends[1], bytes, cut);
        close(ends[1]);
        for (size_t i = 0; i < count_ended(&s, cut); i++) {
            CHECK(link->kind->receive(link, &frame, &error) == DEMOS_OK && frame != NULL);
            give(link, frame);
        }
        for (int i = 0; i < 2; i++) { /* and once more */
            CHECK(link->kind->receive(link, &frame, &error) == DEMOS_SERVER_LOST && frame == NULL);
            CHECK_TEXT(error.message, "closed by the other side");
            send_header(link, (demos_header){.kind = DEMOS_PING}); /* no signal ends this process */
            CHECK(link->kind->is_sent(link));
        }
        close_link(link);
    }
    free(bytes);
}

/* ---- Golden frames ---------------------------------------------------------------------------------------------- */

/* What becomes of a file's bytes and the end of the stream behind them; counts frames. */
static int32_t read_golden(const char *directory, const char *name, uint32_t *count) {
    static const unsigned char zeros[1 << 17];
    size_t length;
    unsigned char *bytes = read_file(directory, name, &length);
    int ends[2];
    demos_error error = {0};
    demos_frame *frame = NULL;
    demos_header header;
    open_sockets(ends);
    demos_link *link = open_link(ends[0]);
    put(ends[1], bytes, length);
    if (strncmp(name, "good", 4) == 0) { /* the arrays of a large frame are not in its file */
        size_t start = 0, next = 0, end = 0;
        while (start < length && demos_split(bytes, length, start, &header, &next, &error) == DEMOS_OK) {
            end = start + DEMOS_HEADER_BYTES + (size_t)header.payload;
            start = next;
        }
        end = (end + 7) / 8 * 8;
        if (CHECK(end < length || end - length < sizeof zeros) && end > length) {
            put(ends[1], zeros, end - length);
        }
    }
    shutdown(ends[1], SHUT_WR);
    int32_t status;
    for (*count = 0; (status = link->kind->receive(link, &frame, &error)) == DEMOS_OK && frame != NULL; ++*count) {
        give(link, frame);
    }
    close_link(link);
    close(ends[1]);
    free(bytes);
    return status;
}

static void check_golden(const char *directory) {
    size_t length;
    demos_json json;
    demos_error error = {0};
    unsigned char *text = read_file(directory, "frames.json", &length);
    if (!CHECK(demos_json_open(&json, (char *)text, length, &error) == DEMOS_OK)) {
        exit(2);
    }
    for (int is_good = 0; is_good < 2; is_good++) {
        size_t list = demos_json_find(&json, 0, is_good ? "good" : "bad");
        for (size_t at = demos_json_first(&json, list); at < demos_json_end(&json, list);
             at = demos_json_next(&json, at)) {
            char name[256], wanted[64] = "SERVER_LOST";
            uint32_t count = 0;
            demos_json_read_text(&json, demos_json_find(&json, at, "file"), name, sizeof name, &error);
            const char *status = demos_status_name(read_golden(directory, name, &count));
            int is_so;
            if (is_good) { /* RING says nothing */
                is_so = strcmp(name, "good_ring.bin") == 0
                            ? count == 0
                            : count == json.values[demos_json_find(&json, at, "frames")].count;
            } else { /* of what is cut off, the end is noticed first */
                demos_json_read_text(&json, demos_json_find(&json, at, "status"), wanted, sizeof wanted, &error);
                is_so = strstr(name, "_cut") != NULL || strstr(name, "nothing") != NULL ||
                        strstr(name, "absent") != NULL || strstr(name, "trailing") != NULL ||
                        strstr(name, "255") != NULL;
                is_so = is_so && strcmp(status, "SERVER_LOST") == 0;
            }
            if (!CHECK(is_so || strcmp(status, wanted) == 0) || !CHECK(!is_good || is_so)) {
                fprintf(stderr, "    in %s: %s, %u frames\n", name, status, (unsigned)count);
            }
        }
    }
    demos_json_close(&json);
    free(text);
}

/* ---- Sending ---------------------------------------------------------------------------------------------------- */

enum { LARGE = 1 << 20, MANY = 64 };

static void send_large(demos_link *link, uint64_t id, size_t length) {
    static unsigned char bytes[LARGE];
    memset(bytes, (int)id + 1, length);
    demos_array array = demos_describe_vector(DEMOS_UINT8, length);
    send_arrays(link, (demos_header){.kind = DEMOS_ROWS, .id = id}, 1, &array, (const void *const[]){bytes});
}

static int is_large(const demos_frame *frame, uint64_t id, size_t length) {
    const unsigned char *bytes = demos_frame_data(frame, 0);
    int is_so = frame->header.id == id && frame->layout.sizes[0] == length;
    for (size_t i = 0; is_so && i < length; i++) {
        is_so = bytes[i] == (unsigned char)(id + 1);
    }
    return is_so;
}

/* Lengths that end anywhere between multiples of 8. */
static size_t length_of(uint64_t id) { return LARGE - (size_t)id % 16; }

/* A peer that does not read: nothing blocks, and nothing is lost. */
static void check_back_pressure(void) {
    demos_link *ends[2];
    demos_frame *frame;
    open_links(ends);
    for (uint64_t id = 0; id < MANY; id++) {
        send_large(ends[0], id, length_of(id));
    }
    CHECK(!ends[0]->kind->is_sent(ends[0]));
    CHECK(!demos_link_flush(ends[0], 0.0));
    CHECK(!demos_link_flush(ends[0], 0.01));
    for (uint64_t id = 0; id < MANY;) {
        CHECK(ends[1]->kind->receive(ends[1], &frame, NULL) == DEMOS_OK);
        if (frame == NULL) {
            ends[0]->kind->is_sent(ends[0]);
            continue;
        }
        CHECK(is_large(frame, id, length_of(id)));
        give(ends[1], frame);
        id++;
    }
    CHECK(demos_link_flush(ends[0], 0.0));
    close_link(ends[0]);
    close_link(ends[1]);
}

/* Both sides send much at the same time. */
static void check_both_ways(void) {
    demos_link *ends[2];
    uint64_t got[2] = {0};
    demos_frame *frame;
    open_links(ends);
    for (uint64_t id = 0; id < 2 * MANY; id++) {
        send_large(ends[id % 2], id / 2, length_of(id / 2));
    }
    for (int side = 0; got[0] < MANY || got[1] < MANY; side = 1 - side) {
        CHECK(ends[side]->kind->receive(ends[side], &frame, NULL) == DEMOS_OK);
        if (frame != NULL) {
            CHECK(is_large(frame, got[side], length_of(got[side])));
            give(ends[side], frame);
            got[side]++;
        }
    }
    close_link(ends[0]);
    close_link(ends[1]);
}

/* A peer that goes away while much is on its way to it. */
static void check_lost_while_sending(void) {
    demos_link *ends[2];
    demos_frame *frame;
    demos_error error = {0};
    open_links(ends);
    for (uint64_t id = 0; id < MANY; id++) {
        send_large(ends[0], id, LARGE);
    }
    close_link(ends[1]);
    send_large(ends[0], MANY, LARGE);
    CHECK(demos_link_flush(ends[0], PATIENCE)); /* there is nothing left that could be sent */
    CHECK(ends[0]->kind->receive(ends[0], &frame, &error) == DEMOS_SERVER_LOST);
    close_link(ends[0]);
}

/* ---- What is refused -------------------------------------------------------------------------------------------- */

static void expect_refusal(demos_header header, const demos_array *array, uint64_t most, int32_t wanted,
                           const char *part) {
    int ends[2];
    unsigned char head[DEMOS_MAX_HEAD_BYTES] = {0};
    demos_frame *frame = NULL;
    demos_error error = {0};
    demos_layout layout = {0};
    if (array != NULL) {
        CHECK(demos_lay_out(&header, array, 1, &layout, &error) == DEMOS_OK);
        demos_write_head(&header, &layout, head);
    } else {
        memcpy(head, &header, sizeof header);
    }
    open_sockets(ends);
    demos_link *link = open_link(ends[0]);
    link->most_bytes = most;
    put(ends[1], head, layout.head > 0 ? (size_t)layout.head : sizeof header);
    for (int i = 0; i < 2; i++) { /* it stays so */
        CHECK(link->kind->receive(link, &frame, &error) == wanted);
        CHECK_TEXT(error.message, part);
    }
    close_link(link);
    close(ends[1]);
}

static void check_refusals(void) {
    const demos_array endless = demos_describe_vector(DEMOS_FLOAT64, (uint64_t)1 << 59),
                      large = demos_describe_vector(DEMOS_UINT8, 100000);
    expect_refusal((demos_header){.magic = 1}, NULL, UINT64_MAX, DEMOS_BAD_FRAME, "0x534f4d44");
    expect_refusal((demos_header){.magic = DEMOS_MAGIC, .major = 9}, NULL, UINT64_MAX, DEMOS_BAD_VERSION, "9.0");
    expect_refusal((demos_header){.kind = DEMOS_CHUNK}, &endless, UINT64_MAX, DEMOS_TOO_LARGE, "no memory");
    expect_refusal((demos_header){.kind = DEMOS_CHUNK}, &large, 100000, DEMOS_BAD_FRAME, "this side takes 100000");

    demos_link *link = NULL;
    demos_frame *frame = NULL;
    demos_error error = {0};
    CHECK(demos_stream_open(-1, &link, &error) == DEMOS_INVALID_INPUT);
    CHECK(demos_stream_open(1 << 20, &link, &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, "1048576 is no open file");
    int fd = open("/dev/null", O_RDWR);
    link = open_link(fd); /* which is no socket */
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK(link->kind->receive(link, &frame, &error) == DEMOS_SERVER_LOST);
    send_header(link, (demos_header){.kind = DEMOS_PING});
    CHECK(link->kind->is_sent(link));
    close_link(link);
    CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);

    demos_link *ends[2];
    open_links(ends);
    CHECK(demos_link_await(ends[0], 0.01, &frame, &error) == DEMOS_DEADLINE);
    CHECK_TEXT(error.message, "within 0.01 s");
    /* RINGs are nothing that anybody waits for. */
    for (int i = 0; i < 3; i++) {
        send_header(ends[1], (demos_header){.kind = i == 2 ? DEMOS_END : DEMOS_RING});
    }
    frame = await_frame(ends[0]);
    CHECK_EQUAL(frame->header.kind, DEMOS_END);
    give(ends[0], frame);
    close_link(ends[0]);
    close_link(ends[1]);
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : "tests/golden";
    check_cuts(directory);
    check_ends(directory);
    check_golden(directory);
    check_back_pressure();
    check_both_ways();
    check_lost_while_sending();
    check_refusals();
    return check_failures != 0;
}
