/* The way to the one peer of a worker or a client, its dispatcher: over a stream of bytes here, over MPI in mpi/. */
#ifndef DEMOS_LINK_H
#define DEMOS_LINK_H

#include "frame.h"

typedef struct demos_link demos_link;

/* What kinds of links differ in. Nothing blocks but wait(). */
typedef struct demos_link_kind {
    /* Takes the frame, and sends it as it becomes possible. */
    int32_t (*send)(demos_link *link, demos_frame *frame, demos_error *error);
    /* The next frame that is here as a whole, which is the caller's from then on; NULL for none yet. */
    int32_t (*receive)(demos_link *link, demos_frame **frame, demos_error *error);
    /* Whether all that was given to send() has left; moves what has not. */
    int32_t (*is_sent)(demos_link *link);
    /* Until something has come or can be sent, at most about so many seconds. */
    void (*wait)(demos_link *link, double seconds);
    void (*close)(demos_link *link);
} demos_link_kind;

struct demos_link {
    const demos_link_kind *kind;
    demos_frames frames;
    uint64_t most_bytes; /* of a frame that is taken in */
};

#pragma GCC visibility push(default)

/* Seconds on a clock that never goes back. */
double demos_now(void);

/* Sends a header alone, */
int32_t demos_link_say(demos_link *link, const demos_header *header, demos_error *error);
/* or with a text. */
int32_t demos_link_tell(demos_link *link, const demos_header *header, const char *text, size_t length,
                        demos_error *error);
/* The next frame, within so many seconds; DEMOS_DEADLINE where none comes. */
int32_t demos_link_await(demos_link *link, double seconds, demos_frame **frame, demos_error *error);
/* Until all is sent, at most so many seconds; whether it is. */
int32_t demos_link_flush(demos_link *link, double seconds);
/* Reads a frame's layout, and what would be too large. */
int32_t demos_link_check(const demos_link *link, const demos_header *header, const void *bytes, size_t length,
                         demos_layout *layout, demos_error *error);

/* A link over a connected socket, which it closes. */
int32_t demos_stream_open(int32_t fd, demos_link **link, demos_error *error);
/* Nothing more is sent over it; what still comes is thrown away until the other side ends as well, at most so many
 * seconds: a connection of TCP that is closed with something unread in it takes back what was sent last. */
void demos_stream_part(demos_link *link, double seconds);

#pragma GCC visibility pop

#endif
