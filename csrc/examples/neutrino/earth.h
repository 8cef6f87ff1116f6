/*
 * The Earth as a castle wall: four shells of constant density, those of Prob3++ (NuFast-Earth's PREM_Prob3), and 15 km
 * of vacuum above, where the neutrinos are made. The detector is at the surface.
 */
#ifndef NEUTRINO_EARTH_H
#define NEUTRINO_EARTH_H

#include "oscillation.h"

enum { SHELLS = 4 }; /* the innermost first */

/* What matter does to neutrinos of 64 energies, wherever they come from. */
typedef struct matter {
    eigensystem vacuum, shells[SHELLS];
} matter;

/* The tracks of such neutrinos. `way` points into the rest, so that it may not be copied. */
typedef struct crossing {
    layer atmosphere, shells[SHELLS];
    path way;
} crossing;

void matter_make(const mixing_matrices *matrices, double sign, const double *energy, matter *m);
/* cos_zenith is -1 to 0: upgoing. */
void crossing_make(const matter *m, const double *cos_zenith, crossing *c);

#endif
