/* Sums: exact where they can be; that the bits are NumPy's, tests/test_native_core.py holds. */
#include "check.h"
#include "sums.h"

enum { N = 3000 };

int main(void) {
    double values[N], sums[2 * N];
    for (size_t width = 1; width <= 3; width++) {
        for (size_t block_rows = 1; block_rows < 300; block_rows += 7) {
            size_t n = N / width;
            for (size_t i = 0; i < N; i++) {
                values[i] = (double)i;
            }
            demos_sum_blocks(values, n, width, block_rows, sums);
            size_t blocks = (n + block_rows - 1) / block_rows;
            for (size_t block = 0; block < blocks; block++) {
                for (size_t column = 0; column < width; column++) {
                    double sum = 0;
                    for (size_t row = block * block_rows; row < n && row < (block + 1) * block_rows; row++) {
                        sum += values[row * width + column];
                    }
                    CHECK_EQUAL(sums[block * width + column], sum);
                }
            }
            double total[3], all = 0;
            demos_sum_pairwise(sums, blocks, width, total);
            for (size_t column = 0; column < width; column++) {
                all += total[column];
            }
            CHECK_EQUAL(all, (double)(n * width) * (double)(n * width - 1) / 2);
        }
    }
    double nothing = 1;
    demos_sum_pairwise(NULL, 0, 1, &nothing);
    CHECK_EQUAL(nothing, 0);
    return check_failures != 0;
}
