/*
 * Rates of muon neutrinos that interact in a detector, at the nodes of a quadrature in true energy and zenith angle, as
 * demos_hpc/models/event_rates.py has them: the node's weight times efficiency, flux, cross section and oscillation,
 * summed over neutrinos and antineutrinos.
 */
#ifndef NEUTRINO_RATES_H
#define NEUTRINO_RATES_H

#include "oscillation.h"

enum { N_ENERGIES = TRACKS, N_ZENITHS = 48, N_PARAMS = 10 };

/* The parameters behind those of `mixing`: added to the spectral index; factors on the fluxes of antineutrinos and of
 * electron neutrinos; relative shift of the energy scale. */
enum { DGAMMA = N_MIXING, R_NUBAR, R_E, DE };

/* What is computed for a point: a function, and behind it its derivatives by the parameters. */
enum { N_FIELDS = 1 + N_PARAMS };

/* A number for each node, zenith angles first. */
typedef double nodes[N_ZENITHS][N_ENERGIES];

/* What does not depend on parameters. */
typedef struct rates {
    double energy[N_ENERGIES], log_energy[N_ENERGIES]; /* GeV */
    double cos_zenith[N_ZENITHS];
    nodes scale[2];       /* of neutrinos and antineutrinos, without oscillation */
    nodes electron_share; /* electron neutrinos made per muon neutrino */
} rates;

void rates_make(rates *r);
/* The rate, and with `gradient` its derivatives; those by DGAMMA and DE, which follow from the rate, are left out. */
void rates_compute(const rates *r, const double *params, int gradient, nodes fields[N_FIELDS]);

#endif
