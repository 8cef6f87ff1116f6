/*
 * Gradient of F = sum_a w_a |A_a|^2, where A_a = <final| S_n ... S_1 |a>. The row <final| S_n ... S_k+1 is carried
 * backwards, the column S_k-1 ... S_1 sum_a w_a A_a* |a> forwards, and dF sums 2 Re(row dS_k column) over the layers.
 * With eigenvectors V and eigenvalues l of M (Daleckii and Krein 1965; Higham, Functions of Matrices, 2008, chapter 3),
 * and sinc(x) = sin(x) / x, so that equal eigenvalues need no care,
 *
 *     dS = -i L V [Phi o (V^T dM V)] V^T,   Phi_ij = exp(-i l_i L / 2) exp(-i l_j L / 2) sinc((l_i - l_j) L / 2).
 */
#include "oscillation.h"

#include <math.h>
#include <string.h>

#include "eigen.h"
#include "wide.h"

static const double FERMI_CONSTANT = 1.1663788e-23; /* G_F / (hbar c)^3, eV^-2 (Particle Data Group 2022) */
static const double AVOGADRO = 6.02214076e23;       /* 1/mol, exact */
static const double HBAR_C = 1.973269804593025e-7;  /* eV m, exact up to rounding */
/* The rows and columns of xy, xz, yz. */
enum { X, Y, Z };
static const int FIRST[3] = {X, X, Y}, SECOND[3] = {Y, Z, Z};
static const double SQRT_2 = 1.41421356237309504880;

/* 1 eV^2 / 2E in 1/km, for E in GeV. */
static double per_km(double energy) { return 1e3 / HBAR_C / (2e9 * energy); }

/* V in 1/km, of mol/cm^3. */
static double potential(double electrons) {
    double cm = 100 * HBAR_C;
    return SQRT_2 * FERMI_CONSTANT * AVOGADRO * (cm * cm * cm) * (1e3 / HBAR_C) * electrons;
}

void eigensystem_in_matter(const mixing_matrices *matrices, double sign, double electrons, const double *energy,
                           eigensystem *eigen) {
    tracks hamiltonian[6];
    for (int t = 0; t < TRACKS; t++) {
        for (int k = 0; k < 6; k++) {
            hamiltonian[k][t] = matrices->mass[k] * per_km(energy[t]);
        }
        hamiltonian[0][t] += potential(sign * electrons);
    }
    diagonalize(hamiltonian, eigen);
}

void eigensystem_in_vacuum(const mixing_matrices *matrices, const double *energy, eigensystem *eigen) {
    for (int k = 0; k < 3; k++) {
        for (int t = 0; t < TRACKS; t++) {
            eigen->value[k][t] = matrices->squares[k] * per_km(energy[t]);
            for (int flavor = 0; flavor < 3; flavor++) {
                eigen->vector[flavor][k][t] = matrices->vectors[flavor][k];
            }
        }
    }
}

void layer_set_phases(layer *l) {
    for (int k = 0; k < 2; k++) {
        tracks angle;
        for (int t = 0; t < TRACKS; t++) {
            angle[t] = (l->eigen->value[k + 1][t] - l->eigen->value[0][t]) * l->length[t] * 0.5;
        }
        compute_sines(angle, l->sine[k], l->cosine[k]);
    }
}

/* Carries amplitudes through a layer, in whichever direction, S being symmetric; `middle` has them halfway, in the
 * eigenbasis. */
NEUTRINO_WIDE static void cross(const layer *restrict l, state *restrict s, state *restrict middle) {
    const tracks(*restrict v)[3] = l->eigen->vector;
    for (int t = 0; t < TRACKS; t++) {
        double re[3], im[3];
        for (int k = 0; k < 3; k++) {
            re[k] = v[0][k][t] * s->re[0][t] + v[1][k][t] * s->re[1][t] + v[2][k][t] * s->re[2][t];
            im[k] = v[0][k][t] * s->im[0][t] + v[1][k][t] * s->im[1][t] + v[2][k][t] * s->im[2][t];
        }
        middle->re[0][t] = re[0];
        middle->im[0][t] = im[0];
        for (int k = 1; k < 3; k++) {
            double cosine = l->cosine[k - 1][t], sine = l->sine[k - 1][t];
            double half_re = re[k] * cosine + im[k] * sine, half_im = im[k] * cosine - re[k] * sine;
            middle->re[k][t] = half_re;
            middle->im[k][t] = half_im;
            re[k] = half_re * cosine + half_im * sine;
            im[k] = half_im * cosine - half_re * sine;
        }
        for (int a = 0; a < 3; a++) {
            s->re[a][t] = v[a][0][t] * re[0] + v[a][1][t] * re[1] + v[a][2][t] * re[2];
            s->im[a][t] = v[a][0][t] * im[0] + v[a][1][t] * im[1] + v[a][2][t] * im[2];
        }
    }
}

/* The row <final| S_n ... S_1 in the basis of M, and what it was in the middle of each layer. */
static void carry_back(const mixing_matrices *m, const path *way, enum neutrino_flavor final, state *row,
                       state middles[MOST_LAYERS]) {
    for (int k = 0; k < 3; k++) {
        for (int t = 0; t < TRACKS; t++) {
            row->re[k][t] = m->re[final][k];
            row->im[k][t] = m->im[final][k];
        }
    }
    for (size_t n = way->n; n-- > 0;) {
        cross(way->layers[n], row, &middles[n]);
    }
}

/* A_a = sum_i W*_ai row_i. */
NEUTRINO_WIDE static void find_amplitudes(const mixing_matrices *restrict m, const state *restrict row,
                                          state *restrict amplitude, tracks *restrict probability) {
    for (int a = 0; a < 3; a++) {
        for (int t = 0; t < TRACKS; t++) {
            double re = 0, im = 0;
            for (int k = 0; k < 3; k++) {
                re += m->re[a][k] * row->re[k][t] + m->im[a][k] * row->im[k][t];
                im += m->re[a][k] * row->im[k][t] - m->im[a][k] * row->re[k][t];
            }
            amplitude->re[a][t] = re;
            amplitude->im[a][t] = im;
            probability[a][t] = re * re + im * im;
        }
    }
}

void oscillate(const mixing_matrices *matrices, const path *way, enum neutrino_flavor final, tracks probability[3]) {
    state row, middles[MOST_LAYERS], amplitude;
    carry_back(matrices, way, final, &row, middles);
    find_amplitudes(matrices, &row, &amplitude, probability);
}

/* sin(x) / x; `sine` is sin(x). */
static inline double sinc(double x, double sine) {
    double z = x * x;
    double series = 1 - z * (1.0 / 156);
    series = 1 - z * (1.0 / 110) * series;
    series = 1 - z * (1.0 / 72) * series;
    series = 1 - z * (1.0 / 42) * series;
    series = 1 - z * (1.0 / 20) * series;
    series = 1 - z * (1.0 / 6) * series;
    return z < 0.1 ? series : sine / (z < 0.1 ? 1 : x);
}

/* Adds V w V^T per_km(E) to `by_mass`, where w_ij sums 2 L sinc((l_i - l_j) L / 2) Im(row_i column_j), made symmetric,
 * so that dF = sum_ij dM_ij by_mass_ij. Row and column are those in the middle of the layer, which takes care of two
 * factors of Phi. */
NEUTRINO_WIDE static void add_slopes(const layer *restrict l, const state *restrict row, const state *restrict column,
                                     tracks *restrict by_mass) {
    const tracks(*restrict v)[3] = l->eigen->vector;
    for (int t = 0; t < TRACKS; t++) {
        double half = 0.5 * l->length[t], w[3][3];
        double y = (l->eigen->value[1][t] - l->eigen->value[0][t]) * half;
        double z = (l->eigen->value[2][t] - l->eigen->value[0][t]) * half;
        double sin_y = l->sine[0][t], sin_z = l->sine[1][t];
        double sin_yz = sin_z * l->cosine[0][t] - sin_y * l->cosine[1][t];
        double factor[3] = {sinc(y, sin_y), sinc(z, sin_z), sinc(z - y, sin_yz)};
        for (int a = 0; a < 3; a++) {
            int i = FIRST[a], j = SECOND[a];
            double im = row->re[i][t] * column->im[j][t] + row->im[i][t] * column->re[j][t] +
                        row->re[j][t] * column->im[i][t] + row->im[j][t] * column->re[i][t];
            w[i][j] = w[j][i] = 2 * half * factor[a] * im;
            w[a][a] = 4 * half * (row->re[a][t] * column->im[a][t] + row->im[a][t] * column->re[a][t]);
        }
        double x[3][3]; /* V w */
        for (int a = 0; a < 3; a++) {
            for (int j = 0; j < 3; j++) {
                x[a][j] = v[a][0][t] * w[0][j] + v[a][1][t] * w[1][j] + v[a][2][t] * w[2][j];
            }
        }
        for (int a = 0; a < 3; a++) {
            int b = FIRST[a], c = SECOND[a];
            by_mass[a][t] += x[a][0] * v[a][0][t] + x[a][1] * v[a][1][t] + x[a][2] * v[a][2][t];
            by_mass[3 + a][t] += 2 * (x[b][0] * v[c][0][t] + x[b][1] * v[c][1][t] + x[b][2] * v[c][2][t]);
        }
    }
}

/* The column sum_a w_a A_a* W_a^+, and the share of dW in the gradient at the source. */
NEUTRINO_WIDE static void start_column(const mixing_matrices *restrict m, const state *restrict amplitude,
                                       tracks *restrict weight, const state *restrict row, state *restrict column,
                                       tracks *restrict by_basis) {
    for (int t = 0; t < TRACKS; t++) {
        for (int k = 0; k < 3; k++) {
            double re = 0, im = 0;
            for (int a = 0; a < 3; a++) {
                double weighted_re = weight[a][t] * amplitude->re[a][t];
                double weighted_im = -weight[a][t] * amplitude->im[a][t];
                re += m->re[a][k] * weighted_re + m->im[a][k] * weighted_im;
                im += m->re[a][k] * weighted_im - m->im[a][k] * weighted_re;
            }
            column->re[k][t] = re;
            column->im[k][t] = im;
        }
        for (int p = 0; p < 2; p++) {
            double sum = 0;
            for (int a = 0; a < 3; a++) {
                double re = 0, im = 0; /* of dA_a */
                for (int k = 1; k < 3; k++) {
                    re += m->slope_re[p][a][k] * row->re[k][t] + m->slope_im[p][a][k] * row->im[k][t];
                    im += m->slope_re[p][a][k] * row->im[k][t] - m->slope_im[p][a][k] * row->re[k][t];
                }
                sum += weight[a][t] * (amplitude->re[a][t] * re + amplitude->im[a][t] * im);
            }
            by_basis[p][t] = 2 * sum;
        }
    }
}

/* The share of dW at the detector. */
NEUTRINO_WIDE static void end_column(const mixing_matrices *restrict m, enum neutrino_flavor final,
                                     const state *restrict column, tracks *restrict by_basis) {
    for (int p = 0; p < 2; p++) {
        for (int k = 1; k < 3; k++) {
            double re = m->slope_re[p][final][k], im = m->slope_im[p][final][k];
            for (int t = 0; t < TRACKS; t++) {
                by_basis[p][t] += 2 * (re * column->re[k][t] - im * column->im[k][t]);
            }
        }
    }
}

void oscillate_gradient(const mixing_matrices *matrices, const path *way, enum neutrino_flavor final,
                        const double *energy, tracks weight[3], tracks probability[3], tracks gradient[N_MIXING]) {
    static const int PLACES[4] = {0, 1, 4, 5}; /* of s12sq, s13sq, dm21, dm31 */
    state row, middles[MOST_LAYERS], amplitude, column, middle;
    tracks by_mass[6];
    memset(by_mass, 0, sizeof by_mass);
    carry_back(matrices, way, final, &row, middles);
    find_amplitudes(matrices, &row, &amplitude, probability);
    start_column(matrices, &amplitude, weight, &row, &column, gradient + 2);
    for (size_t n = 0; n < way->n; n++) {
        cross(way->layers[n], &column, &middle);
        add_slopes(way->layers[n], &middles[n], &middle, by_mass);
    }
    end_column(matrices, final, &column, gradient + 2);
    for (int p = 0; p < 4; p++) {
        for (int t = 0; t < TRACKS; t++) {
            double sum = 0;
            for (int k = 0; k < 6; k++) {
                sum += matrices->mass_slopes[p][k] * by_mass[k][t];
            }
            gradient[PLACES[p]][t] = sum * per_km(energy[t]);
        }
    }
}
