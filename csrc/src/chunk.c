/* What a worker makes of a chunk: its arrays are looked at before any of them is believed. */
#include "chunk.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

/* ---- What a chunk asks for ------------------------------------------------------------------------------------- */

/* A chunk, looked at: as many of each as its arrays say. */
typedef struct task {
    const demos_header *header;
    const double *x, *params;
    size_t n, points, stride;
} task;

static int is_matrix(const demos_array *array, uint64_t columns) {
    return array->dtype == DEMOS_FLOAT64 && array->n_dims == 2 && array->shape[1] == columns;
}

static int32_t mistake(const demos_header *header, demos_error *error) {
    return demos_fail(error, DEMOS_INVALID_INPUT, "a chunk of operation %d whose arrays do not suit it",
                      header->operation);
}

/* Rows and the params of each, or of all. */
static int32_t read_rows(const demos_served *w, const demos_frame *chunk, task *t, demos_error *error) {
    const demos_array *arrays = chunk->layout.arrays;
    if (chunk->layout.n_arrays != 2 || !is_matrix(&arrays[0], w->config->d)) {
        return mistake(&chunk->header, error);
    }
    t->n = (size_t)arrays[0].shape[0];
    t->x = demos_frame_data(chunk, 0);
    t->params = demos_frame_data(chunk, 1);
    int is_point = arrays[1].dtype == DEMOS_FLOAT64 && arrays[1].n_dims == 1 && arrays[1].shape[0] == w->config->p;
    if (!is_point && !(is_matrix(&arrays[1], w->config->p) && arrays[1].shape[0] == t->n)) {
        return mistake(&chunk->header, error);
    }
    t->stride = is_point ? 0 : w->config->p;
    return t->n == t->header->n_rows ? DEMOS_OK : mistake(&chunk->header, error);
}

/* Rows, and points that are all to be combined with them. */
static int32_t read_cells(const demos_served *w, const demos_frame *chunk, task *t, demos_error *error) {
    const demos_array *arrays = chunk->layout.arrays;
    if (chunk->layout.n_arrays != 2 || !is_matrix(&arrays[0], w->config->d) || !is_matrix(&arrays[1], w->config->p)) {
        return mistake(&chunk->header, error);
    }
    t->n = (size_t)arrays[0].shape[0];
    t->points = (size_t)arrays[1].shape[0];
    t->x = demos_frame_data(chunk, 0);
    t->params = demos_frame_data(chunk, 1);
    uint64_t blocks = t->n / w->config->block_rows + (t->n % w->config->block_rows != 0), cells;
    /* Points of no parameters take no bytes, however many they are. */
    int suits = !__builtin_mul_overflow(blocks, (uint64_t)t->points, &cells) && cells == t->header->n_rows && cells > 0;
    return suits ? DEMOS_OK : mistake(&chunk->header, error);
}

/* One array of points. */
static int32_t read_points(const demos_served *w, const demos_frame *chunk, task *t, demos_error *error) {
    const demos_array *array = chunk->layout.arrays;
    int is_one = t->header->operation == DEMOS_SAMPLE;
    int suits = chunk->layout.n_arrays == 1 &&
                (is_one ? array->dtype == DEMOS_FLOAT64 && array->n_dims == 1 && array->shape[0] == w->config->p
                        : is_matrix(array, w->config->p) && array->shape[0] == t->header->n_rows);
    if (!suits) {
        return mistake(&chunk->header, error);
    }
    t->n = (size_t)t->header->n_rows;
    t->params = demos_frame_data(chunk, 0);
    return DEMOS_OK;
}

/* ---- Computing it ----------------------------------------------------------------------------------------------- */

demos_header demos_answer_to(const demos_header *chunk) {
    demos_header header = *chunk;
    header.kind = DEMOS_RESULT;
    header.status = DEMOS_OK;
    header.deadline_ms = 0;
    header.seed = 0;
    return header;
}

static int32_t make_answer(demos_served *w, const task *t, uint32_t n_arrays, size_t width, demos_frame **result,
                           demos_error *error) {
    demos_header header = demos_answer_to(t->header);
    uint64_t n = t->header->n_rows;
    int has_value = t->header->operation != DEMOS_SAMPLE && t->header->operation != DEMOS_EVALUATE;
    demos_array first =
        has_value ? demos_describe_vector(DEMOS_FLOAT64, n) : demos_describe_matrix(DEMOS_FLOAT64, n, width);
    demos_array arrays[] = {first, demos_describe_matrix(DEMOS_FLOAT64, n, width)};
    return demos_frame_make(w->frames, &header, arrays, n_arrays, result, error);
}

/* Rows that depend on one another are called block by block, others all at once. */
static int32_t call_rows(demos_served *w, const task *t, int is_gradient, size_t width, double *value, double *gradient,
                         demos_error *error) {
    size_t step = (w->config->flags & DEMOS_ROWS_DEPEND) != 0 ? w->config->block_rows : t->n;
    int32_t status = DEMOS_OK;
    for (size_t first = 0; first < t->n && status == DEMOS_OK; first += step) {
        size_t n = t->n - first < step ? t->n - first : step;
        const double *x = t->x + first * w->config->d, *params = t->params + first * t->stride;
        double *to = value + first, *slope = gradient == NULL ? NULL : gradient + first * width;
        if (!is_gradient) {
            status = demos_call_log_density(w->caller, n, x, params, t->stride, to, error);
        } else if ((t->header->flags & DEMOS_WRT_X) != 0) {
            status = demos_call_log_density_gradient_x(w->caller, n, x, params, t->stride, to, slope, error);
        } else {
            status = demos_call_log_density_gradient(w->caller, n, x, params, t->stride, to, slope, error);
        }
    }
    return status;
}

static int32_t compute_rows(demos_served *w, const demos_frame *chunk, task *t, demos_frame **result,
                            demos_error *error) {
    int is_gradient = t->header->operation == DEMOS_LOG_DENSITY_GRADIENT;
    size_t width = (t->header->flags & DEMOS_WRT_X) != 0 ? w->config->d : w->config->p;
    int32_t status = read_rows(w, chunk, t, error);
    if (status == DEMOS_OK) {
        status = make_answer(w, t, 1 + (uint32_t)is_gradient, width, result, error);
    }
    if (status == DEMOS_OK) {
        double *gradient = is_gradient ? demos_frame_data(*result, 1) : NULL;
        status = call_rows(w, t, is_gradient, width, demos_frame_data(*result, 0), gradient, error);
    }
    return status;
}

/* Cells [points][blocks][width] as [blocks][points][width]; both have as many. */
static int32_t transpose(double *cells, size_t points, size_t blocks, size_t width, demos_error *error) {
    size_t bytes = points * blocks * width * sizeof *cells;
    if (points == 1 || blocks == 1 || bytes == 0) {
        return DEMOS_OK;
    }
    double *copy = malloc(bytes);
    if (copy == NULL) {
        return demos_fail(error, DEMOS_TOO_LARGE, "no memory for %zu cells", points * blocks);
    }
    memcpy(copy, cells, bytes);
    for (size_t block = 0; block < blocks; block++) {
        for (size_t point = 0; point < points; point++) {
            memcpy(cells + (block * points + point) * width, copy + (point * blocks + block) * width,
                   width * sizeof *cells);
        }
    }
    free(copy);
    return DEMOS_OK;
}

static int32_t compute_cells(demos_served *w, const demos_frame *chunk, task *t, demos_frame **result,
                             demos_error *error) {
    int is_gradient = t->header->operation == DEMOS_LOG_LIKELIHOOD_GRADIENT;
    if ((t->header->flags & DEMOS_RESIDENT) != 0) {
        return demos_fail(error, DEMOS_NOT_OFFERED, "ranks in C hold no data: send the rows");
    }
    int32_t status = read_cells(w, chunk, t, error);
    if (status == DEMOS_OK) {
        status = make_answer(w, t, 1 + (uint32_t)is_gradient, w->config->p, result, error);
    }
    if (status == DEMOS_OK) {
        double *sum = demos_frame_data(*result, 0), *gradient = is_gradient ? demos_frame_data(*result, 1) : NULL;
        status = demos_call_log_likelihood(w->caller, t->n, t->x, t->points, t->params, w->config->block_rows, sum,
                                           gradient, error);
        size_t blocks = (size_t)t->header->n_rows / t->points;
        int must_turn = (t->header->flags & DEMOS_BLOCK_MAJOR) != 0;
        if (status == DEMOS_OK && must_turn) {
            status = transpose(sum, t->points, blocks, 1, error);
        }
        if (status == DEMOS_OK && must_turn && is_gradient) {
            status = transpose(gradient, t->points, blocks, w->config->p, error);
        }
    }
    return status;
}

static int32_t compute_points(demos_served *w, const demos_frame *chunk, task *t, demos_frame **result,
                              demos_error *error) {
    int is_sample = t->header->operation == DEMOS_SAMPLE;
    int32_t status = read_points(w, chunk, t, error);
    if (status == DEMOS_OK) {
        status = make_answer(w, t, 1, is_sample ? w->config->d : w->config->q, result, error);
    }
    if (status == DEMOS_OK) {
        double *out = demos_frame_data(*result, 0);
        status = is_sample ? demos_call_sample_rows(w->caller, t->header->seed, t->header->first_row, t->n,
                                                    w->config->block_rows, t->params, out, error)
                           : demos_call_evaluate(w->caller, t->n, t->params, out, error);
    }
    return status;
}

int32_t demos_compute(demos_served *w, const demos_frame *chunk, demos_frame **result, demos_error *error) {
    task t = {.header = &chunk->header};
    if (w->caller == NULL) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "this worker has no model");
    }
    if (w->config->chunk_bytes > 0 && chunk->layout.end > w->config->chunk_bytes) {
        return demos_fail(error, DEMOS_TOO_LARGE,
                          "a chunk of %llu bytes; the \"limits\" of this model's description allow %llu",
                          (unsigned long long)chunk->layout.end, (unsigned long long)w->config->chunk_bytes);
    }
    switch (chunk->header.operation) {
    case DEMOS_LOG_DENSITY:
    case DEMOS_LOG_DENSITY_GRADIENT:
        return compute_rows(w, chunk, &t, result, error);
    case DEMOS_LOG_LIKELIHOOD:
    case DEMOS_LOG_LIKELIHOOD_GRADIENT:
        return compute_cells(w, chunk, &t, result, error);
    case DEMOS_SAMPLE:
    case DEMOS_EVALUATE:
        return compute_points(w, chunk, &t, result, error);
    default:
        return demos_fail(error, DEMOS_NOT_OFFERED, "ranks in C do not know the operation %d", chunk->header.operation);
    }
}
