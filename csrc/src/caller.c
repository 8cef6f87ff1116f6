/*
 * Who calls a model: in slices of its rows, handed out one by one to whichever thread is free, as long as they are
 * worth the waking of a thread, which is measured.
 */
#define _POSIX_C_SOURCE 200809L
#include "caller.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "error.h"

enum { MOST_THREADS = 1024, SLICES_A_THREAD = 32 };
/* Nanoseconds: of work that is shared at least, and of a slice of it. */
static const double LEAST_SHARED = 40e3, LEAST_SLICE = 20e3;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* ---- Opening and closing ---------------------------------------------------------------------------------------- */

static int32_t make_users(demos_caller *caller, demos_error *error) {
    const demos_model *model = &caller->model;
    demos_error own;
    error = error == NULL ? &own : error;
    caller->users[0] = model->user;
    for (int32_t who = 1; who < caller->n_threads; who++) {
        caller->users[who] = model->user;
        if ((model->flags & DEMOS_THREAD_SAFE) == 0) {
            error->message[0] = '\0';
            void *user = NULL;
            int32_t status = demos_settle(error, model->create(model, &user, error), "create");
            if (status != DEMOS_OK) {
                return status;
            }
            caller->users[who] = user;
        }
    }
    return DEMOS_OK;
}

int32_t demos_caller_open(const demos_model *model, size_t d, size_t p, size_t q, int32_t threads,
                          demos_caller **caller, demos_error *error) {
    if (threads < 1 || threads > MOST_THREADS) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "threads is %d; it is 1 to %d", (int)threads, MOST_THREADS);
    }
    if ((model->flags & (DEMOS_THREAD_SAFE | DEMOS_REENTRANT)) == 0) {
        threads = 1;
    }
    demos_caller *made = calloc(1, sizeof *made);
    void **users = calloc((size_t)threads, sizeof *users);
    if (made == NULL || users == NULL) {
        free(made);
        free(users);
        return demos_fail(error, DEMOS_INTERNAL, "no memory to call a model");
    }
    *made = (demos_caller){.model = *model, .d = d, .p = p, .q = q, .n_threads = threads, .users = users};
    int32_t status = make_users(made, error);
    if (status == DEMOS_OK && threads > 1) {
        status = demos_pool_open(threads, &made->pool, error);
    }
    if (status != DEMOS_OK) {
        demos_caller_close(made);
        return status;
    }
    *caller = made;
    return DEMOS_OK;
}

void demos_caller_close(demos_caller *caller) {
    if (caller == NULL) {
        return;
    }
    if (caller->pool != NULL) {
        demos_pool_close(caller->pool);
    }
    for (int32_t who = 1; who < caller->n_threads; who++) {
        void *user = caller->users[who];
        if (user != NULL && user != caller->model.user && caller->model.destroy != NULL) {
            caller->model.destroy(user);
        }
    }
    free(caller->users);
    free(caller);
}

int32_t demos_caller_threads(const demos_caller *caller) { return caller->n_threads; }

/* ---- Sharing ---------------------------------------------------------------------------------------------------- */

int32_t demos_run_job(demos_caller *caller, demos_work work, demos_job *job, size_t n, int may_share,
                      demos_error *error) {
    demos_error own; /* functions of models always get one */
    error = error == NULL ? &own : error;
    error->message[0] = '\0';
    if (n == 0) {
        return DEMOS_OK;
    }
    if (caller->pool == NULL || !may_share) {
        return work(job, 0, n, 0, error);
    }
    size_t first = 0;
    double *cost = &caller->costs[job->kind], n_shared = 1, begin = now();
    int32_t status = DEMOS_OK;
    if (*cost == 0) { /* one item, to know what it costs, and then the others */
        status = work(job, first++, 1, 0, error);
        *cost = now() - begin + 1;
        if (status != DEMOS_OK || n == 1) {
            return status;
        }
        begin = now();
    }
    double rest = (double)(n - first);
    if (rest * *cost < LEAST_SHARED) {
        status = work(job, first, n - first, 0, error);
    } else {
        double slice = rest / (SLICES_A_THREAD * (double)caller->n_threads), least = LEAST_SLICE / *cost;
        slice = ceil(slice > least ? slice : least);
        n_shared = caller->n_threads;
        status = demos_pool_run(caller->pool, work, job, first, n, slice < rest ? (size_t)slice : n - first, error);
    }
    *cost = 0.5 * (*cost + (now() - begin + 1) * n_shared / rest);
    return status;
}
