/* Oscillation probabilities for whoever is linked to libneutrino, or opens it. */
#ifndef NEUTRINO_H
#define NEUTRINO_H

#include <stddef.h>

#pragma GCC visibility push(default)

/*
 * P[a -> final] of n upgoing neutrinos through the castle wall of earth.h.
 *
 * parameters are s12sq, s13sq, s23sq, delta in radians, dm21 and dm31 in eV^2; energies are 1e-3 GeV at least; cosines
 * of the zenith angle -1 to 0; sign is 1 for neutrinos and -1 for antineutrinos; flavors are 0 for electron, 1 for muon
 * and 2 for tau neutrinos.
 */
void neutrino_probabilities(size_t n, const double *energy /* [n] GeV */, const double *cos_zenith /* [n] */,
                            const double *parameters /* [6] */, double sign, int final,
                            double *probability /* [n][3] */);
/* The same, and gradients by the parameters of the probability that `initial` becomes `final`. */
void neutrino_gradients(size_t n, const double *energy /* [n] GeV */, const double *cos_zenith /* [n] */,
                        const double *parameters /* [6] */, double sign, int initial, int final,
                        double *probability /* [n][3] */, double *gradient /* [n][6] */);

#pragma GCC visibility pop

#endif
