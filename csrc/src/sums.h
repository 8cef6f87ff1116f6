/* Sums whose bits are those of NumPy's, so that a likelihood does not depend on the language of its workers. */
#ifndef DEMOS_SUMS_H
#define DEMOS_SUMS_H

#include <stddef.h>

#pragma GCC visibility push(default)
/* numpy.sum() of n numbers, `stride` numbers apart; n > 0. */
double demos_sum(const double *values, size_t n, size_t stride);
/* blocks.sum_blocks(): sums over runs of block_rows rows of values [n][width] to sums [ceil(n / block_rows)][width]. */
void demos_sum_blocks(const double *values, size_t n, size_t width, size_t block_rows, double *sums);
/* blocks.sum_pairwise(): adds partials [n][width] in place, as a tree that depends on n alone, to total [width]. */
void demos_sum_pairwise(double *partials, size_t n, size_t width, double *total);
#pragma GCC visibility pop

#endif
