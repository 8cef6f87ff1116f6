/*
 * NumPy adds float64 along a contiguous axis pairwise: halves down to 128 numbers, and those in eight running sums. The
 * order of additions is all that counts for the last bit, so it is written here once more; the compiler may not change
 * it (no -ffast-math).
 */
#include "sums.h"

#include <string.h>

enum { SHORTEST = 8, LONGEST_RUN = 128 };

static double add_pairwise(const double *values, size_t n, size_t stride) {
    if (n < SHORTEST) {
        double sum = -0.0; /* what adds to nothing, not even to -0.0 */
        for (size_t i = 0; i < n; i++) {
            sum += values[i * stride];
        }
        return sum;
    }
    if (n > LONGEST_RUN) {
        size_t half = n / 2;
        half -= half % SHORTEST;
        return add_pairwise(values, half, stride) + add_pairwise(values + half * stride, n - half, stride);
    }
    double r[SHORTEST];
    for (size_t k = 0; k < SHORTEST; k++) {
        r[k] = values[k * stride];
    }
    size_t i = SHORTEST;
    for (; i < n - n % SHORTEST; i += SHORTEST) {
        for (size_t k = 0; k < SHORTEST; k++) {
            r[k] += values[(i + k) * stride];
        }
    }
    double sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    for (; i < n; i++) {
        sum += values[i * stride];
    }
    return sum;
}

double demos_sum(const double *values, size_t n, size_t stride) {
    return 0.0 + add_pairwise(values, n, stride); /* NumPy begins with 0: a sum is never -0.0 */
}

void demos_sum_blocks(const double *values, size_t n, size_t width, size_t block_rows, double *sums) {
    for (size_t first = 0; first < n; first += block_rows) {
        size_t count = n - first < block_rows ? n - first : block_rows;
        for (size_t column = 0; column < width; column++) {
            *sums++ = demos_sum(values + first * width + column, count, width);
        }
    }
}

void demos_sum_pairwise(double *partials, size_t n, size_t width, double *total) {
    if (n == 0) {
        memset(total, 0, width * sizeof *total);
        return;
    }
    for (; n > 1; n = n / 2 + n % 2) {
        for (size_t pair = 0; pair < n / 2; pair++) {
            for (size_t column = 0; column < width; column++) {
                partials[pair * width + column] =
                    partials[2 * pair * width + column] + partials[(2 * pair + 1) * width + column];
            }
        }
        if (n % 2 == 1) {
            memmove(partials + n / 2 * width, partials + (n - 1) * width, width * sizeof *partials);
        }
    }
    memcpy(total, partials, width * sizeof *total);
}
