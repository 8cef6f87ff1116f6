#include "earth.h"

#include <math.h>

static const double RADIUS[SHELLS] = {1220, 3480, 5701, 6371}; /* outer, km */
static const double DENSITY[SHELLS] = {13, 11.3, 5, 3.3};      /* g/cm^3 */
static const double ELECTRON_FRACTION = 0.5;
static const double PRODUCTION_HEIGHT = 15; /* km */

void matter_make(const mixing_matrices *matrices, double sign, const double *energy, matter *m) {
    eigensystem_in_vacuum(matrices, energy, &m->vacuum);
    for (int s = 0; s < SHELLS; s++) {
        eigensystem_in_matter(matrices, sign, ELECTRON_FRACTION * DENSITY[s], energy, &m->shells[s]);
    }
}

/* From the middle of the chord to the sphere around shell s, km; 0 where the way passes outside of it. */
static double half_chord(int s, double cos_zenith) {
    double impact_squared = RADIUS[SHELLS - 1] * RADIUS[SHELLS - 1] * (1 - cos_zenith * cos_zenith);
    return sqrt(fmax(RADIUS[s] * RADIUS[s] - impact_squared, 0));
}

/* Returns whether any track crosses the shell. The innermost shell is one layer, the others are crossed twice. */
static int set_lengths(int s, const double *cos_zenith, tracks length) {
    double longest = 0;
    for (int t = 0; t < TRACKS; t++) {
        double outer = half_chord(s, cos_zenith[t]);
        length[t] = s == 0 ? 2 * outer : outer - half_chord(s - 1, cos_zenith[t]);
        longest = fmax(longest, length[t]);
    }
    return longest > 0;
}

static void set_atmosphere(const double *cos_zenith, tracks length) {
    for (int t = 0; t < TRACKS; t++) {
        double half = RADIUS[SHELLS - 1] * fabs(cos_zenith[t]);
        double excess = (2 * RADIUS[SHELLS - 1] + PRODUCTION_HEIGHT) * PRODUCTION_HEIGHT;
        length[t] = sqrt(half * half + excess) - half;
    }
}

void crossing_make(const matter *m, const double *cos_zenith, crossing *c) {
    c->atmosphere.eigen = &m->vacuum;
    set_atmosphere(cos_zenith, c->atmosphere.length);
    layer_set_phases(&c->atmosphere);
    c->way.n = 0;
    c->way.layers[c->way.n++] = &c->atmosphere;
    for (int s = SHELLS - 1; s >= 0; s--) {
        c->shells[s].eigen = &m->shells[s];
        if (set_lengths(s, cos_zenith, c->shells[s].length)) {
            layer_set_phases(&c->shells[s]);
            c->way.layers[c->way.n++] = &c->shells[s];
        }
    }
    /* The way out is the way in backwards. */
    for (size_t last = c->way.n - 1 - (c->way.layers[c->way.n - 1] == &c->shells[0]); last > 0; last--) {
        c->way.layers[c->way.n++] = c->way.layers[last];
    }
}
