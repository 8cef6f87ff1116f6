/* A worker: computes chunks of a model's rows, and answers each exactly once; the twin of demos_hpc/worker.py. */
#ifndef DEMOS_WORKER_H
#define DEMOS_WORKER_H

#include "link.h"
#include "log.h"

/* How a worker is called, and what it does beside its chunks. */
typedef struct demos_duty {
    const char *name; /* "rank 3 on node7" */
    const char *spec; /* the file that describes the model, its text; NULL for none */
    double heartbeat; /* seconds between two signs of life; 0 = none are wanted */
    int32_t leash;    /* a socket whose end is that of the service as well; 0 for none */
} demos_duty;

#pragma GCC visibility push(default)
/* Offers the model over the link, or says why it cannot be served, and computes until the service is over. */
int32_t demos_work(demos_link *link, const demos_model *model, const demos_duty *duty, demos_error *error);
#pragma GCC visibility pop

#endif
