/*
 * A code that was not written to be served: two functions of one row. peak.json says what they are.
 *
 *     cc -shared -fPIC -O2 peak.c -o libpeak.so $(demos-hpc config --libs) -lm
 *     demos-hpc check ./peak.json
 */
#include <math.h>

/* The one thing that a sampler needs of demos.h: uniform in [0, 1), from the stream of the row that is drawn. */
double demos_uniform(void);

static const double PI = 3.14159265358979323846;

/* A Breit-Wigner peak: the probability of an energy, given mass and width. */
double peak_density(const double *x, const double *params) {
    double half = params[1] / 2, distance = x[0] - params[0];
    return half / (PI * (distance * distance + half * half));
}

/* One draw from it, by the inverse of its distribution function. */
void peak_sample(double *x, const double *params) {
    x[0] = params[0] + params[1] / 2 * tan(PI * (demos_uniform() - 0.5));
}
