/*
 * demos.h: every number and every offset that C, Fortran and Python share.
 *
 * This header is the home of the wire format (specification: csrc/WIRE.md).
 * demos_hpc/wire.py, messages.py and errors.py mirror it, and
 * tests/test_wire.py reads this very file through cffi and holds them together,
 * so it uses no preprocessor beyond the guards below.
 *
 * C11. All integers on the wire are little-endian.
 */
#ifndef DEMOS_H
#define DEMOS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "DMOS" read as a little-endian uint32. */
enum demos_wire {
    DEMOS_MAGIC = 0x534f4d44,
    DEMOS_WIRE_MAJOR = 1, /* differs: the peer is refused */
    DEMOS_WIRE_MINOR = 0, /* differs: the smaller one is spoken */
    DEMOS_MAX_ARRAYS = 8, /* arrays in one frame */
    DEMOS_MAX_DIMS = 8,   /* dimensions of one array */
    DEMOS_ALIGNMENT = 8,  /* of every array and frame, in bytes from the frame's start */
    /* Over MPI, a frame of at most this many bytes is one message; a larger one is a message of header and
     * descriptors, then each array in pieces. */
    DEMOS_INLINE_BYTES = 16384,
    DEMOS_PIECE_BYTES = 4194304
};

/* What a frame is. c = client, d = dispatcher, w = worker. */
enum demos_kind {
    DEMOS_REQUEST = 1, /* c -> d  one call, with the first of its rows */
    DEMOS_ROWS = 2,    /* c -> d  further rows of a large request */
    DEMOS_CANCEL = 3,  /* c -> d, d -> w  forget this id */
    DEMOS_REPLY = 4,   /* d -> c  rows of the answer; DEMOS_FINAL on the last */
    DEMOS_CHUNK = 5,   /* d -> w  a run of rows to compute */
    DEMOS_RESULT = 6,  /* w -> d  what became of a chunk */
    DEMOS_HELLO = 7,   /* any -> d  who I am (JSON) */
    DEMOS_WELCOME = 8, /* d -> any  who everybody is (JSON) */
    DEMOS_GOODBYE = 9, /* any -> d  I shall send nothing more */
    DEMOS_END = 10,    /* d -> any  the service is over */
    /* At the door, and on the streams behind it. */
    DEMOS_CHALLENGE = 11, /* d -> any  prove who you are (JSON) */
    DEMOS_PROOF = 12,     /* any -> d  here is the proof (JSON) */
    DEMOS_PING = 13,      /* any -> d  are you there? */
    DEMOS_PONG = 14,      /* d -> any  I am */
    DEMOS_BEAT = 15,      /* w -> d  how I am (JSON) */
    DEMOS_TICKET = 16,    /* any -> d  may we go on through shared memory? d -> any  here it is (JSON) */
    DEMOS_NOW = 17,       /* any -> d  I have it; with a status: I cannot have it */
    DEMOS_SWITCH = 18,    /* d -> any  it is ours; with a status: there is none */
    DEMOS_RING = 19,      /* both ways  look into the shared memory */
    DEMOS_COMPRESSED = 20 /* both ways  a large frame, compressed */
};

enum demos_operation {
    DEMOS_LOG_DENSITY = 1,
    DEMOS_LOG_DENSITY_GRADIENT = 2,
    DEMOS_LOG_LIKELIHOOD = 3,
    DEMOS_LOG_LIKELIHOOD_GRADIENT = 4,
    DEMOS_SAMPLE = 5,
    DEMOS_EVALUATE = 6,
    DEMOS_METADATA = 7,
    DEMOS_SET_PARAMS = 8,
    /* Of the server, not of a model. */
    DEMOS_STATISTICS = 9,
    DEMOS_DRAIN = 10,
    DEMOS_STOP = 11,
    /* Of a model's datasets. */
    DEMOS_DATASET = 12,  /* rows of a dataset */
    DEMOS_DESCRIBE = 13, /* what datasets there are (JSON) */
    DEMOS_DIGEST = 14,   /* checksums of slabs of a dataset */
    DEMOS_UPLOAD = 15    /* rows that the server is to keep */
};

enum demos_status {
    DEMOS_OK = 0,
    DEMOS_INVALID_INPUT = 1,   /* the caller's error: shape, dtype, names, bounds */
    DEMOS_NOT_OFFERED = 2,     /* the model does not have this operation */
    DEMOS_MODEL_FAILED = 3,    /* the model raised, or returned the wrong thing */
    DEMOS_MODEL_CRASHED = 4,   /* these rows killed their workers, repeatedly */
    DEMOS_BUSY = 5,            /* queues are full: try again */
    DEMOS_DRAINING = 6,        /* the server is about to end: try elsewhere */
    DEMOS_CANCELLED = 7,
    DEMOS_DEADLINE = 8,        /* not done in time */
    DEMOS_TOO_LARGE = 9,       /* over the server's limit */
    DEMOS_STALE_REVISION = 10, /* the client pinned another revision of the defaults */
    DEMOS_BAD_FRAME = 11,      /* truncated, inconsistent or unknown */
    DEMOS_BAD_VERSION = 12,    /* another major version of the wire */
    DEMOS_SERVER_LOST = 13,
    DEMOS_INTERNAL = 14,       /* a defect of demos-hpc itself */
    DEMOS_MODEL_NOT_FOUND = 15, /* there is no such file, module or class */
    DEMOS_REFUSED = 16,        /* whoever asks has no right to it */
    DEMOS_DATASET_FAILED = 17  /* a file is missing, truncated, altered or replaced */
};

enum demos_flag {
    DEMOS_FINAL = 1,       /* REPLY: nothing more follows for this id */
    DEMOS_WRT_X = 2,       /* gradients with respect to x, not params */
    DEMOS_BLOCK_MAJOR = 4, /* likelihood cells are b m + j, not j B + b (WIRE.md, 6) */
    DEMOS_FRESH_SEED = 8,  /* SAMPLE: the caller gave no seed, one was drawn for this request */
    DEMOS_RESIDENT = 16    /* likelihoods: the rows are data that the workers hold (WIRE.md, 17) */
};

enum demos_dtype {
    DEMOS_FLOAT64 = 1,
    DEMOS_FLOAT32 = 2,
    DEMOS_INT64 = 3,
    DEMOS_INT32 = 4,
    DEMOS_UINT64 = 5,
    DEMOS_UINT32 = 6,
    DEMOS_UINT8 = 7, /* also: JSON text in UTF-8 */
    DEMOS_BOOL = 8,
    DEMOS_COMPLEX128 = 9
};

/* The 64 bytes in front of every frame. */
typedef struct demos_header {
    uint32_t magic;
    uint8_t major;
    uint8_t minor;
    uint8_t kind;
    uint8_t operation;
    uint16_t status;
    uint16_t flags;
    uint16_t model;       /* handle of the model, from the answer to METADATA */
    uint16_t n_arrays;    /* array descriptors that follow */
    uint64_t id;          /* of the request, chosen by the client; of the chunk, by the dispatcher */
    uint64_t first_row;   /* of the rows (or cells) in this frame */
    uint64_t n_rows;      /* in this frame; in REQUEST: of the whole request */
    uint64_t payload;     /* bytes after this header */
    uint32_t revision;    /* of the server-side defaults; in REQUEST: pinned, 0 = any */
    uint32_t deadline_ms; /* REQUEST, CHUNK: milliseconds left, 0 = none; RESULT, REPLY: nan and +inf rows */
    uint64_t seed;        /* REQUEST, CHUNK: of the random stream; RESULT, REPLY: nanoseconds in the model */
} demos_header;

/* In front of the arrays stand n_arrays of these, each cut off after shape[n_dims]. */
typedef struct demos_array {
    uint8_t dtype;
    uint8_t n_dims;
    uint8_t reserved[6]; /* zero */
    uint64_t shape[8];
} demos_array;

#ifdef __cplusplus
}
#endif

#endif /* DEMOS_H */
