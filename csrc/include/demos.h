/*
 * demos.h: what C, C++, Fortran and Python share: the numbers of the wire, and how a code becomes a model.
 *
 * For whoever has a code to be served, this header is the manual of it; docs/legacy.md has a first example. Part 1 is
 * the wire (specification: csrc/WIRE.md), 2 the table of functions that a model is, 3 the way there for a code of
 * scalar functions, 4 random numbers, 5 errors, 6 configuration, 7 what calls a model, 8 programs that are workers,
 * 9 programs that call models.
 *
 * This header is the home of every number in it. demos_hpc/wire.py, messages.py and errors.py mirror the wire, tests
 * hold them together; demos_hpc/native.py reads this very file through cffi. So it uses no preprocessor beyond what
 * stands at its two ends, and array sizes are plain numbers.
 *
 * C11 and C++17; no MPI. All integers on the wire are little-endian. Every function may be called by any thread; those
 * of part 9 by one at a time.
 */
#ifndef DEMOS_H
#define DEMOS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- 1. The wire ------------------------------------------------------------------------------------------------ */

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
    uint64_t first_row;   /* of the rows (or cells) in this frame; in REQUEST of SAMPLE: of the sequence, else 0 */
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

/* ---- 2. A model ------------------------------------------------------------------------------------------------- */

/*
 * What a code provides to be served is a table of functions, demos_model. A shared library that exports
 * demos_model_init(), which fills one in, is a plug-in: `demos-hpc serve ./libmy_model.so`.
 *
 * Stability. A model that was built against version 1.m of this interface is served by every library of version 1.n,
 * n >= m: members are added at the end of the structures below only, `size` says up to where the model knows them, and
 * those that it does not know count as NULL or 0. Numbers keep their meaning, functions their arguments. Another major
 * version, or a newer minor one than the library's, is refused with both numbers.
 */
enum demos_abi {
    DEMOS_ABI_MAJOR = 1,
    DEMOS_ABI_MINOR = 0,
    DEMOS_MESSAGE_BYTES = 1024 /* of demos_error.message */
};

/* What a model says of itself in demos_model.flags; 0 is always safe. */
enum demos_model_flag {
    DEMOS_THREAD_SAFE = 1,   /* several threads may call its functions at a time, with the same `user` */
    DEMOS_REENTRANT = 2,     /* ... with a `user` each, made by create(): it has no state outside of that */
    DEMOS_SINGLE = 4,        /* computes in single precision: about 7 digits are right */
    DEMOS_ROWS_DEPEND = 8,   /* the last bits of a row depend on the rows it is computed with (matrix products): whole
                              * blocks of rows are computed together, in one thread */
    DEMOS_OWN_RANDOM = 16,   /* draws from a generator of its own: the same seed gives other draws */
    DEMOS_ONE_POINT = 32     /* takes one point a call: params_stride is always 0 */
};

/* Why a call failed: memory of the caller, in which the callee writes; demos_fail() does it. */
typedef struct demos_error {
    int32_t status;     /* enum demos_status */
    char message[1024]; /* names the thing, the value and the remedy; ends with 0; UTF-8 */
} demos_error;

/*
 * A stream of random numbers, Philox4x64-10 (Salmon et al., SC11; csrc/WIRE.md, 8): a function of seed and place, never
 * of rank or thread. Its members are nobody's business but the library's.
 */
typedef struct demos_stream {
    uint64_t key[2];
    uint64_t counter[4];
    uint64_t buffer[4];
    uint32_t used; /* of buffer; 4: none is left */
    uint32_t reserved;
} demos_stream;

/*
 * A model. A member that is NULL is not offered; one of log_density, sample and evaluate has to be there.
 *
 * Arrays are C-contiguous doubles: n rows of d observables, p parameters, q outputs, as many as the spec names. They
 * belong to the caller and last until the function returns; inputs are not changed. `params` is one point [p] for all
 * rows where params_stride is 0, and [n][p], a point for each row, where it is p: that of row i begins at
 * params + i * params_stride in both cases.
 *
 * Values: rows outside of the support have log-density -inf, rows with nan in them nan; neither is an error. An error
 * is returned as DEMOS_MODEL_FAILED, or as DEMOS_INVALID_INPUT where only the caller can do something about it, with a
 * text in `error` (DEMOS_TOO_LARGE, DEMOS_NOT_OFFERED and DEMOS_DATASET_FAILED are passed on as well; another status
 * becomes DEMOS_MODEL_FAILED). No function calls exit() or abort(), throws, or leaves by longjmp(): that costs the
 * process.
 */
typedef struct demos_model {
    uint32_t size;  /* sizeof(demos_model), DEMOS_ABI_MAJOR and DEMOS_ABI_MINOR of whoever fills it in */
    uint16_t major;
    uint16_t minor;
    uint32_t flags; /* enum demos_model_flag, added up */
    uint32_t reserved; /* 0 */
    /* What the model is, in JSON: {"name": "peak", "parameters": [{"name": "mass", "unit": "GeV", ...}], "observables":
     * [...], "outputs": [...], ...} (docs/legacy.md). Lives as long as the model; NULL where a file has it. */
    const char *spec;
    /* Given to every function as its first argument. */
    void *user;

    /* log P(x_i | params), normalized over the support that the spec declares. */
    int32_t (*log_density)(void *user, size_t n, size_t d, size_t p, const double *x /* [n][d] */,
                           const double *params, size_t params_stride, double *value /* [n] */, demos_error *error);
    /* The same with its gradient by params, */
    int32_t (*log_density_gradient)(void *user, size_t n, size_t d, size_t p, const double *x /* [n][d] */,
                                    const double *params, size_t params_stride, double *value /* [n] */,
                                    double *gradient /* [n][p] */, demos_error *error);
    /* and with its gradient by x. */
    int32_t (*log_density_gradient_x)(void *user, size_t n, size_t d, size_t p, const double *x /* [n][d] */,
                                      const double *params, size_t params_stride, double *value /* [n] */,
                                      double *gradient /* [n][d] */, demos_error *error);
    /* n draws from P at one point, all randomness from `stream`, which demos_uniform() and demos_normal() use as well.
     * Called for one block of rows at a time. */
    int32_t (*sample)(void *user, size_t n, size_t d, size_t p, const double *params /* [p] */, demos_stream *stream,
                      double *x /* [n][d] */, demos_error *error);
    /* A forward map: q outputs at each of m points. */
    int32_t (*evaluate)(void *user, size_t m, size_t p, size_t q, const double *params /* [m][p] */,
                        double *out /* [m][q] */, demos_error *error);
    /* A further `user`, for another thread; needed with DEMOS_REENTRANT only. */
    int32_t (*create)(const struct demos_model *self, void **user, demos_error *error);
    /* The end of a `user`, of those that create() made and of the model's own; NULL where there is nothing to do. */
    void (*destroy)(void *user);
} demos_model;

/*
 * What a plug-in exports, under this name. *model comes as 0 but for size, major and minor, which are those of the
 * caller. Either it is assigned as a whole, with the plug-in's own size, major and minor, or its members one by one.
 * `config` is an object of JSON: the member "settings" of the file that was named behind the library, as in
 * `libmy_model.so:my.json`, or "{}"; it lasts until the function returns. Called before all others: once in a worker,
 * and once for each worker where several are in one process.
 */
typedef int32_t (*demos_model_init_function)(demos_model *model, const char *config, demos_error *error);
int32_t demos_model_init(demos_model *model, const char *config, demos_error *error);

/* ---- 3. Scalar functions: ten lines around a code that knows nothing of this ------------------------------------ */

/* P(x | params) or log P. A density P is 0 outside of the support, which becomes -inf; a negative one is the model's
 * error; nan stays nan. */
typedef double (*demos_density_function)(const double *x /* [d] */, const double *params /* [p] */);
/* log P, and its gradient by params [p] or by x [d]. */
typedef double (*demos_gradient_function)(const double *x /* [d] */, const double *params /* [p] */, double *gradient);
/* One draw; random numbers from demos_uniform() and demos_normal(), or from a generator of its own, which has to be
 * said (DEMOS_OWN_RANDOM). */
typedef void (*demos_sampler_function)(double *x /* [d] */, const double *params /* [p] */);
/* The outputs at one point. */
typedef void (*demos_map_function)(double *out /* [q] */, const double *params /* [p] */);

/* What a code has of them, NULL for what it has not. It lives as long as the model: make it static. */
typedef struct demos_functions {
    uint32_t size;  /* sizeof(demos_functions) */
    uint32_t flags; /* enum demos_model_flag; without one, calls come from one thread at a time */
    demos_density_function density;
    demos_density_function log_density; /* where both are there, this one is called */
    demos_gradient_function log_density_gradient;
    demos_gradient_function log_density_gradient_x;
    demos_sampler_function sample;
    demos_map_function evaluate;
} demos_functions;

/*
 * Makes a model of scalar functions. All of *model is set but `spec`, which stays as it is:
 *
 *     static const demos_functions functions = {
 *         .size = sizeof functions, .density = my_model_density, .sample = my_model_sample};
 *
 *     int32_t demos_model_init(demos_model *model, const char *config, demos_error *error) {
 *         (void)config;
 *         return demos_adapt(&functions, model, error);
 *     }
 *
 * model->size says how much memory *model has, as it does in demos_model_init(); sizeof(demos_model) elsewhere.
 */
int32_t demos_adapt(const demos_functions *functions, demos_model *model, demos_error *error);

/* ---- 4. Random numbers ------------------------------------------------------------------------------------------ */

/* The stream of a block under a seed, at its beginning. */
void demos_stream_set(demos_stream *stream, uint64_t seed, uint64_t block);
/* The next 64 bits. */
uint64_t demos_stream_bits(demos_stream *stream);
/* Uniform in [0, 1), multiples of 2^-53. */
double demos_stream_uniform(demos_stream *stream);
/* Standard normal, by the ziggurat method (Marsaglia and Tsang, J. Stat. Softw. 5(8), 2000) with 256 layers. Takes its
 * bits as NumPy's Generator(Philox).standard_normal() does, so that both give the same numbers but for rounding. */
double demos_stream_normal(demos_stream *stream);

/*
 * For samplers that take no stream. While a sampler runs, these draw from the stream of the row's block, in the thread
 * that it was called in. Where there is no stream, as in threads that a code has started by itself, they give nan:
 * demos_use_stream() says which one to use there. It returns the one before, NULL for none.
 */
double demos_uniform(void);
double demos_normal(void);
demos_stream *demos_use_stream(demos_stream *stream);

/* ---- 5. Errors -------------------------------------------------------------------------------------------------- */

/* Writes status and text, as printf() does, and returns the status: `return demos_fail(error, DEMOS_MODEL_FAILED,
 * "no table for Z = %d", z);`. `error` may be NULL. */
int32_t demos_fail(demos_error *error, int32_t status, const char *format, ...);
/* "MODEL_FAILED" for 3; "UNKNOWN" for what is no status. */
const char *demos_status_name(int32_t status);
/* The library's version, "0.1.0". */
const char *demos_version(void);
/* 65536 * DEMOS_ABI_MAJOR + DEMOS_ABI_MINOR of the library. */
uint32_t demos_abi_version(void);

/* ---- 6. Configuration ------------------------------------------------------------------------------------------- */

/* A member of the object that `config` is. Where it has none of this name, or null, the value stays as it was: set the
 * default before. DEMOS_INVALID_INPUT where it is something else than a number, or a text of less than `size` bytes. */
int32_t demos_config_number(const char *config, const char *name, double *value, demos_error *error);
int32_t demos_config_text(const char *config, const char *name, char *text, size_t size, demos_error *error);

/* ---- 7. Calling a model: for workers, in C and in Python; no model needs it -------------------------------------- */

/* Calls a plug-in's demos_model_init, and checks what it has filled in. */
int32_t demos_init_model(demos_model_init_function init, const char *config, demos_model *model, demos_error *error);
/* Copies what is known of a model that somebody filled in; its version, size, flags and functions are right then. */
int32_t demos_check_model(const demos_model *given, demos_model *model, demos_error *error);
/* The end of a model: destroys its `user`. */
void demos_end_model(demos_model *model);

/*
 * Calls the functions of a model, rows being split over threads where its flags allow; results do not depend on how
 * many there are. A model without DEMOS_THREAD_SAFE or DEMOS_REENTRANT gets one. A caller serves one call at a time.
 */
typedef struct demos_caller demos_caller;
int32_t demos_caller_open(const demos_model *model /* checked; copied */, size_t d, size_t p, size_t q, int32_t threads,
                          demos_caller **caller, demos_error *error);
void demos_caller_close(demos_caller *caller);
/* Threads that compute, the calling one included. */
int32_t demos_caller_threads(const demos_caller *caller);

/* As the members of demos_model; the gradient of a row of -inf is set to 0. */
int32_t demos_call_log_density(demos_caller *caller, size_t n, const double *x, const double *params,
                               size_t params_stride, double *value, demos_error *error);
int32_t demos_call_log_density_gradient(demos_caller *caller, size_t n, const double *x, const double *params,
                                        size_t params_stride, double *value, double *gradient, demos_error *error);
int32_t demos_call_log_density_gradient_x(demos_caller *caller, size_t n, const double *x, const double *params,
                                          size_t params_stride, double *value, double *gradient, demos_error *error);
int32_t demos_call_evaluate(demos_caller *caller, size_t m, const double *params, double *out, demos_error *error);
/* n draws from a stream that the caller has. */
int32_t demos_call_sample(demos_caller *caller, size_t n, const double *params, demos_stream *stream, double *x,
                          demos_error *error);
/* Draws first_row to first_row + n of the sequence that the seed names; first_row begins a block of block_rows. */
int32_t demos_call_sample_rows(demos_caller *caller, uint64_t seed, uint64_t first_row, size_t n, size_t block_rows,
                               const double *params, double *x, demos_error *error);
/* Sums over blocks of block_rows rows of the log-density at k points, and of its gradient unless that is NULL: the
 * partial sums of a likelihood (csrc/WIRE.md, 6), B = ceil(n / block_rows). */
int32_t demos_call_log_likelihood(demos_caller *caller, size_t n, const double *x, size_t k,
                                  const double *params /* [k][p] */, size_t block_rows, double *sum /* [k][B] */,
                                  double *gradient /* [k][B][p] */, demos_error *error);

/* ---- 8. A program of its own as a worker ------------------------------------------------------------------------- */

/*
 * Serves a model in this process, no Python in it, until the service is over: for programs that
 * `demos-hpc worker --join NAME --exec ./my_model` starts. What is missing in the model's own spec comes from `spec`,
 * the text of a description in JSON (docs/legacy.md), or where that is NULL, from the file that DEMOS_SPEC names.
 * demos_mpi.h has the same for ranks of an MPI launch. `model` is filled in as by demos_model_init(), and stays the
 * caller's. A model that cannot be served is no error here: whoever calls it is told why. Errors: DEMOS_INVALID_INPUT
 * without a connection, DEMOS_SERVER_LOST, and what the server says against this worker.
 */
int32_t demos_serve(const demos_model *model, const char *spec, demos_error *error);

/* ---- 9. Clients -------------------------------------------------------------------------------------------------- */

/*
 * A model that is served elsewhere, called from C. Here for programs that `demos-hpc ticket NAME -- ./my_analysis`
 * starts; demos_mpi.h has the same for ranks of an MPI launch.
 *
 * n rows of d observables, p parameters, m points, q outputs; all arrays are C-contiguous doubles of the caller,
 * which are written to before the call returns. `params` NULL means the server's own parameters
 * (demos_client_set_params()). Points outside of the parameters' bounds have log-density -inf and gradient 0. Calls
 * wait for their answer, at most until demos_client_timeout(). One thread at a time uses the clients of a process, and
 * none of its forks.
 * Statuses are those of the server (DEMOS_MODEL_FAILED, DEMOS_NOT_OFFERED, DEMOS_BUSY, ...), DEMOS_INVALID_INPUT,
 * DEMOS_DEADLINE, DEMOS_SERVER_LOST.
 */
typedef struct demos_client demos_client;

/* `model` is a name or UUID, NULL where only one is served. */
int32_t demos_connect(const char *model, demos_client **client, demos_error *error);
/* The end of a client, of the last one the end of the connection; NULL is nothing. */
void demos_disconnect(demos_client *client);

/* d, p and q. */
size_t demos_client_observables(const demos_client *client);
size_t demos_client_params(const demos_client *client);
size_t demos_client_outputs(const demos_client *client);
/* What the server says of the model now, in JSON (csrc/WIRE.md, 10); lasts until it is asked again. NULL where that
 * fails. */
const char *demos_client_metadata(demos_client *client, demos_error *error);
/* The server's own parameters [p] now; nan where there is none. */
int32_t demos_client_defaults(demos_client *client, double *params, demos_error *error);
/* Changes them for everybody, `changes` being an object such as {"mass": 91.2}; *revision is their new one, or NULL. */
int32_t demos_client_set_params(demos_client *client, const char *changes, uint32_t *revision, demos_error *error);
/* Seconds that a call may take from now on; 600 at first. */
void demos_client_timeout(demos_client *client, double seconds);

/* log P(x_i | params); params_stride is 0 for one point [p], p for a point for each row [n][p]. */
int32_t demos_client_log_density(demos_client *client, size_t n, const double *x /* [n][d] */, const double *params,
                                 size_t params_stride, double *value /* [n] */, demos_error *error);
/* The same with its gradient by params, or by x. */
int32_t demos_client_log_density_gradient(demos_client *client, size_t n, const double *x, const double *params,
                                          size_t params_stride, double *value, double *gradient /* [n][p] */,
                                          demos_error *error);
int32_t demos_client_log_density_gradient_x(demos_client *client, size_t n, const double *x, const double *params,
                                            size_t params_stride, double *value, double *gradient /* [n][d] */,
                                            demos_error *error);
/* Sums of log P over all rows, for each of k points, and their gradients unless that is NULL; the same to the last bit
 * for any number of workers. */
int32_t demos_client_log_likelihood(demos_client *client, size_t n, const double *x, size_t k,
                                    const double *params /* [k][p] */, double *value /* [k] */,
                                    double *gradient /* [k][p] */, demos_error *error);
/* Draws first_row to first_row + n of the sequence that the seed names; first_row is a multiple of the model's
 * block_rows, 0 for the beginning. */
int32_t demos_client_sample(demos_client *client, uint64_t seed, uint64_t first_row, size_t n,
                            const double *params /* [p] */, double *x /* [n][d] */, demos_error *error);
/* The forward map at m points. */
int32_t demos_client_evaluate(demos_client *client, size_t m, const double *params /* [m][p] */,
                              double *out /* [m][q] */, demos_error *error);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* DEMOS_H */
