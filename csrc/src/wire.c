/* Frames to bytes and back. Whatever arrives is checked before any of it is believed. */
#include "wire.h"

#include <string.h>

#include "error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian, and copied as they are");
_Static_assert(sizeof(demos_header) == DEMOS_HEADER_BYTES, "the header has no padding");
_Static_assert(sizeof(demos_array) == 8 + 8 * DEMOS_MAX_DIMS, "neither have descriptors");
_Static_assert(sizeof(demos_header) + DEMOS_MAX_ARRAYS * sizeof(demos_array) == DEMOS_MAX_HEAD_BYTES, "sums agree");

uint32_t demos_measure_dtype(uint8_t dtype) {
    static const uint8_t sizes[] = {
        [DEMOS_FLOAT64] = 8, [DEMOS_FLOAT32] = 4, [DEMOS_INT64] = 8, [DEMOS_INT32] = 4,       [DEMOS_UINT64] = 8,
        [DEMOS_UINT32] = 4,  [DEMOS_UINT8] = 1,   [DEMOS_BOOL] = 1,  [DEMOS_COMPLEX128] = 16,
    };
    return dtype < sizeof sizes ? sizes[dtype] : 0;
}

demos_array demos_describe_vector(uint8_t dtype, uint64_t n) {
    return (demos_array){.dtype = dtype, .n_dims = 1, .shape = {n}};
}

demos_array demos_describe_matrix(uint8_t dtype, uint64_t n, uint64_t m) {
    return (demos_array){.dtype = dtype, .n_dims = 2, .shape = {n, m}};
}

int32_t demos_is_inline(const demos_header *header) {
    return header->payload <= DEMOS_INLINE_BYTES - DEMOS_HEADER_BYTES;
}

static uint64_t align(uint64_t bytes) { return (bytes + DEMOS_ALIGNMENT - 1) / DEMOS_ALIGNMENT * DEMOS_ALIGNMENT; }

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

int32_t demos_read_header(const void *bytes, size_t length, demos_header *header, demos_error *error) {
    if (length < DEMOS_HEADER_BYTES) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame of %zu bytes; its header alone has %d", length,
                          DEMOS_HEADER_BYTES);
    }
    memcpy(header, bytes, sizeof *header);
    if (header->magic != DEMOS_MAGIC) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame that starts with %#010x instead of %#010x",
                          (unsigned)header->magic, (unsigned)DEMOS_MAGIC);
    }
    if (header->major != DEMOS_WIRE_MAJOR) {
        return demos_fail(error, DEMOS_BAD_VERSION,
                          "the peer speaks wire version %d.%d, this side %d.%d;"
                          " install the same version of demos-hpc on both sides",
                          header->major, header->minor, DEMOS_WIRE_MAJOR, DEMOS_WIRE_MINOR);
    }
    if (header->n_arrays > DEMOS_MAX_ARRAYS) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame with %d arrays; at most %d are allowed", header->n_arrays,
                          DEMOS_MAX_ARRAYS);
    }
    if (header->payload > 0 && header->n_arrays == 0) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame of no arrays whose header announces %llu bytes",
                          (unsigned long long)header->payload);
    }
    return DEMOS_OK;
}

uint64_t demos_find_head_bytes(const demos_header *header, const void *frame, size_t length) {
    uint64_t at = DEMOS_HEADER_BYTES;
    for (int i = 0; i < header->n_arrays; i++) {
        if (at + 1 >= length) {
            return at + DEMOS_ALIGNMENT;
        }
        at += DEMOS_ALIGNMENT * (1 + (uint64_t)((const uint8_t *)frame)[at + 1]);
    }
    return at;
}

/* Bytes of an array; DEMOS_BAD_FRAME where they are too many for signed 64 bits, a length of 0 counted as 1. */
static int32_t measure(const demos_array *array, uint64_t *size, demos_error *error) {
    uint64_t item = demos_measure_dtype(array->dtype), most = item, bytes = item;
    if (item == 0) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame with the unknown dtype code %d", array->dtype);
    }
    for (int i = 0; i < array->n_dims; i++) {
        uint64_t length = array->shape[i];
        if (__builtin_mul_overflow(most, length == 0 ? 1 : length, &most) || most > INT64_MAX) {
            return demos_fail(error, DEMOS_BAD_FRAME, "an array of %d dimensions which no memory can hold",
                              array->n_dims);
        }
        bytes *= length;
    }
    *size = bytes;
    return DEMOS_OK;
}

/* Offsets of arrays that stand behind `head` bytes. */
static int32_t place(demos_layout *layout, demos_error *error) {
    layout->end = layout->head;
    for (uint32_t i = 0; i < layout->n_arrays; i++) {
        int32_t status = measure(&layout->arrays[i], &layout->sizes[i], error);
        if (status != DEMOS_OK) {
            return status;
        }
        layout->offsets[i] = align(layout->end);
        if (layout->offsets[i] < layout->end ||
            __builtin_add_overflow(layout->offsets[i], layout->sizes[i], &layout->end)) {
            return demos_fail(error, DEMOS_BAD_FRAME, "a frame whose arrays no memory can hold");
        }
    }
    return DEMOS_OK;
}

static int32_t read_descriptors(const demos_header *header, const uint8_t *frame, size_t length, demos_layout *layout,
                                demos_error *error) {
    if (demos_find_head_bytes(header, frame, length) > length) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame of %d arrays whose descriptors are cut off",
                          header->n_arrays);
    }
    layout->n_arrays = header->n_arrays;
    layout->head = DEMOS_HEADER_BYTES;
    for (uint32_t i = 0; i < layout->n_arrays; i++) {
        const uint8_t *descriptor = frame + layout->head;
        if (descriptor[1] > DEMOS_MAX_DIMS) {
            return demos_fail(error, DEMOS_BAD_FRAME, "an array of %d dimensions; at most %d are allowed",
                              descriptor[1], DEMOS_MAX_DIMS);
        }
        size_t size = DEMOS_ALIGNMENT * (1 + (size_t)descriptor[1]);
        layout->arrays[i] = (demos_array){0};
        memcpy(&layout->arrays[i], descriptor, size);
        layout->head += size;
    }
    return DEMOS_OK;
}

int32_t demos_read_layout(const demos_header *header, const void *frame, size_t length, demos_layout *layout,
                          demos_error *error) {
    int32_t status = read_descriptors(header, frame, length, layout, error);
    if (status == DEMOS_OK) {
        status = place(layout, error);
    }
    if (status != DEMOS_OK) {
        return status;
    }
    if (layout->end - DEMOS_HEADER_BYTES != header->payload) {
        return demos_fail(error, DEMOS_BAD_FRAME,
                          "a frame whose header announces %llu bytes and whose arrays come to %llu",
                          (unsigned long long)header->payload, (unsigned long long)(layout->end - DEMOS_HEADER_BYTES));
    }
    if (layout->end <= DEMOS_INLINE_BYTES && layout->end > length) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a frame of %llu bytes of which %zu arrived",
                          (unsigned long long)layout->end, length);
    }
    return DEMOS_OK;
}

int32_t demos_split(const void *message, size_t length, size_t start, demos_header *header, size_t *next,
                    demos_error *error) {
    size_t rest = start < length ? length - start : 0;
    int32_t status = demos_read_header((const uint8_t *)message + start, rest, header, error);
    if (status != DEMOS_OK) {
        return status;
    }
    *next = length;
    if (demos_is_inline(header)) {
        size_t size = DEMOS_HEADER_BYTES + (size_t)header->payload;
        if (size > rest) {
            return demos_fail(error, DEMOS_BAD_FRAME, "a frame of %zu bytes of which %zu arrived", size, rest);
        }
        *next = start + (size_t)align(size);
    }
    return DEMOS_OK;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

int32_t demos_lay_out(demos_header *header, const demos_array *arrays, uint32_t n_arrays, demos_layout *layout,
                      demos_error *error) {
    if (n_arrays > DEMOS_MAX_ARRAYS) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "%u arrays for one frame; it takes %d", (unsigned)n_arrays,
                          DEMOS_MAX_ARRAYS);
    }
    layout->n_arrays = n_arrays;
    layout->head = DEMOS_HEADER_BYTES;
    for (uint32_t i = 0; i < n_arrays; i++) {
        layout->arrays[i] = arrays[i];
        if (arrays[i].n_dims > DEMOS_MAX_DIMS) {
            return demos_fail(error, DEMOS_INVALID_INPUT, "an array of %d dimensions; a frame takes %d",
                              arrays[i].n_dims, DEMOS_MAX_DIMS);
        }
        layout->head += DEMOS_ALIGNMENT * (1 + (uint64_t)arrays[i].n_dims);
    }
    int32_t status = place(layout, error);
    if (status != DEMOS_OK) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "what cannot be sent: %s", error == NULL ? "" : error->message);
    }
    header->magic = DEMOS_MAGIC;
    header->major = DEMOS_WIRE_MAJOR;
    header->minor = DEMOS_WIRE_MINOR;
    header->n_arrays = (uint16_t)n_arrays;
    header->payload = layout->end - DEMOS_HEADER_BYTES;
    return DEMOS_OK;
}

void demos_write_head(const demos_header *header, const demos_layout *layout, void *head) {
    uint8_t *at = head;
    memcpy(at, header, sizeof *header);
    at += sizeof *header;
    for (uint32_t i = 0; i < layout->n_arrays; i++) {
        demos_array array = layout->arrays[i];
        memset(array.reserved, 0, sizeof array.reserved);
        size_t size = DEMOS_ALIGNMENT * (1 + (size_t)array.n_dims);
        memcpy(at, &array, size);
        at += size;
    }
}

int32_t demos_pack(demos_header *header, const demos_array *arrays, const void *const *data, uint32_t n_arrays,
                   void *frame, size_t size, size_t *length, demos_error *error) {
    demos_layout layout;
    int32_t status = demos_lay_out(header, arrays, n_arrays, &layout, error);
    if (status != DEMOS_OK) {
        return status;
    }
    uint64_t needed = demos_is_inline(header) ? layout.end : layout.head;
    if (needed > size) {
        return demos_fail(error, DEMOS_TOO_LARGE, "%llu bytes of a frame where there is room for %zu",
                          (unsigned long long)needed, size);
    }
    *length = (size_t)needed;
    demos_write_head(header, &layout, frame);
    if (demos_is_inline(header)) {
        uint8_t *bytes = frame;
        uint64_t at = layout.head;
        for (uint32_t i = 0; i < n_arrays; i++) {
            memset(bytes + at, 0, layout.offsets[i] - at);
            if (layout.sizes[i] > 0) { /* memcpy() takes no NULL, not even for nothing */
                memcpy(bytes + layout.offsets[i], data[i], layout.sizes[i]);
            }
            at = layout.offsets[i] + layout.sizes[i];
        }
    }
    return DEMOS_OK;
}
