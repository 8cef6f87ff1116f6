/* Plain functions of all kinds, as an old code has them; the trailing underscore is what Fortran compilers add. */
#include <math.h>

double demos_uniform(void);
double demos_normal(void);

/* Uniform in [0, a] x [0, b], as a density. */
double box_density_(const double *x, const double *params) {
    int inside = x[0] >= 0 && x[0] <= params[0] && x[1] >= 0 && x[1] <= params[1];
    return x[0] != x[0] || x[1] != x[1] ? x[0] + x[1] : inside ? 1 / (params[0] * params[1]) : 0;
}

double box_log_density(const double *x, const double *params) {
    double density = box_density_(x, params);
    return density == 0 ? -(double)INFINITY : log(density);
}

double box_gradient(const double *x, const double *params, double *gradient) {
    gradient[0] = -1 / params[0];
    gradient[1] = -1 / params[1];
    return box_log_density(x, params);
}

double box_gradient_x(const double *x, const double *params, double *gradient) {
    gradient[0] = gradient[1] = 0;
    return box_log_density(x, params);
}

void box_sample(double *x, const double *params) {
    x[0] = params[0] * demos_uniform();
    x[1] = params[1] * demos_uniform();
}

void box_moments(double *out, const double *params) {
    out[0] = params[0] / 2;
    out[1] = params[1] / 2;
}

double negative_density(const double *x, const double *params) { return x[0] < 1 ? params[0] : -0.5; }

void normal_sample(double *x, const double *params) {
    x[0] = params[0] * demos_normal();
    x[1] = params[1] * demos_normal();
}

/* A generator of its own, with state that nobody else can set. */
void own_sample(double *x, const double *params) {
    static unsigned long long state = 1;
    for (int k = 0; k < 2; k++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[k] = params[k] * (double)(state >> 11) * 0x1p-53;
    }
}
