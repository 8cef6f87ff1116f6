/* Calls a model and writes doubles into a file; client.py says which. */
#include <demos_mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 2500, SEED = 7 };

static FILE *file;

static void put(const double *numbers, size_t n) {
    if (fwrite(numbers, sizeof *numbers, n, file) != n) {
        perror("client");
        exit(2);
    }
}

static void check(int32_t status, const demos_error *error) {
    if (status != DEMOS_OK) {
        fprintf(stderr, "client: %s: %s\n", demos_status_name(status), error->message);
        exit(1);
    }
}

static void call(demos_client *model) {
    static double x[N], rows[2 * N], value[N], gradient[2 * N];
    const double point[] = {0.5, 2.0}, points[] = {0.5, 2.0, -0.25, 1.5}, outside[] = {0.0, -1.0};
    const double widths[] = {(double)demos_client_observables(model), (double)demos_client_params(model),
                             (double)demos_client_outputs(model)};
    demos_error error = {0};
    for (int i = 0; i < N; i++) {
        rows[2 * i] = 0.001 * i;
        rows[2 * i + 1] = 1 + 0.001 * i;
    }
    put(widths, 3);
    check(demos_client_sample(model, SEED, 0, N, point, x, &error), &error);
    put(x, N);
    check(demos_client_sample(model, SEED, 1024, 3, point, value, &error), &error);
    put(value, 3);
    check(demos_client_log_density(model, N, x, point, 0, value, &error), &error);
    put(value, N);
    check(demos_client_log_density(model, N, x, rows, 2, value, &error), &error);
    put(value, N);
    check(demos_client_log_density_gradient(model, N, x, rows, 2, value, gradient, &error), &error);
    put(value, N);
    put(gradient, 2 * N);
    check(demos_client_log_density_gradient_x(model, N, x, NULL, 0, value, gradient, &error), &error);
    put(value, N);
    put(gradient, N);
    check(demos_client_log_likelihood(model, N, x, 2, points, value, gradient, &error), &error);
    put(value, 2);
    put(gradient, 4);
    check(demos_client_evaluate(model, 2, points, value, &error), &error);
    put(value, 4);
    check(demos_client_defaults(model, value, &error), &error);
    put(value, 2);
    put(&(double){demos_client_sample(model, SEED, 0, 1, outside, value, &error)}, 1);
}

static void call_with(demos_client *model, double number) {
    const double sigma = 1;
    double value = 0;
    demos_error error = {0};
    put(&(double){demos_client_log_density(model, 1, &number, &sigma, 0, &value, &error)}, 1);
    put(&value, 1);
}

int main(int count, char **words) {
    demos_client *model = NULL;
    demos_error error = {0};
    file = count > 1 ? fopen(words[1], "wb") : NULL;
    if (file == NULL) {
        perror("client FILE");
        return 2;
    }
    check(demos_mpi_connect(NULL, &model, &error), &error);
    if (count == 2) {
        call(model);
    }
    for (int i = 2; i < count; i++) {
        call_with(model, strtod(words[i], NULL));
    }
    demos_disconnect(model);
    return fclose(file) == 0 ? 0 : 2;
}
