/* The model: a Gaussian, to be replaced. x is one row, params one point, as NAME.json names them. */
#include <math.h>

double demos_normal(void); /* a standard normal number, of the stream that belongs to the row (libdemos) */

double NAME_log_density(const double *x, const double *params) {
    const double mu = params[0], sigma = params[1];
    const double z = (x[0] - mu) / sigma;
    return -0.5 * z * z - log(sigma) - 0.91893853320467274178; /* log(2 pi) / 2 */
}

void NAME_sample(double *x, const double *params) { x[0] = params[0] + params[1] * demos_normal(); }
