/* Frames in memory: one piece of it each, header, descriptors and arrays as they travel, whoever made it. */
#ifndef DEMOS_FRAME_H
#define DEMOS_FRAME_H

#include "wire.h"

typedef struct demos_frame {
    demos_header header;
    demos_layout layout;
    uint8_t *bytes; /* layout.end of them */
    size_t room;    /* how many there is memory for */
    struct demos_frame *next;
} demos_frame;

/* Frames that are used again: fresh memory costs a fault of each page. */
typedef struct demos_frames {
    demos_frame *first;
    size_t bytes;
} demos_frames;

/* Frames that wait, in their order. */
typedef struct demos_frame_queue {
    demos_frame *first, *last;
} demos_frame_queue;

#pragma GCC visibility push(default)

/* A frame with room for so many bytes, NULL where there is no memory. */
demos_frame *demos_frame_take(demos_frames *frames, size_t bytes);
/* Gives one back; NULL is nothing. */
void demos_frame_give(demos_frames *frames, demos_frame *frame);
void demos_frames_close(demos_frames *frames);

/* A frame of these arrays, which are still to be filled in; its padding is 0. */
int32_t demos_frame_make(demos_frames *frames, const demos_header *header, const demos_array *arrays, uint32_t n_arrays,
                         demos_frame **frame, demos_error *error);
/* Where an array lies. */
void *demos_frame_data(const demos_frame *frame, uint32_t nth);
/* A frame of one array, a text. */
int32_t demos_frame_make_text(demos_frames *frames, const demos_header *header, const char *text, size_t length,
                              demos_frame **frame, demos_error *error);
/* The one array of a frame as a text of `length` bytes, without a 0 behind it; DEMOS_BAD_FRAME where it has none. */
int32_t demos_frame_read_text(const demos_frame *frame, const char **text, size_t *length, demos_error *error);

void demos_queue_put(demos_frame_queue *queue, demos_frame *frame);
/* The first one, NULL for none. */
demos_frame *demos_queue_pop(demos_frame_queue *queue);
void demos_queue_clear(demos_frame_queue *queue, demos_frames *frames);

#pragma GCC visibility pop

#endif
