/*
 * The interface of models as version 1.0 had it. It is never edited: plug-ins that were built with it have to be served
 * for as long as the major version is 1, which tests/test_native_versions.py holds.
 */
#ifndef DEMOS_1_0_H
#define DEMOS_1_0_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum demos_status_1_0 { DEMOS_OK = 0, DEMOS_INVALID_INPUT = 1, DEMOS_NOT_OFFERED = 2, DEMOS_MODEL_FAILED = 3 };

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
    /* n draws from P at one point, all randomness from `stream`. Called for a block of rows, in order. */
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

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
