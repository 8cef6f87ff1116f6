/* Threads that share the rows of a call: as many as wanted, asleep between calls. */
#ifndef DEMOS_POOL_H
#define DEMOS_POOL_H

#include "demos.h"

typedef struct demos_pool demos_pool;

/* Computes items first to first + count of a job, as thread `who`, 0 being the one that called. */
typedef int32_t (*demos_work)(void *job, size_t first, size_t count, int32_t who, demos_error *error);

int32_t demos_pool_open(int32_t n_threads, demos_pool **pool, demos_error *error);
void demos_pool_close(demos_pool *pool);
/* Computes items first to end in slices, by whichever thread is free. Where some fail, the failure is that of the first
 * of them, however many threads there are. */
int32_t demos_pool_run(demos_pool *pool, demos_work work, void *job, size_t first, size_t end, size_t slice,
                       demos_error *error);

#endif
