/* A link over a socket: frames one behind the other, each at a multiple of 8 bytes (csrc/WIRE.md, 4). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "error.h"
#include "link.h"

enum { SCRATCH_BYTES = 1 << 18 };

typedef struct stream {
    demos_link link; /* first */
    int32_t fd;
    int32_t is_broken; /* sending has failed; why, reading will find */
    demos_frame_queue outgoing;
    size_t sent; /* bytes of the first of them that have left, its padding included */
    /* What was read and is not yet looked at. */
    uint8_t *scratch;
    size_t start, end;
    /* A frame of which a part is here, and the padding behind the last one. */
    demos_frame *incoming;
    size_t filled;
    size_t padding;
} stream;

static size_t pad(uint64_t bytes) { return (size_t)(-bytes % DEMOS_ALIGNMENT); }

/* ---- Out -------------------------------------------------------------------------------------------------------- */

/* Sends what the socket takes. */
static void push(stream *s) {
    static const uint8_t zeros[DEMOS_ALIGNMENT];
    for (demos_frame *frame; !s->is_broken && (frame = s->outgoing.first) != NULL;) {
        size_t length = (size_t)frame->layout.end, total = length + pad(length);
        const uint8_t *from = s->sent < length ? frame->bytes + s->sent : zeros;
        size_t count = s->sent < length ? length - s->sent : total - s->sent;
        ssize_t n = count == 0 ? 0 : send(s->fd, from, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
                s->is_broken = 1;
                demos_queue_clear(&s->outgoing, &s->link.frames);
            }
            return;
        }
        s->sent += (size_t)n;
        if (s->sent == total) {
            s->sent = 0;
            demos_frame_give(&s->link.frames, demos_queue_pop(&s->outgoing));
        }
    }
}

static int32_t send_frame(demos_link *link, demos_frame *frame, demos_error *error) {
    (void)error;
    stream *s = (stream *)link;
    if (s->is_broken) {
        demos_frame_give(&link->frames, frame);
        return DEMOS_OK;
    }
    demos_queue_put(&s->outgoing, frame);
    push(s);
    return DEMOS_OK;
}

static int32_t is_sent(demos_link *link) {
    stream *s = (stream *)link;
    push(s);
    return s->outgoing.first == NULL;
}

/* ---- In --------------------------------------------------------------------------------------------------------- */

/* Reads into `room`; DEMOS_OK with 0 bytes where there is nothing now. */
static int32_t read_some(stream *s, uint8_t *room, size_t size, size_t *count, demos_error *error) {
    *count = 0;
    ssize_t n = recv(s->fd, room, size, MSG_DONTWAIT);
    if (n > 0) {
        *count = (size_t)n;
    } else if (n == 0) {
        return demos_fail(error, DEMOS_SERVER_LOST, "the connection was closed by the other side");
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        return demos_fail(error, DEMOS_SERVER_LOST, "the connection broke: %s", strerror(errno));
    }
    return DEMOS_OK;
}

/* Makes the frame that begins in the scratch buffer, if its head is there. */
static int32_t begin_frame(stream *s, demos_error *error) {
    const uint8_t *bytes = s->scratch + s->start;
    size_t length = s->end - s->start;
    demos_header header;
    if (length < DEMOS_HEADER_BYTES) {
        return DEMOS_OK;
    }
    int32_t status = demos_read_header(bytes, length, &header, error);
    if (status != DEMOS_OK || demos_find_head_bytes(&header, bytes, length) > length) {
        return status;
    }
    if (demos_is_inline(&header) && DEMOS_HEADER_BYTES + header.payload > length) {
        return DEMOS_OK;
    }
    demos_layout layout;
    status = demos_link_check(&s->link, &header, bytes, length, &layout, error);
    if (status != DEMOS_OK) {
        return status;
    }
    demos_frame *frame = demos_frame_take(&s->link.frames, (size_t)layout.end);
    if (frame == NULL) {
        return demos_fail(error, DEMOS_TOO_LARGE, "no memory for a frame of %llu bytes",
                          (unsigned long long)layout.end);
    }
    frame->header = header;
    frame->layout = layout;
    s->filled = length < layout.end ? length : (size_t)layout.end;
    memcpy(frame->bytes, bytes, s->filled);
    s->start += s->filled;
    s->incoming = frame;
    return DEMOS_OK;
}

/* Takes a frame out of what was read, if a whole one is there. */
static int32_t take(stream *s, demos_frame **frame, demos_error *error) {
    size_t skipped = s->padding < s->end - s->start ? s->padding : s->end - s->start;
    s->padding -= skipped;
    s->start += skipped;
    int32_t status = s->incoming == NULL && s->padding == 0 ? begin_frame(s, error) : DEMOS_OK;
    if (s->incoming != NULL && s->filled == s->incoming->layout.end) {
        *frame = s->incoming;
        s->incoming = NULL;
        s->padding = pad((*frame)->layout.end);
    }
    return status;
}

static int32_t receive(demos_link *link, demos_frame **frame, demos_error *error) {
    stream *s = (stream *)link;
    *frame = NULL;
    push(s);
    for (;;) {
        int32_t status = take(s, frame, error);
        while (status == DEMOS_OK && *frame != NULL && (*frame)->header.kind == DEMOS_RING) {
            demos_frame_give(&link->frames, *frame);
            *frame = NULL;
            status = take(s, frame, error);
        }
        if (status != DEMOS_OK || *frame != NULL) {
            return status;
        }
        size_t count = 0;
        if (s->incoming != NULL) { /* the rest of it comes straight to where it belongs */
            size_t rest = (size_t)s->incoming->layout.end - s->filled;
            status = read_some(s, s->incoming->bytes + s->filled, rest, &count, error);
            s->filled += count;
        } else {
            memmove(s->scratch, s->scratch + s->start, s->end - s->start);
            s->end -= s->start;
            s->start = 0;
            status = read_some(s, s->scratch + s->end, SCRATCH_BYTES - s->end, &count, error);
            s->end += count;
        }
        if (status != DEMOS_OK || count == 0) {
            return status;
        }
    }
}

static void wait_for(demos_link *link, double seconds) {
    stream *s = (stream *)link;
    short events = s->outgoing.first == NULL ? POLLIN : POLLIN | POLLOUT;
    struct pollfd watched = {.fd = s->fd, .events = events};
    poll(&watched, 1, (int)(seconds * 1e3) + 1);
}

static void close_stream(demos_link *link) {
    stream *s = (stream *)link;
    demos_queue_clear(&s->outgoing, &link->frames);
    demos_frame_give(&link->frames, s->incoming);
    demos_frames_close(&link->frames);
    close(s->fd);
    free(s->scratch);
    free(s);
}

void demos_stream_part(demos_link *link, double seconds) {
    stream *s = (stream *)link;
    double end = demos_now() + seconds;
    shutdown(s->fd, SHUT_WR);
    for (double left = seconds; left > 0; left = end - demos_now()) {
        struct pollfd watched = {.fd = s->fd, .events = POLLIN};
        poll(&watched, 1, (int)(left * 1e3) + 1);
        ssize_t n = recv(s->fd, s->scratch, SCRATCH_BYTES, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            return;
        }
    }
}

static const demos_link_kind STREAM = {
    .send = send_frame, .receive = receive, .is_sent = is_sent, .wait = wait_for, .close = close_stream};

int32_t demos_stream_open(int32_t fd, demos_link **link, demos_error *error) {
    if (fcntl(fd, F_GETFD) < 0) {
        return demos_fail(error, DEMOS_INVALID_INPUT,
                          "%d is no open file: start the program by demos-hpc worker --exec,"
                          " or demos-hpc ticket",
                          (int)fd);
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    stream *s = calloc(1, sizeof *s);
    uint8_t *scratch = malloc(SCRATCH_BYTES);
    if (s == NULL || scratch == NULL) {
        free(s);
        free(scratch);
        return demos_fail(error, DEMOS_INTERNAL, "no memory for a connection");
    }
    *s = (stream){.link = {.kind = &STREAM, .most_bytes = UINT64_MAX}, .fd = fd, .scratch = scratch};
    *link = &s->link;
    return DEMOS_OK;
}
