/* The nodes, what is made in the atmosphere there, and what of it arrives. */
#include "rates.h"

#include <math.h>
#include <string.h>

#include "earth.h"

static const double PI = 3.14159265358979323846;
static const double ENERGY_RANGE[2] = {2, 100}; /* of the quadrature, GeV */
static const double ZENITH_RANGE[2] = {-1, 0};

/* Neutrinos, antineutrinos: */
static const double SIGN[2] = {1, -1};
static const double FLUX[2] = {1, 0.83};               /* relative to neutrinos */
static const double CROSS_SECTION[2] = {0.677, 0.334}; /* charged current, 1e-38 cm^2 / GeV / nucleon (PDG) */

/* Pions, kaons (Gaisser, Cosmic Rays and Particle Physics, 1990; quoted in Chirkin, hep-ph/0407078): */
static const double SPECTRAL_INDEX = 2.7;
static const double MESON_SHARE[2] = {1, 0.213};
static const double CRITICAL_ENERGY[2] = {115 / 6.0, 850 / 1.44}; /* GeV */

/* Efficiency 1 / (1 + (E / threshold)^(-1 / width)): GeV, 1. */
static const double THRESHOLD = 6, THRESHOLD_WIDTH = 0.3;

/* Gauss-Legendre nodes and weights: Newton's method on the polynomial (Press et al., Numerical Recipes, 2007, 4.6). */
static void place_nodes(int n, const double range[2], double *place, double *weight) {
    double half = (range[1] - range[0]) / 2;
    for (int k = 0; k < n; k++) {
        double x = -cos(PI * (k + 0.75) / (n + 0.5)), slope = 1;
        for (int step = 0; step < 6; step++) {
            double value = x, before = 1;
            for (int l = 2; l <= n; l++) {
                double next = ((2 * l - 1) * x * value - (l - 1) * before) / l;
                before = value;
                value = next;
            }
            slope = n * (x * value - before) / (x * x - 1);
            x -= value / slope;
        }
        place[k] = range[0] + half * (x + 1);
        weight[k] = half * 2 / ((1 - x * x) * slope * slope);
    }
}

/* cos of the zenith angle where the neutrino was made, since the atmosphere is curved: Chirkin, hep-ph/0407078. */
static double effective_cosine(double cos_zenith) {
    const double p1 = 0.102573, p2 = -0.068287, p3 = 0.958633, p4 = 0.0407253, p5 = 0.817285;
    double c = fabs(cos_zenith);
    return sqrt((c * c + p1 * p1 + p2 * pow(c, p3) + p4 * pow(c, p5)) / (1 + p1 * p1 + p2 + p4));
}

static double muon_flux(double energy, double cosine) {
    double sum = 0;
    for (int meson = 0; meson < 2; meson++) {
        sum += MESON_SHARE[meson] / (1 + energy * cosine / CRITICAL_ENERGY[meson]);
    }
    return pow(energy, -SPECTRAL_INDEX) * sum;
}

void rates_make(rates *r) {
    double energy_weight[N_ENERGIES], zenith_weight[N_ZENITHS];
    const double log_range[2] = {log(ENERGY_RANGE[0]), log(ENERGY_RANGE[1])};
    place_nodes(N_ENERGIES, log_range, r->log_energy, energy_weight);
    place_nodes(N_ZENITHS, ZENITH_RANGE, r->cos_zenith, zenith_weight);
    for (int i = 0; i < N_ENERGIES; i++) {
        double energy = r->energy[i] = exp(r->log_energy[i]);
        double efficiency = 1 / (1 + pow(energy / THRESHOLD, -1 / THRESHOLD_WIDTH));
        for (int j = 0; j < N_ZENITHS; j++) {
            double cosine = effective_cosine(r->cos_zenith[j]);
            /* One power of the energy belongs to the cross section, the other to dE = E dlnE. */
            double common = energy_weight[i] * zenith_weight[j] * efficiency * energy * energy;
            for (int kind = 0; kind < 2; kind++) {
                r->scale[kind][j][i] = FLUX[kind] * CROSS_SECTION[kind] * common * muon_flux(energy, cosine);
            }
            /* A smooth stand-in for flux tables, not a measurement. */
            r->electron_share[j][i] = 0.45 * pow(1 + energy * cosine / 5, -0.4);
        }
    }
}

/* What one kind of neutrinos, from one zenith angle, adds. */
static void add_tracks(const rates *r, const double *params, int kind, const mixing_matrices *matrices,
                       const crossing *c, const double *spectrum, int j, nodes *fields, int gradient) {
    double factor = kind == 1 ? params[R_NUBAR] : 1;
    tracks weight[3], probability[3], slopes[N_MIXING];
    for (int i = 0; i < N_ENERGIES; i++) {
        weight[MUON][i] = r->scale[kind][j][i] * spectrum[i] * factor;
        weight[ELECTRON][i] = params[R_E] * r->electron_share[j][i] * weight[MUON][i];
        weight[TAU][i] = 0;
    }
    if (gradient) {
        oscillate_gradient(matrices, &c->way, MUON, r->energy, weight, probability, slopes);
    } else {
        oscillate(matrices, &c->way, MUON, probability);
    }
    for (int i = 0; i < N_ENERGIES; i++) {
        fields[0][j][i] += weight[ELECTRON][i] * probability[ELECTRON][i] + weight[MUON][i] * probability[MUON][i];
    }
    for (int i = 0; gradient && i < N_ENERGIES; i++) {
        double share = r->electron_share[j][i];
        for (int p = 0; p < N_MIXING; p++) {
            fields[1 + p][j][i] += slopes[p][i];
        }
        fields[1 + R_E][j][i] += share * weight[MUON][i] * probability[ELECTRON][i];
        if (kind == 1) {
            double both = params[R_E] * share * probability[ELECTRON][i] + probability[MUON][i];
            fields[1 + R_NUBAR][j][i] += r->scale[kind][j][i] * spectrum[i] * both;
        }
    }
}

void rates_compute(const rates *r, const double *params, int gradient, nodes fields[N_FIELDS]) {
    const mixing parameters = {params[0], params[1], params[2], params[3], params[4], params[5]};
    double spectrum[N_ENERGIES];
    for (int i = 0; i < N_ENERGIES; i++) {
        spectrum[i] = exp(-params[DGAMMA] * r->log_energy[i]);
    }
    memset(fields, 0, (size_t)(gradient ? N_FIELDS : 1) * sizeof *fields);
    for (int kind = 0; kind < 2; kind++) {
        mixing_matrices matrices;
        matter inside;
        crossing c;
        mixing_make(&parameters, SIGN[kind], &matrices);
        matter_make(&matrices, SIGN[kind], r->energy, &inside);
        for (int j = 0; j < N_ZENITHS; j++) {
            tracks cos_zenith;
            for (int i = 0; i < N_ENERGIES; i++) {
                cos_zenith[i] = r->cos_zenith[j];
            }
            crossing_make(&inside, cos_zenith, &c);
            add_tracks(r, params, kind, &matrices, &c, spectrum, j, fields, gradient);
        }
    }
}
