/* Large requests of a client travel in parts, and sums of likelihoods come in cells; the test plays the dispatcher. */
#include <math.h>

#include "played_client.h"
#include "sums.h"

enum { WINDOW = 16 << 20, MOST_PARTS = 64 };

/* Where the rows of the parts that have come begin, and how many they are. */
typedef struct parts {
    uint64_t id, total, rows, first[MOST_PARTS], count[MOST_PARTS];
    size_t n;
} parts;

/* Takes the next part, and looks at its rows. */
static void take_part(parts *p, uint8_t operation, const double *x, size_t width, const double *params) {
    demos_frame *frame = expect(p->n == 0 ? DEMOS_REQUEST : DEMOS_ROWS, operation);
    const demos_header *h = &frame->header;
    uint64_t count = frame->layout.arrays[0].shape[0];
    if (p->n == 0) {
        p->id = h->id;
        p->total = h->n_rows;
    }
    CHECK(h->id == p->id && p->n < MOST_PARTS && (p->n == 0 || (h->first_row == p->rows && h->n_rows == count)));
    CHECK(count % BLOCK == 0 || p->rows + count == p->total);
    CHECK(frame->layout.end < PART_BYTES + 1024);
    CHECK(memcmp(doubles(frame, 0), x + p->rows * width, count * width * sizeof *x) == 0);
    if (params != NULL) {
        CHECK(frame->layout.sizes[1] == count * P * sizeof *x &&
              memcmp(doubles(frame, 1), params + p->rows * P, count * P * sizeof *x) == 0);
    } else {
        CHECK(frame->layout.n_arrays <= 2 - (p->n > 0));
    }
    p->first[p->n] = p->rows;
    p->count[p->n++] = count;
    p->rows += count;
    give(server, frame);
}

/* Answers rows of parts by their first observable. */
static void answer_part(const parts *p, size_t nth, int is_last, const double *x) {
    double *values = malloc(p->count[nth] * sizeof *values);
    for (uint64_t i = 0; i < p->count[nth]; i++) {
        values[i] = x[(p->first[nth] + i) * D];
    }
    reply_vector(p->id, is_last ? DEMOS_FINAL : 0, p->first[nth], p->count[nth], values);
    free(values);
}

static void check_parts(int per_row) {
    enum { N = 1500000 };
    demos_client *client = begin();
    double *x = make_numbers((size_t)N * D), *params = make_numbers((size_t)N * P), *value = malloc(N * sizeof *value);
    size_t row = (D + (per_row ? P : 0)) * sizeof *x, answered = 0;
    parts p = {0};
    call c = {.client = client, .n = N, .x = x, .params = params, .stride = per_row ? P : 0, .value = value};
    start(&c, ask_density);
    while (answered < p.n || p.rows == 0 || p.rows < p.total) {
        uint64_t unanswered = 0;
        for (size_t i = answered; i < p.n; i++) {
            unanswered += p.count[i] * row;
        }
        if (unanswered < WINDOW && (p.rows == 0 || p.rows < p.total)) {
            take_part(&p, DEMOS_LOG_DENSITY, x, D, per_row ? params : NULL);
            continue;
        }
        expect_nothing(); /* the window is full */
        /* All that have come, from the last one on. */
        size_t n = p.n;
        for (size_t i = n; i-- > answered;) {
            answer_part(&p, i, p.rows == p.total && i == answered, x);
        }
        answered = n;
    }
    demos_link_flush(server, PATIENCE);
    CHECK(finish(&c) == DEMOS_OK);
    int is_so = 1;
    for (size_t i = 0; i < N; i++) {
        is_so &= value[i] == x[i * D];
    }
    CHECK(is_so && p.rows == N && p.n > 4);
    free(x);
    free(params);
    free(value);
    end(client);
}

/* A failure stops what is still to be sent. */
static void check_failure(void) {
    enum { N = 2000000 };
    demos_client *client = begin();
    double *x = make_numbers((size_t)N * D), *value = malloc(N * sizeof *value);
    parts p = {0};
    call c = {.client = client, .n = N, .x = x, .value = value};
    start(&c, ask_density);
    take_part(&p, DEMOS_LOG_DENSITY, x, D, NULL);
    refuse(p.id, DEMOS_MODEL_FAILED, "{\"message\": \"no\"}");
    CHECK(finish(&c) == DEMOS_MODEL_FAILED);
    demos_frame *frame;
    while (server->kind->receive(server, &frame, NULL) == DEMOS_OK && frame != NULL) {
        CHECK(frame->header.kind == DEMOS_ROWS && frame->header.id == p.id);
        give(server, frame);
        p.n++;
    }
    CHECK(p.n < 7);
    free(x);
    free(value);
    end(client);
}

/* Points of a map, which travel in parts as well. */
static void check_points(void) {
    enum { N = 600000 };
    demos_client *client = begin();
    double *params = make_numbers((size_t)N * P), *out = calloc(N, Q * sizeof *out);
    parts p = {0};
    call c = {.client = client, .n = N, .params = params, .value = out};
    start(&c, ask_points);
    while (p.rows == 0 || p.rows < p.total) {
        take_part(&p, DEMOS_EVALUATE, params, P, NULL);
    }
    double *mapped = make_numbers((size_t)N * Q);
    for (size_t i = 0; i < p.n; i++) {
        reply(p.id, i + 1 == p.n ? DEMOS_FINAL : 0, p.first[i], p.count[i], 1, (const uint64_t[]){Q},
              (const double *const[]){mapped + p.first[i] * Q});
    }
    demos_link_flush(server, PATIENCE);
    CHECK(finish(&c) == DEMOS_OK && memcmp(out, mapped, (size_t)N * Q * sizeof *out) == 0);
    free(params);
    free(out);
    free(mapped);
    end(client);
}

static void check_cells(size_t k, int is_gradient) {
    enum { N = 700001, BLOCKS = (N + BLOCK - 1) / BLOCK, MOST = 3 };
    demos_client *client = begin();
    double *x = make_numbers((size_t)N * D), *params = make_numbers(MOST * P);
    size_t points = k == 0 ? 1 : k, n_cells = BLOCKS * points;
    double *cells = make_numbers(n_cells * (1 + P)), *slopes = cells + n_cells;
    double value[MOST], gradient[MOST * P], sum[MOST], slope[MOST * P];
    parts p = {0};
    call c = {.client = client,
              .n = N,
              .x = x,
              .k = points,
              .params = k == 0 ? NULL : params,
              .value = value,
              .gradient = is_gradient ? gradient : NULL};
    uint8_t operation = is_gradient ? DEMOS_LOG_LIKELIHOOD_GRADIENT : DEMOS_LOG_LIKELIHOOD;
    start(&c, ask_likelihood);
    while (p.rows == 0 || p.rows < p.total) {
        take_part(&p, operation, x, D, NULL);
    }
    slopes[0] = 1e300; /* whose bits would tell of another order */
    slopes[n_cells] = -1e300;
    /* In runs of blocks, the last ones first. */
    const size_t step = 1000 * points;
    for (size_t first = (n_cells - 1) / step * step;; first -= step) {
        size_t count = n_cells - first < step ? n_cells - first : step;
        reply(p.id, first == 0 ? DEMOS_FINAL : 0, first, count, is_gradient ? 2 : 1, (const uint64_t[]){0, P},
              (const double *const[]){cells + first, slopes + first * P});
        if (first == 0) {
            break;
        }
    }
    demos_link_flush(server, PATIENCE);
    CHECK(finish(&c) == DEMOS_OK);
    demos_sum_pairwise(cells, BLOCKS, points, sum);
    demos_sum_pairwise(slopes, BLOCKS, points * P, slope);
    CHECK(memcmp(value, sum, points * sizeof *sum) == 0);
    CHECK(!is_gradient || memcmp(gradient, slope, points * P * sizeof *slope) == 0);
    free(x);
    free(params);
    free(cells);
    end(client);
}

int main(void) {
    check_parts(0);
    check_parts(1);
    check_failure();
    check_points();
    check_cells(0, 0);
    check_cells(1, 1);
    check_cells(3, 0);
    check_cells(3, 1);
    return check_failures != 0;
}
