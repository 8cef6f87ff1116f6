/* The model as a program of its own: a rank of an MPI launch, or a worker that joins a server. */
#include <demos_mpi.h>
#include <stdio.h>

double NAME_log_density(const double *x, const double *params);
void NAME_sample(double *x, const double *params);

static const demos_functions functions = {
    .size = sizeof functions, .log_density = NAME_log_density, .sample = NAME_sample};

int main(void) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR, .minor = DEMOS_ABI_MINOR};
    demos_error error = {0};
    if (demos_adapt(&functions, &model, &error) != DEMOS_OK || demos_mpi_serve(&model, NULL, &error) != DEMOS_OK) {
        fprintf(stderr, "NAME: %s\n", error.message);
        return 1;
    }
    return 0;
}
