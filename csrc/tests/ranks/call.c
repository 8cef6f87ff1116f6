/*
 * Calls examples/gaussian.c in all ways, and writes what comes back, so that it can be compared: call FILE [MODEL].
 * Each rank of several writes FILE and its number in the group. `call exit` ends in the middle.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <demos_mpi.h>

enum { N = 1000003, D = 3, P = 2, K = 3 };

static demos_error error;

static void need(int32_t status) {
    if (status != DEMOS_OK) {
        fprintf(stderr, "status %d: %s\n", (int)status, error.message);
        exit(1);
    }
}

static double *take(size_t n) {
    double *numbers = calloc(n, sizeof *numbers);
    if (numbers == NULL) {
        exit(1);
    }
    return numbers;
}

static void put(FILE *file, const double *numbers, size_t n) {
    if (fwrite(numbers, sizeof *numbers, n, file) != n) {
        exit(1);
    }
}

static void call_all(demos_client *model, FILE *file) {
    static const double points[K * P] = {0.3, 1.7, -0.2, 0.9, 5.0, 40.0}, outside[P] = {0.0, -1.0};
    double *x = take(N * D), *params = take(N * P), *value = take(N), *gradient = take(N * D), sums[K], slopes[K * P];
    need(demos_client_sample(model, 5, 0, N, points, x, &error));
    put(file, x, N * D);
    for (size_t i = 0; i < N; i++) {
        params[i * P] = 1e-6 * (double)i;
        params[i * P + 1] = i % 1000 == 7 ? -1.0 : 1.0 + 1e-6 * (double)i; /* some are outside */
    }
    for (size_t n = N; n > 0; n = n == N ? 1000 : n == 1000 ? 1 : 0) {
        need(demos_client_log_density(model, n, x, points, 0, value, &error));
        put(file, value, n);
        need(demos_client_log_density(model, n, x, params, P, value, &error));
        put(file, value, n);
        need(demos_client_log_density_gradient(model, n, x, params, P, value, gradient, &error));
        put(file, gradient, n * P);
        need(demos_client_log_density_gradient_x(model, n, x, points, 0, value, gradient, &error));
        put(file, gradient, n * D);
        need(demos_client_log_likelihood(model, n, x, K, points, sums, slopes, &error));
        put(file, sums, K);
        put(file, slopes, K * P);
    }
    need(demos_client_log_likelihood(model, N, x, 1, outside, sums, NULL, &error));
    put(file, sums, 1);
    need(demos_client_evaluate(model, K, points, slopes, &error));
    put(file, slopes, K * 2);
    need(demos_client_log_density(model, 0, x, points, 0, value, &error));
    free(x);
    free(params);
    free(value);
    free(gradient);
}

int main(int argc, char **argv) {
    demos_client *model = NULL;
    int size = -1, rank = -1, all = 0, one = 1;
    char path[4096];
    if (argc < 2) {
        return 2;
    }
    need(demos_mpi_connect(argc > 2 ? argv[2] : NULL, &model, &error));
    if (strcmp(argv[1], "exit") == 0) {
        return 0;
    }
    MPI_Comm_size(demos_mpi_comm(), &size);
    MPI_Comm_rank(demos_mpi_comm(), &rank);
    MPI_Allreduce(&one, &all, 1, MPI_INT, MPI_SUM, demos_mpi_comm());
    printf("%s: %d of %d, d %d p %d q %d\n", argc > 2 ? argv[2] : "it", all, size, (int)demos_client_observables(model),
           (int)demos_client_params(model), (int)demos_client_outputs(model));
    snprintf(path, sizeof path, "%s%d", argv[1], rank);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    call_all(model, file);
    fclose(file);
    demos_disconnect(model);
    int32_t status = demos_mpi_connect(NULL, &model, &error);
    printf("%d %s\n", (int)status, error.message);
    return demos_mpi_comm() != MPI_COMM_NULL;
}
