/* What all links share. */
#define _POSIX_C_SOURCE 200809L
#include "link.h"

#include <time.h>

#include "error.h"

/* Longest wait at a time, seconds. */
static const double LONGEST_WAIT = 1.0;

double demos_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int32_t demos_link_say(demos_link *link, const demos_header *header, demos_error *error) {
    demos_frame *frame = NULL;
    int32_t status = demos_frame_make(&link->frames, header, NULL, 0, &frame, error);
    return status == DEMOS_OK ? link->kind->send(link, frame, error) : status;
}

int32_t demos_link_tell(demos_link *link, const demos_header *header, const char *text, size_t length,
                        demos_error *error) {
    demos_frame *frame = NULL;
    int32_t status = demos_frame_make_text(&link->frames, header, text, length, &frame, error);
    return status == DEMOS_OK ? link->kind->send(link, frame, error) : status;
}

int32_t demos_link_await(demos_link *link, double seconds, demos_frame **frame, demos_error *error) {
    double end = demos_now() + seconds;
    for (;;) {
        int32_t status = link->kind->receive(link, frame, error);
        if (status != DEMOS_OK || *frame != NULL) {
            return status;
        }
        double left = end - demos_now();
        if (left <= 0) {
            return demos_fail(error, DEMOS_DEADLINE, "the server said nothing within %g s", seconds);
        }
        link->kind->wait(link, left < LONGEST_WAIT ? left : LONGEST_WAIT);
    }
}

int32_t demos_link_flush(demos_link *link, double seconds) {
    double end = demos_now() + seconds;
    while (!link->kind->is_sent(link)) {
        double left = end - demos_now();
        if (left <= 0) {
            return 0;
        }
        link->kind->wait(link, left < LONGEST_WAIT ? left : LONGEST_WAIT);
    }
    return 1;
}

int32_t demos_link_check(const demos_link *link, const demos_header *header, const void *bytes, size_t length,
                         demos_layout *layout, demos_error *error) {
    int32_t status = demos_read_layout(header, bytes, length, layout, error);
    if (status == DEMOS_OK && layout->end > link->most_bytes) {
        status = demos_fail(error, DEMOS_BAD_FRAME, "a frame of %llu bytes; this side takes %llu",
                            (unsigned long long)layout->end, (unsigned long long)link->most_bytes);
    }
    return status;
}
