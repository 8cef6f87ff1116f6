/* The model of native.c as a rank of its own. */
#include <demos_mpi.h>
#include <stdio.h>

double wave_log_density(const double *x, const double *params);

static const demos_functions functions = {
    .size = sizeof functions, .flags = DEMOS_THREAD_SAFE, .log_density = wave_log_density};

int main(void) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR, .minor = DEMOS_ABI_MINOR};
    demos_error error = {0};
    if (demos_adapt(&functions, &model, &error) != DEMOS_OK || demos_mpi_serve(&model, NULL, &error) != DEMOS_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    return 0;
}
