/* Memory for frames, and lists of them. */
#include "frame.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

/* Bytes that are kept for later, and of the smallest frame. */
static const size_t MOST_KEPT = (size_t)256 << 20, SMALLEST = DEMOS_INLINE_BYTES;

static size_t round_up(size_t bytes) {
    size_t room = SMALLEST;
    while (room < bytes && room < MOST_KEPT) {
        room *= 2;
    }
    return room < bytes ? bytes : room; /* what is never kept need not suit others */
}

demos_frame *demos_frame_take(demos_frames *frames, size_t bytes) {
    size_t room = round_up(bytes);
    for (demos_frame **at = &frames->first; *at != NULL; at = &(*at)->next) {
        if ((*at)->room == room) {
            demos_frame *found = *at;
            *at = found->next;
            found->next = NULL;
            frames->bytes -= room;
            return found;
        }
    }
    demos_frame *made = malloc(sizeof *made);
    uint8_t *memory = made == NULL ? NULL : malloc(room);
    if (memory == NULL) {
        free(made);
        return NULL;
    }
    made->bytes = memory;
    made->room = room;
    made->next = NULL;
    return made;
}

void demos_frame_give(demos_frames *frames, demos_frame *frame) {
    if (frame == NULL) {
        return;
    }
    if (frames->bytes + frame->room > MOST_KEPT) {
        free(frame->bytes);
        free(frame);
        return;
    }
    frames->bytes += frame->room;
    frame->next = frames->first;
    frames->first = frame;
}

void demos_frames_close(demos_frames *frames) {
    while (frames->first != NULL) {
        demos_frame *frame = frames->first;
        frames->first = frame->next;
        free(frame->bytes);
        free(frame);
    }
    frames->bytes = 0;
}

int32_t demos_frame_make(demos_frames *frames, const demos_header *header, const demos_array *arrays, uint32_t n_arrays,
                         demos_frame **frame, demos_error *error) {
    demos_header filled = *header;
    demos_layout layout;
    int32_t status = demos_lay_out(&filled, arrays, n_arrays, &layout, error);
    if (status != DEMOS_OK) {
        return status;
    }
    demos_frame *made = demos_frame_take(frames, (size_t)layout.end);
    if (made == NULL) {
        return demos_fail(error, DEMOS_TOO_LARGE, "no memory for a frame of %llu bytes",
                          (unsigned long long)layout.end);
    }
    made->header = filled;
    made->layout = layout;
    demos_write_head(&filled, &layout, made->bytes);
    uint64_t at = layout.head;
    for (uint32_t i = 0; i < n_arrays; i++) {
        memset(made->bytes + at, 0, layout.offsets[i] - at);
        at = layout.offsets[i] + layout.sizes[i];
    }
    *frame = made;
    return DEMOS_OK;
}

void *demos_frame_data(const demos_frame *frame, uint32_t nth) { return frame->bytes + frame->layout.offsets[nth]; }

int32_t demos_frame_make_text(demos_frames *frames, const demos_header *header, const char *text, size_t length,
                              demos_frame **frame, demos_error *error) {
    demos_array array = demos_describe_vector(DEMOS_UINT8, length);
    int32_t status = demos_frame_make(frames, header, &array, 1, frame, error);
    if (status == DEMOS_OK && length > 0) {
        memcpy(demos_frame_data(*frame, 0), text, length);
    }
    return status;
}

int32_t demos_frame_read_text(const demos_frame *frame, const char **text, size_t *length, demos_error *error) {
    if (frame->layout.n_arrays != 1 || frame->layout.arrays[0].dtype != DEMOS_UINT8) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame of kind %d with %u arrays where a text is due",
                          frame->header.kind, (unsigned)frame->layout.n_arrays);
    }
    *text = demos_frame_data(frame, 0);
    *length = (size_t)frame->layout.sizes[0];
    return DEMOS_OK;
}

void demos_queue_put(demos_frame_queue *queue, demos_frame *frame) {
    frame->next = NULL;
    if (queue->last == NULL) {
        queue->first = frame;
    } else {
        queue->last->next = frame;
    }
    queue->last = frame;
}

demos_frame *demos_queue_pop(demos_frame_queue *queue) {
    demos_frame *frame = queue->first;
    if (frame != NULL) {
        queue->first = frame->next;
        queue->last = queue->first == NULL ? NULL : queue->last;
        frame->next = NULL;
    }
    return frame;
}

void demos_queue_clear(demos_frame_queue *queue, demos_frames *frames) {
    for (demos_frame *frame; (frame = demos_queue_pop(queue)) != NULL;) {
        demos_frame_give(frames, frame);
    }
}
