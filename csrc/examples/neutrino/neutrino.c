/* Batches of tracks, 64 at a time. */
#include "neutrino.h"

#include <string.h>

#include "earth.h"

/* Up to 64 tracks from the one given; what is missing of them is the first one again. */
static void compute(size_t n, const double *energy, const double *cos_zenith, const mixing_matrices *matrices,
                    double sign, int initial, int final, double *probability, double *gradient) {
    tracks energies, cosines, weight[3], p[3], slopes[N_MIXING];
    matter inside;
    crossing c;
    memset(weight, 0, sizeof weight);
    for (size_t t = 0; t < TRACKS; t++) {
        energies[t] = energy[t < n ? t : 0];
        cosines[t] = cos_zenith[t < n ? t : 0];
        weight[initial][t] = 1;
    }
    matter_make(matrices, sign, energies, &inside);
    crossing_make(&inside, cosines, &c);
    if (gradient == NULL) {
        oscillate(matrices, &c.way, (enum neutrino_flavor) final, p);
    } else {
        oscillate_gradient(matrices, &c.way, (enum neutrino_flavor) final, energies, weight, p, slopes);
    }
    for (size_t t = 0; t < n; t++) {
        for (size_t a = 0; a < 3; a++) {
            probability[3 * t + a] = p[a][t];
        }
        for (size_t k = 0; gradient != NULL && k < N_MIXING; k++) {
            gradient[N_MIXING * t + k] = slopes[k][t];
        }
    }
}

void neutrino_gradients(size_t n, const double *energy, const double *cos_zenith, const double *p, double sign,
                        int initial, int final, double *probability, double *gradient) {
    const mixing parameters = {p[0], p[1], p[2], p[3], p[4], p[5]};
    mixing_matrices matrices;
    mixing_make(&parameters, sign, &matrices);
    for (size_t t = 0; t < n; t += TRACKS) {
        compute(n - t < TRACKS ? n - t : TRACKS, energy + t, cos_zenith + t, &matrices, sign, initial, final,
                probability + 3 * t, gradient == NULL ? NULL : gradient + N_MIXING * t);
    }
}

void neutrino_probabilities(size_t n, const double *energy, const double *cos_zenith, const double *parameters,
                            double sign, int final, double *probability) {
    neutrino_gradients(n, energy, cos_zenith, parameters, sign, 0, final, probability, NULL);
}
