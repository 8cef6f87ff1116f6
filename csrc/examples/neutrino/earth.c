/* The castle wall, and the ways through it. */
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
    double squared = RADIUS[s] * RADIUS[s] - impact_squared;
    return squared > 0 ? sqrt(squared) : 0;
}

/* The innermost shell is one layer, the others are crossed twice. */
static double shell_length(int s, double cos_zenith) {
    return s == 0 ? 2 * half_chord(s, cos_zenith) : half_chord(s, cos_zenith) - half_chord(s - 1, cos_zenith);
}

static double atmosphere_length(double cos_zenith) {
    double half = RADIUS[SHELLS - 1] * fabs(cos_zenith);
    return sqrt(half * half + (2 * RADIUS[SHELLS - 1] + PRODUCTION_HEIGHT) * PRODUCTION_HEIGHT) - half;
}

/* Of a shell, or of the atmosphere where s is none. Returns whether any track crosses it. */
static int set_lengths(int s, const double *cos_zenith, tracks length) {
    int is_crossed = 0;
    for (int t = 0; t < TRACKS; t++) {
        if (t > 0 && cos_zenith[t] == cos_zenith[t - 1]) {
            length[t] = length[t - 1];
        } else {
            length[t] = s < SHELLS ? shell_length(s, cos_zenith[t]) : atmosphere_length(cos_zenith[t]);
        }
        is_crossed |= length[t] > 0;
    }
    return is_crossed;
}

void crossing_make(const matter *m, const double *cos_zenith, crossing *c) {
    c->atmosphere.eigen = &m->vacuum;
    set_lengths(SHELLS, cos_zenith, c->atmosphere.length);
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
