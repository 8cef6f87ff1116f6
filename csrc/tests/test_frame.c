/* Frames in memory, and memory for them. */
#include <stdlib.h>

#include "check.h"
#include "frame.h"

const char *__asan_default_options(void);
const char *__tsan_default_options(void);

/* What no memory can hold is to be refused, by us. */
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }

static void check_pool(void) {
    demos_frames frames = {0};
    demos_frame_queue queue = {0};
    demos_frame *small = demos_frame_take(&frames, 1), *large = demos_frame_take(&frames, 100000);
    CHECK(small->room >= 1 && large->room >= 100000 && frames.bytes == 0);
    demos_frame_give(&frames, NULL);
    demos_frame_give(&frames, small);
    demos_frame_give(&frames, large);
    CHECK_EQUAL(frames.bytes, small->room + large->room);
    CHECK(demos_frame_take(&frames, 99999) == large);
    CHECK(demos_frame_take(&frames, DEMOS_INLINE_BYTES) == small);
    CHECK_EQUAL(frames.bytes, 0);
    demos_queue_put(&queue, small);
    demos_queue_put(&queue, large);
    CHECK(demos_queue_pop(&queue) == small);
    demos_queue_put(&queue, small);
    demos_queue_clear(&queue, &frames);
    CHECK(demos_queue_pop(&queue) == NULL && queue.last == NULL);
    /* What is large beyond reason is not kept. */
    large = demos_frame_take(&frames, (size_t)300 << 20);
    CHECK(large != NULL && large->room < (size_t)301 << 20);
    demos_frame_give(&frames, large);
    CHECK(frames.bytes < (size_t)1 << 20);
    CHECK(demos_frame_take(&frames, SIZE_MAX / 4) == NULL);

    /* Padding between arrays is 0, whatever was in the memory. */
    demos_array arrays[] = {demos_describe_vector(DEMOS_UINT8, 3), demos_describe_vector(DEMOS_FLOAT64, 1)};
    for (int i = 0; i < 2; i++) {
        demos_frame *frame = NULL;
        CHECK(demos_frame_make(&frames, &(demos_header){.kind = DEMOS_ROWS}, arrays, 2, &frame, NULL) == DEMOS_OK);
        const unsigned char *padding = frame->bytes + frame->layout.offsets[0] + 3;
        CHECK(padding[0] == 0 && padding[4] == 0);
        memset(frame->bytes, 0xff, frame->room);
        demos_frame_give(&frames, frame);
    }
    demos_frame *none = NULL;
    arrays[0].n_dims = 9;
    CHECK(demos_frame_make(&frames, &(demos_header){0}, arrays, 2, &none, NULL) == DEMOS_INVALID_INPUT);
    arrays[0] = demos_describe_vector(DEMOS_FLOAT64, (uint64_t)1 << 59);
    CHECK(demos_frame_make(&frames, &(demos_header){0}, arrays, 1, &none, NULL) == DEMOS_TOO_LARGE);
    demos_frames_close(&frames);
}

int main(void) {
    check_pool();
    return check_failures != 0;
}
