/* Streams: the words of WIRE.md, normal numbers, and the stream of a thread. */
#include <math.h>
#include <pthread.h>

#include "check.h"
#include "demos.h"

static void check_words(void) {
    static const struct {
        uint64_t seed, block, first, fifth;
        double uniform;
    } rows[] = {
        {0, 0, 0x02f4ba6408e4d89b, 0x809bf322883987c3, 0.011546754286331562},
        {0, 1, 0x57994a7db8f816c6, 0x112b8292d15ccec8, 0.34218278474233466},
        {42, 0, 0xd1f8817d4d62880e, 0x5e3daa8961c3e3d3, 0.8201981478608876},
        {UINT64_MAX, 4294967301, 0x065ed295f41ce323, 0x2e95402ac99a15db, 0.02488437806106303},
        {1311768467463790320, UINT64_MAX, 0x883cf6ee0e4bde9b, 0x8abaf335db19a914, 0.5321802455130603},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        demos_stream stream;
        demos_stream_set(&stream, rows[i].seed, rows[i].block);
        CHECK(demos_stream_bits(&stream) == rows[i].first);
        for (int skipped = 0; skipped < 3; skipped++) {
            demos_stream_bits(&stream);
        }
        CHECK(demos_stream_bits(&stream) == rows[i].fifth);
        demos_stream_set(&stream, rows[i].seed, rows[i].block);
        CHECK_EQUAL(demos_stream_uniform(&stream), rows[i].uniform);
    }
}

static void check_normals(void) {
    enum { N = 1000000 };
    double sums[5] = {0};
    int beyond = 0;
    demos_stream stream;
    demos_stream_set(&stream, 1, 2);
    for (int i = 0; i < N; i++) {
        double x = demos_stream_normal(&stream), power = 1;
        for (int k = 1; k <= 4; k++) {
            sums[k] += power *= x;
        }
        beyond += fabs(x) > 3.6541528853610088; /* the tail, a branch of its own */
    }
    /* Five standard errors of each moment. */
    CHECK(fabs(sums[1] / N) < 5 * sqrt(1.0 / N));
    CHECK(fabs(sums[2] / N - 1) < 5 * sqrt(2.0 / N));
    CHECK(fabs(sums[3] / N) < 5 * sqrt(15.0 / N));
    CHECK(fabs(sums[4] / N - 3) < 5 * sqrt(96.0 / N));
    CHECK(fabs(beyond - N * 2.5803e-4) < 5 * sqrt(N * 2.5803e-4));
}

static void *draw_without_a_stream(void *argument) {
    *(double *)argument = demos_uniform();
    return NULL;
}

static void check_current(void) {
    CHECK(isnan(demos_uniform()));
    CHECK(isnan(demos_normal()));
    demos_stream stream, same;
    demos_stream_set(&stream, 3, 0);
    demos_stream_set(&same, 3, 0);
    CHECK(demos_use_stream(&stream) == NULL);
    CHECK_EQUAL(demos_uniform(), demos_stream_uniform(&same));
    CHECK_EQUAL(demos_normal(), demos_stream_normal(&same));
    double other = 0;
    pthread_t thread;
    pthread_create(&thread, NULL, draw_without_a_stream, &other);
    pthread_join(thread, NULL);
    CHECK(isnan(other));
    CHECK(demos_use_stream(NULL) == &stream);
}

int main(void) {
    check_words();
    check_normals();
    check_current();
    return check_failures != 0;
}
