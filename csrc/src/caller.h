/* What a call of a model consists of, and how its items are shared among threads. */
#ifndef DEMOS_CALLER_H
#define DEMOS_CALLER_H

#include "pool.h"

/* What is called; an item of each has a cost of its own. */
typedef enum demos_call_kind {
    DENSITY,
    GRADIENT,
    GRADIENT_X,
    EVALUATE,
    SAMPLE,
    CELL,
    CELL_GRADIENT,
    N_KINDS
} demos_call_kind;

struct demos_caller {
    demos_model model;
    size_t d, p, q;
    int32_t n_threads;
    demos_pool *pool;      /* NULL where there is one thread */
    void **users;          /* one for each thread */
    double costs[N_KINDS]; /* nanoseconds of an item; 0 = not known */
};

/* One call, in whichever threads. */
typedef struct demos_job {
    const demos_caller *caller;
    demos_call_kind kind;
    const double *x, *params;
    size_t params_stride;
    double *value, *gradient, *out;
    /* Of samples: */
    uint64_t seed, first_block;
    /* Of samples and likelihoods: */
    size_t n, block_rows;
    /* Of likelihoods: */
    size_t n_blocks;
    double *scratch; /* [threads][block_rows][1 + p] */
} demos_job;

/* Computes n items of a job; they may be shared among threads where they do not depend on one another. */
int32_t demos_run_job(demos_caller *caller, demos_work work, demos_job *job, size_t n, int may_share,
                      demos_error *error);

#endif
