/*
 * What a detector makes of the rates, as demos_hpc/models/detector.py has it: the energy is lognormal about the true
 * one, the cosine of the zenith angle Gaussian about the true one and truncated to [-1, 0].
 *
 * The density of an event is a sum over 64 x 48 nodes, for each of the derivatives too. As a function of ln E_r and c_r
 * it is analytic and no narrower than the resolution, 0.117 and 0.075; so, for each point, it is expanded once in
 * Chebyshev polynomials, of degree 23 on each of 8 x 4 panels. That is exact but for rounding: the narrowest Gaussian,
 * wherever its center, is off by 9e-15 of its maximum at most. 576 products take the place of 3072 exponentials.
 */
#ifndef NEUTRINO_RESPONSE_H
#define NEUTRINO_RESPONSE_H

#include "rates.h"

enum {
    DEGREES = 24, /* coefficients of a panel, in each direction */
    ENERGY_PANELS = 8,
    ZENITH_PANELS = 4,
    PANELS = ENERGY_PANELS * ZENITH_PANELS,
    ENERGY_TERMS = DEGREES * ENERGY_PANELS,
    ZENITH_TERMS = DEGREES * ZENITH_PANELS
};

/* GeV, 1: where reconstructed events are kept. */
extern const double ENERGY_WINDOW[2], ZENITH_WINDOW[2];

/* What does not depend on parameters. */
typedef struct response {
    double energy_width[N_ENERGIES], zenith_width[N_ENERGIES]; /* sigma_E, sigma_c */
    double log_window[2];                                      /* of the energy */
    double transform[DEGREES][DEGREES];                        /* values at a panel's points to its coefficients */
    double zenith_kernel[ZENITH_TERMS][N_ZENITHS][N_ENERGIES]; /* coefficients of K_c(. | c_j, E_i) */
} response;

typedef double energy_kernel[ENERGY_TERMS][N_ENERGIES];

/* A density and its derivatives, N_FIELDS of each, at one point. */
typedef struct expansion {
    double norm[N_FIELDS];
    double terms[PANELS][N_FIELDS][DEGREES][DEGREES]; /* energies first */
    /* On the way there: rates smeared in the zenith angle; coefficients of E_r K(E_r | E_i), and of its derivatives by
     * the spectral index and by the scale. Here rather than on the stack of whoever's thread this is. */
    double smeared[N_FIELDS][N_ENERGIES][ZENITH_TERMS];
    energy_kernel kernel, by_index, by_scale;
} expansion;

void response_make(const rates *r, response *d);
/* Of the first field or of all of them. */
void expansion_make(const rates *r, const response *d, double scale, int gradient, nodes *fields, expansion *e);

#endif
