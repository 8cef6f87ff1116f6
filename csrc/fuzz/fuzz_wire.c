/* Frames: of what is accepted every byte is there, and written again it is what it was but for what is ignored. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte of the arrays, so that a sanitizer sees those that are not there. */
static void read_bytes(const uint8_t *frame, const demos_layout *layout) {
    for (uint32_t i = 0; i < layout->n_arrays; i++) {
        for (uint64_t at = layout->offsets[i]; at < layout->offsets[i] + layout->sizes[i]; at++) {
            (void)*(const volatile uint8_t *)(frame + at);
        }
    }
}

static void pack_again(const uint8_t *frame, const demos_header *header, const demos_layout *layout) {
    static uint8_t packed[DEMOS_INLINE_BYTES];
    const void *data[DEMOS_MAX_ARRAYS] = {NULL};
    demos_header again = *header, read;
    demos_layout other;
    demos_error error;
    size_t length = 0;
    for (uint32_t i = 0; i < layout->n_arrays; i++) {
        data[i] = frame + layout->offsets[i];
    }
    if (demos_pack(&again, layout->arrays, data, layout->n_arrays, packed, sizeof packed, &length, &error) !=
            DEMOS_OK ||
        length != (demos_is_inline(header) ? layout->end : layout->head) ||
        demos_read_header(packed, length, &read, &error) != DEMOS_OK ||
        demos_read_layout(&read, packed, length, &other, &error) != DEMOS_OK || other.end != layout->end ||
        read.payload != header->payload) {
        abort();
    }
    for (uint32_t i = 0; demos_is_inline(header) && i < layout->n_arrays; i++) {
        if (memcmp(packed + layout->offsets[i], frame + layout->offsets[i], layout->sizes[i]) != 0) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t next = 0;
    for (size_t start = 0; start < size || start == 0; start = next) {
        demos_header header;
        demos_layout layout;
        demos_error error;
        if (demos_split(data, size, start, &header, &next, &error) != DEMOS_OK) {
            break;
        }
        const uint8_t *frame = data + start;
        uint64_t head = demos_find_head_bytes(&header, frame, size - start);
        if (demos_read_layout(&header, frame, size - start, &layout, &error) != DEMOS_OK) {
            break;
        }
        if (next <= start || head != layout.head || head > size - start) {
            abort();
        }
        if (demos_is_inline(&header)) {
            read_bytes(frame, &layout);
        }
        pack_again(frame, &header, &layout);
    }
    return 0;
}
