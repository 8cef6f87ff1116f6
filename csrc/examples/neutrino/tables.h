/* What is computed once for a point and then asked for by each of its rows, from all threads. */
#ifndef NEUTRINO_TABLES_H
#define NEUTRINO_TABLES_H

#include <pthread.h>

#include "response.h"

/* A point's table. Whoever has one may read it until it is given back. */
typedef struct table {
    nodes fields[N_FIELDS];                    /* rates and their derivatives */
    double cumulative[N_ENERGIES * N_ZENITHS]; /* sums of the rates, for draws */
    expansion density;
    /* Of the tables. */
    double params[N_PARAMS];
    int has_gradient, is_ready;
    size_t users, last_use;
    struct table *next;
} table;

/*
 * One cache for all threads, under a lock, and no cache for each of them, though DEMOS_REENTRANT would save the lock:
 * threads get slices of the rows of one point, so that with caches of their own each would compute the same table at
 * the same time, which keeps as many cores busy for one millisecond as there are threads, and fills their caches with
 * copies. Here the first one computes, and the others wait, or take other points; the lock is held for a look.
 */
typedef struct tables {
    pthread_mutex_t lock;
    pthread_cond_t ready;
    table *first;
    size_t n, clock;
    rates rates;
    response response;
} tables;

/* NULL where there is no memory. */
tables *tables_open(void);
void tables_close(tables *all);
/* The table of a point that is inside of its bounds, with derivatives if wanted. NULL where there is no memory. */
const table *tables_take(tables *all, const double *params, int gradient);
void tables_give_back(tables *all, const table *t);

#endif
