/* Threads that share items: each is computed once, and of several failures the first item's is told. */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"
#include "pool.h"

enum { N = 100000 };

typedef struct work {
    atomic_uchar *times; /* each item was computed */
    atomic_int calls, failed;
    size_t fails_from;
} work;

static int32_t count(void *job, size_t first, size_t n, int32_t who, demos_error *error) {
    work *w = job;
    (void)who;
    atomic_fetch_add(&w->calls, 1);
    for (size_t i = first; i < first + n; i++) {
        atomic_fetch_add(&w->times[i], 1);
        if (i >= w->fails_from) {
            return demos_fail(error, DEMOS_MODEL_FAILED, "item %zu", i);
        }
    }
    return DEMOS_OK;
}

static void check_shares(int32_t threads) {
    demos_pool *pool;
    demos_error error;
    work w = {.times = calloc(N, sizeof *w.times), .fails_from = N};
    CHECK(demos_pool_open(threads, &pool, &error) == DEMOS_OK);
    size_t slices[] = {1, 7, N, 2 * N};
    for (size_t turn = 0; turn < 4; turn++) {
        CHECK(demos_pool_run(pool, count, &w, turn, N, slices[turn], &error) == DEMOS_OK);
    }
    int is_right = 1;
    for (size_t i = 0; i < N; i++) {
        is_right &= w.times[i] == (i < 4 ? i + 1 : 4);
    }
    CHECK(is_right);
    /* After a failure nothing further is begun. */
    w.calls = 0;
    w.fails_from = 10;
    CHECK(demos_pool_run(pool, count, &w, 0, N, 1, &error) == DEMOS_MODEL_FAILED);
    CHECK(strcmp(error.message, "item 10") == 0);
    CHECK(threads > 1 || w.calls == 11); /* of several, one may be asleep between failing and saying so */
    w.fails_from = N;
    CHECK(demos_pool_run(pool, count, &w, 0, N, 1, &error) == DEMOS_OK);
    demos_pool_close(pool);
    free(w.times);
}

/* The first item fails after the second one has. */
static int32_t fail_late(void *job, size_t first, size_t n, int32_t who, demos_error *error) {
    work *w = job;
    (void)n, (void)who;
    if (first == 0) {
        for (int look = 0; look < 20 || !w->failed; look++) {
            sched_yield();
        }
    }
    w->failed = 1;
    return demos_fail(error, DEMOS_MODEL_FAILED, "item %zu", first);
}

static void check_first_failure(void) {
    demos_pool *pool;
    demos_error error;
    CHECK(demos_pool_open(2, &pool, &error) == DEMOS_OK);
    for (int turn = 0; turn < 200; turn++) {
        work w = {.times = NULL};
        CHECK(demos_pool_run(pool, fail_late, &w, 0, 2, 1, &error) == DEMOS_MODEL_FAILED);
        CHECK(strcmp(error.message, "item 0") == 0);
    }
    demos_pool_close(pool);
}

int main(void) {
    for (int32_t threads = 1; threads <= 4; threads++) {
        check_shares(threads);
    }
    check_first_failure();
    return check_failures != 0;
}
