/* Panels and their terms: first the zenith angle, then the energy. */
#include "response.h"

#include <math.h>
#include <string.h>

#include "wide.h"

static const double PI = 3.14159265358979323846, ROOT_2 = 1.41421356237309504880, ROOT_2_PI = 2.50662827463100050242;
const double ENERGY_WINDOW[2] = {3, 60}, ZENITH_WINDOW[2] = {-1, 0};

static double normal_cdf(double pull) { return (1 + erf(pull / ROOT_2)) / 2; }

/* ---- Chebyshev polynomials -------------------------------------------------------------------------------------- */

/* The points of panel k of n, Chebyshev's of the first kind. */
static double panel_point(double lower, double upper, int n, int k, int point) {
    double half = (upper - lower) / (2 * n);
    return lower + half * (2 * k + 1 + cos(PI * (point + 0.5) / DEGREES));
}

/* Discrete orthogonality: Press et al., Numerical Recipes, 2007, 5.8. */
static void make_transform(double transform[DEGREES][DEGREES]) {
    for (int degree = 0; degree < DEGREES; degree++) {
        for (int point = 0; point < DEGREES; point++) {
            double scale = (degree == 0 ? 1.0 : 2.0) / DEGREES;
            transform[degree][point] = scale * cos(PI * degree * (point + 0.5) / DEGREES);
        }
    }
}

/* Rows of values at the points of panels to rows of coefficients, in place. */
NEUTRINO_WIDE static void transform_panels(const response *d, int n_panels, double (*rows)[N_ENERGIES]) {
    for (int panel = 0; panel < n_panels; panel++, rows += DEGREES) {
        double done[DEGREES][N_ENERGIES];
        for (int degree = 0; degree < DEGREES; degree++) {
            memset(done[degree], 0, sizeof done[degree]);
            for (int point = 0; point < DEGREES; point++) {
                for (int i = 0; i < N_ENERGIES; i++) {
                    done[degree][i] += d->transform[degree][point] * rows[point][i];
                }
            }
        }
        memcpy(rows, done, sizeof done);
    }
}

/* ---- The zenith angle ------------------------------------------------------------------------------------------- */

void response_make(const rates *r, response *d) {
    make_transform(d->transform);
    d->log_window[0] = log(ENERGY_WINDOW[0]);
    d->log_window[1] = log(ENERGY_WINDOW[1]);
    for (int i = 0; i < N_ENERGIES; i++) {
        d->energy_width[i] = sqrt(0.1 * 0.1 + 0.6 * 0.6 / r->energy[i]);
        d->zenith_width[i] = 0.04 + 0.35 / sqrt(r->energy[i]);
    }
    for (int j = 0; j < N_ZENITHS; j++) {
        double rows[ZENITH_TERMS][N_ENERGIES];
        for (int i = 0; i < N_ENERGIES; i++) {
            double width = d->zenith_width[i];
            double lower = (ZENITH_WINDOW[0] - r->cos_zenith[j]) / width;
            double upper = (ZENITH_WINDOW[1] - r->cos_zenith[j]) / width;
            double height = 1 / (ROOT_2_PI * width * (normal_cdf(upper) - normal_cdf(lower)));
            for (int g = 0; g < ZENITH_TERMS; g++) {
                double c = panel_point(ZENITH_WINDOW[0], ZENITH_WINDOW[1], ZENITH_PANELS, g / DEGREES, g % DEGREES);
                double pull = (c - r->cos_zenith[j]) / width;
                rows[g][i] = height * exp(-0.5 * pull * pull);
            }
        }
        transform_panels(d, ZENITH_PANELS, rows);
        for (int g = 0; g < ZENITH_TERMS; g++) {
            memcpy(d->zenith_kernel[g][j], rows[g], sizeof rows[g]);
        }
    }
}

/* The terms of one panel and degree. */
NEUTRINO_WIDE static void smear_zenith(double (*restrict kernel)[N_ENERGIES], double (*restrict field)[N_ENERGIES],
                                       double *restrict smeared) {
    double sum[N_ENERGIES] = {0};
    for (int j = 0; j < N_ZENITHS; j += 4) {
        for (int i = 0; i < N_ENERGIES; i++) {
            sum[i] += kernel[j][i] * field[j][i] + kernel[j + 1][i] * field[j + 1][i] +
                      kernel[j + 2][i] * field[j + 2][i] + kernel[j + 3][i] * field[j + 3][i];
        }
    }
    for (int i = 0; i < N_ENERGIES; i++) {
        smeared[i * ZENITH_TERMS] = sum[i];
    }
}

/* ---- The energy ------------------------------------------------------------------------------------------------- */

static void make_energy_kernels(const rates *r, const response *d, double scale, int gradient, expansion *e) {
    double shift = log1p(scale);
    for (int h = 0; h < ENERGY_TERMS; h++) {
        double u = panel_point(d->log_window[0], d->log_window[1], ENERGY_PANELS, h / DEGREES, h % DEGREES);
        for (int i = 0; i < N_ENERGIES; i++) {
            double width = d->energy_width[i], pull = (u - r->log_energy[i] - shift) / width;
            e->kernel[h][i] = exp(-0.5 * pull * pull) / (ROOT_2_PI * width);
            e->by_scale[h][i] = e->kernel[h][i] * pull / (width * (1 + scale));
        }
    }
    transform_panels(d, ENERGY_PANELS, e->kernel);
    if (gradient) {
        transform_panels(d, ENERGY_PANELS, e->by_scale);
        for (int h = 0; h < ENERGY_TERMS; h++) {
            for (int i = 0; i < N_ENERGIES; i++) {
                e->by_index[h][i] = -r->log_energy[i] * e->kernel[h][i];
            }
        }
    }
}

/* Four degrees of the panels at an energy: many at a time, so that what is read is used. */
NEUTRINO_WIDE static void smear_energy(double (*restrict kernel)[N_ENERGIES], double (*restrict smeared)[ZENITH_TERMS],
                                       double (*restrict sum)[ZENITH_TERMS]) {
    memset(sum, 0, 4 * sizeof *sum);
    for (int i = 0; i < N_ENERGIES; i += 4) {
        const double *s = smeared[i];
        for (int g = 0; g < ZENITH_TERMS; g++) {
            for (int h = 0; h < 4; h++) {
                sum[h][g] += kernel[h][i] * s[g] + kernel[h][i + 1] * s[ZENITH_TERMS + g] +
                             kernel[h][i + 2] * s[2 * ZENITH_TERMS + g] + kernel[h][i + 3] * s[3 * ZENITH_TERMS + g];
            }
        }
    }
}

static void find_terms(expansion *e, energy_kernel kernel, double (*smeared)[ZENITH_TERMS], int f) {
    for (int h = 0; h < ENERGY_TERMS; h += 4) {
        double sum[4][ZENITH_TERMS];
        smear_energy(kernel + h, smeared, sum);
        for (int k = 0; k < 4; k++) {
            for (int panel = 0; panel < ZENITH_PANELS; panel++) {
                int at = h / DEGREES * ZENITH_PANELS + panel;
                memcpy(e->terms[at][f][h % DEGREES + k], sum[k] + panel * DEGREES, DEGREES * sizeof(double));
            }
        }
    }
}

/* The rate in the window, and its derivatives. */
static void find_norm(const rates *r, const response *d, double scale, int gradient, nodes *fields, double *norm) {
    memset(norm, 0, N_FIELDS * sizeof *norm);
    for (int i = 0; i < N_ENERGIES; i++) {
        double accepted = 0, slope = 0, width = d->energy_width[i];
        for (int end = 0; end < 2; end++) {
            double pull = (d->log_window[end] - r->log_energy[i] - log1p(scale)) / width, sign = end ? 1 : -1;
            accepted += sign * normal_cdf(pull);
            slope -= sign * exp(-0.5 * pull * pull) / (ROOT_2_PI * width * (1 + scale));
        }
        double sum[N_FIELDS] = {0};
        for (int f = 0; f < (gradient ? N_FIELDS : 1); f++) {
            for (int j = 0; j < N_ZENITHS; j++) {
                sum[f] += fields[f][j][i];
            }
            norm[f] += sum[f] * accepted;
        }
        norm[1 + DGAMMA] -= r->log_energy[i] * sum[0] * accepted;
        norm[1 + DE] += sum[0] * slope;
    }
}

/* Those by the spectral index and by the scale of the energy follow from the rate. */
static int is_smeared(int f) { return f != 1 + DGAMMA && f != 1 + DE; }

void expansion_make(const rates *r, const response *d, double scale, int gradient, nodes *fields, expansion *e) {
    int n_fields = gradient ? N_FIELDS : 1;
    make_energy_kernels(r, d, scale, gradient, e);
    find_norm(r, d, scale, gradient, fields, e->norm);
    for (int g = 0; g < ZENITH_TERMS; g++) { /* outside, because the kernel is much larger than a field */
        for (int f = 0; f < n_fields; f++) {
            if (is_smeared(f)) {
                smear_zenith((double(*)[N_ENERGIES])d->zenith_kernel[g], fields[f], &e->smeared[f][0][g]);
            }
        }
    }
    for (int f = 0; f < n_fields; f++) {
        energy_kernel *kernel = f == 1 + DGAMMA ? &e->by_index : f == 1 + DE ? &e->by_scale : &e->kernel;
        find_terms(e, *kernel, e->smeared[is_smeared(f) ? f : 0], f);
    }
}
