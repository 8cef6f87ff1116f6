/* examples/gaussian.c as ranks of a launch; rows of 77, 78 and 79 end them in ways that models of others know. */
#include <stdio.h>
#include <stdlib.h>

#include <demos_mpi.h>

static int32_t (*evaluate_rows)(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                                size_t params_stride, double *value, demos_error *error);

static size_t fill_stack(size_t n) {
    volatile char room[1 << 16];
    room[n % sizeof room] = (char)n;
    return n == 0 ? (size_t)room[0] : fill_stack(n - 1) + (size_t)room[0];
}

static int32_t log_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                           size_t params_stride, double *value, demos_error *error) {
    if (n > 0 && x[0] == 77) {
        printf("no table\n");
        exit(3);
    } else if (n > 0 && x[0] == 78) {
        abort();
    } else if (n > 0 && x[0] == 79) {
        value[0] = (double)fill_stack(1 << 20);
    }
    return evaluate_rows(user, n, d, p, x, params, params_stride, value, error);
}

int main(int argc, char **argv) {
    demos_model model = {.size = sizeof model, .major = DEMOS_ABI_MAJOR, .minor = DEMOS_ABI_MINOR};
    demos_error error = {0};
    if (demos_init_model(demos_model_init, argc > 1 ? argv[1] : "{}", &model, &error) != DEMOS_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    evaluate_rows = model.log_density;
    model.log_density = log_density;
    int32_t status = demos_mpi_serve(&model, NULL, &error);
    if (status != DEMOS_OK) {
        fprintf(stderr, "%s\n", error.message);
    }
    demos_end_model(&model);
    return status != DEMOS_OK;
}
