/* Threads that share the rows of a call. */
#define _POSIX_C_SOURCE 200809L
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "guard.h"

/* Of each thread: codes in Fortran have large arrays there, the default may be 2 MiB, what is unused costs nothing. */
#define STACK_BYTES ((size_t)64 << 20)

typedef struct helper {
    demos_pool *pool;
    int32_t who;
    pthread_t thread;
    char handler_stack[DEMOS_HANDLER_BYTES];
} helper;

struct demos_pool {
    pthread_mutex_t lock;
    pthread_cond_t begun, ended;
    /* Under the lock: */
    uint64_t turn; /* calls so far */
    int32_t n_busy;
    int is_over;
    int32_t status; /* of the first slice that failed, which began at: */
    size_t failed_at;
    demos_error failure;
    /* Set before a turn begins: */
    demos_work work;
    void *job;
    size_t end, slice;
    atomic_size_t next; /* the first item that nobody has taken */

    int32_t n_helpers;
    helper helpers[];
};

static void take_slices(demos_pool *pool, int32_t who) {
    demos_error error;
    for (;;) {
        size_t first = atomic_fetch_add(&pool->next, pool->slice);
        if (first >= pool->end) {
            return;
        }
        size_t count = pool->end - first < pool->slice ? pool->end - first : pool->slice;
        error.message[0] = '\0';
        int32_t status = pool->work(pool->job, first, count, who, &error);
        if (status != DEMOS_OK) {
            /* Nothing further is begun; what came before has been taken, so the first failure is found for sure. */
            atomic_store(&pool->next, pool->end);
            pthread_mutex_lock(&pool->lock);
            if (pool->status == DEMOS_OK || first < pool->failed_at) {
                pool->status = status;
                pool->failed_at = first;
                pool->failure = error;
            }
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static void *help(void *argument) {
    helper *self = argument;
    demos_pool *pool = self->pool;
    uint64_t turn = 0;
    demos_take_stack(self->handler_stack);
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        while (pool->turn == turn && !pool->is_over) {
            pthread_cond_wait(&pool->begun, &pool->lock);
        }
        int is_over = pool->is_over;
        turn = pool->turn;
        pthread_mutex_unlock(&pool->lock);
        if (is_over) {
            return NULL;
        }
        take_slices(pool, self->who);
        pthread_mutex_lock(&pool->lock);
        if (--pool->n_busy == 0) {
            pthread_cond_signal(&pool->ended);
        }
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Starts a thread that leaves signals to the others, but for those that its own faults raise. */
static int start(helper *self) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t left, before;
    sigfillset(&left);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        sigdelset(&left, faults[i]);
    }
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed == 0) {
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        pthread_sigmask(SIG_SETMASK, &left, &before);
        failed = pthread_create(&self->thread, &attributes, help, self);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&attributes);
    }
    return failed;
}

int32_t demos_pool_open(int32_t n_threads, demos_pool **pool, demos_error *error) {
    size_t n_helpers = n_threads > 1 ? (size_t)n_threads - 1 : 0;
    demos_pool *made = calloc(1, sizeof *made + n_helpers * sizeof made->helpers[0]);
    if (made == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for %d threads", (int)n_threads);
    }
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->begun, NULL);
    pthread_cond_init(&made->ended, NULL);
    for (size_t i = 0; i < n_helpers; i++) {
        made->helpers[i] = (helper){.pool = made, .who = (int32_t)i + 1};
        int failed = start(&made->helpers[i]);
        if (failed != 0) {
            demos_pool_close(made);
            return demos_fail(error, DEMOS_INTERNAL, "thread %zu of %d cannot be started: %s", i + 2, (int)n_threads,
                              failed == EAGAIN ? "the system allows no more" : "no memory for its stack");
        }
        made->n_helpers++;
    }
    *pool = made;
    return DEMOS_OK;
}

void demos_pool_close(demos_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->is_over = 1;
    pthread_cond_broadcast(&pool->begun);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->n_helpers; i++) {
        pthread_join(pool->helpers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->ended);
    pthread_cond_destroy(&pool->begun);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int32_t demos_pool_run(demos_pool *pool, demos_work work, void *job, size_t first, size_t end, size_t slice,
                       demos_error *error) {
    pool->work = work;
    pool->job = job;
    pool->end = end;
    pool->slice = slice;
    pool->status = DEMOS_OK;
    atomic_store(&pool->next, first);
    pthread_mutex_lock(&pool->lock);
    pool->n_busy = pool->n_helpers;
    pool->turn++;
    pthread_cond_broadcast(&pool->begun);
    pthread_mutex_unlock(&pool->lock);

    take_slices(pool, 0);

    pthread_mutex_lock(&pool->lock);
    while (pool->n_busy > 0) {
        pthread_cond_wait(&pool->ended, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    if (pool->status != DEMOS_OK) {
        *error = pool->failure;
    }
    return pool->status;
}
