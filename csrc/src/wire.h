/* Frames to bytes and back (csrc/WIRE.md, 2 to 4 and 12), without input or output; the twin of demos_hpc/wire.py. */
#ifndef DEMOS_WIRE_H
#define DEMOS_WIRE_H

#include "demos.h"

enum { DEMOS_HEADER_BYTES = 64, DEMOS_MAX_HEAD_BYTES = 640 /* header and 8 descriptors of 8 dimensions */ };

/* The arrays of a frame, and where their bytes are. */
typedef struct demos_layout {
    uint32_t n_arrays;
    demos_array arrays[8];
    uint64_t offsets[8]; /* from the frame's start */
    uint64_t sizes[8];   /* bytes */
    uint64_t head;       /* bytes of header and descriptors */
    uint64_t end;        /* where the last array ends, from the frame's start */
} demos_layout;

#pragma GCC visibility push(default)

/* Bytes of an element; 0 for a number that is no dtype. */
uint32_t demos_measure_dtype(uint8_t dtype);
/* Descriptions of arrays [n] and [n][m]. */
demos_array demos_describe_vector(uint8_t dtype, uint64_t n);
demos_array demos_describe_matrix(uint8_t dtype, uint64_t n, uint64_t m);
/* Whether the whole frame is one message. */
int32_t demos_is_inline(const demos_header *header);

/* Reading. Statuses are DEMOS_BAD_FRAME and DEMOS_BAD_VERSION; `bytes` need not be aligned. */

/* The header that `length` bytes begin with. */
int32_t demos_read_header(const void *bytes, size_t length, demos_header *header, demos_error *error);
/* Bytes of header and descriptors; more than `length` where descriptors are cut off. */
uint64_t demos_find_head_bytes(const demos_header *header, const void *frame, size_t length);
/* What the arrays are, of a frame whose header and descriptors, and if it is inline all bytes, are among `length`. */
int32_t demos_read_layout(const demos_header *header, const void *frame, size_t length, demos_layout *layout,
                          demos_error *error);
/* The header of the frame at `start` of a message, and where the next begins: `length` or beyond behind the last. */
int32_t demos_split(const void *message, size_t length, size_t start, demos_header *header, size_t *next,
                    demos_error *error);

/* Writing. */

/* Lays out arrays, and sets what follows from them in the header: magic, version, n_arrays, payload. */
int32_t demos_lay_out(demos_header *header, const demos_array *arrays, uint32_t n_arrays, demos_layout *layout,
                      demos_error *error);
/* Writes header and descriptors, layout->head bytes. */
void demos_write_head(const demos_header *header, const demos_layout *layout, void *head);
/* Writes an inline frame whole, of a large one the head; *length says how many bytes. DEMOS_TOO_LARGE for `size`. */
int32_t demos_pack(demos_header *header, const demos_array *arrays, const void *const *data, uint32_t n_arrays,
                   void *frame, size_t size, size_t *length, demos_error *error);

#pragma GCC visibility pop

#endif
