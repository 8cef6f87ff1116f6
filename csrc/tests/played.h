/* The other side of a link, played by a test: over the other end of a pair of sockets. */
#ifndef DEMOS_TESTS_PLAYED_H
#define DEMOS_TESTS_PLAYED_H

#include <stdlib.h>
#include <sys/socket.h>

#include "check.h"
#include "link.h"

/* Seconds after which what has not come will not come. */
static const double PATIENCE = 60.0;

static inline demos_link *open_link(int fd) {
    demos_link *link = NULL;
    demos_error error = {0};
    if (demos_stream_open(fd, &link, &error) != DEMOS_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(2);
    }
    return link;
}

/* Two ends. */
static inline void open_sockets(int ends[2]) {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
        perror("socketpair");
        exit(2);
    }
}

static inline void open_links(demos_link *ends[2]) {
    int sockets[2];
    open_sockets(sockets);
    ends[0] = open_link(sockets[0]);
    ends[1] = open_link(sockets[1]);
}

static inline void close_link(demos_link *link) { link->kind->close(link); }

/* Sends a frame; `data` has the bytes of its arrays. */
static inline void send_arrays(demos_link *link, demos_header header, uint32_t n, const demos_array *arrays,
                               const void *const *data) {
    demos_frame *frame = NULL;
    demos_error error = {0};
    if (demos_frame_make(&link->frames, &header, arrays, n, &frame, &error) != DEMOS_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(2);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (frame->layout.sizes[i] > 0) {
            memcpy(demos_frame_data(frame, i), data[i], (size_t)frame->layout.sizes[i]);
        }
    }
    CHECK(link->kind->send(link, frame, &error) == DEMOS_OK);
}

static inline void send_text(demos_link *link, demos_header header, const char *text) {
    CHECK(demos_link_tell(link, &header, text, strlen(text), NULL) == DEMOS_OK);
}

static inline void send_header(demos_link *link, demos_header header) {
    CHECK(demos_link_say(link, &header, NULL) == DEMOS_OK);
}

/* The next frame, which has to come. */
static inline demos_frame *await_frame(demos_link *link) {
    demos_frame *frame = NULL;
    demos_error error = {0};
    if (demos_link_await(link, PATIENCE, &frame, &error) != DEMOS_OK) {
        fprintf(stderr, "no frame: %s\n", error.message);
        exit(2);
    }
    return frame;
}

static inline void give(demos_link *link, demos_frame *frame) { demos_frame_give(&link->frames, frame); }

/* Doubles of an array of a frame. */
static inline const double *doubles(const demos_frame *frame, uint32_t nth) { return demos_frame_data(frame, nth); }

/* Whether a frame is a text with this part. */
static inline int says(const demos_frame *frame, const char *part) {
    const char *text;
    size_t length;
    char copy[8192];
    if (!CHECK(demos_frame_read_text(frame, &text, &length, NULL) == DEMOS_OK)) {
        return 0;
    }
    snprintf(copy, sizeof copy, "%.*s", (int)length, text);
    return CHECK_TEXT(copy, part);
}

#endif
