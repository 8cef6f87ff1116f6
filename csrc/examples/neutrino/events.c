/* Sums of terms, panel by panel. */
#include "events.h"

#include <math.h>
#include <string.h>

#include "wide.h"

/* Eight numbers, in one register or in several. */
typedef double lane __attribute__((vector_size(64), aligned(8), may_alias));

enum { LANES = DEGREES / 8 };

/* sum_hg by_energy_h terms_hg by_zenith_g of the first fields. */
NEUTRINO_WIDE static void sum_terms(const double *restrict terms, int n_fields, const double *restrict by_energy,
                                    const double *restrict by_zenith, double *restrict value) {
    const lane *row = (const lane *)terms, *last = (const lane *)by_zenith;
    for (int f = 0; f < n_fields; f++) {
        lane a = {0}, b = {0}, c = {0};
        for (int h = 0; h < DEGREES; h += 2, row += 2 * LANES) {
            a += by_energy[h] * row[0] + by_energy[h + 1] * row[3];
            b += by_energy[h] * row[1] + by_energy[h + 1] * row[4];
            c += by_energy[h] * row[2] + by_energy[h + 1] * row[5];
        }
        a = a * last[0] + b * last[1] + c * last[2];
        value[f] = ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
    }
}

/* Which panel of n x in [0, 1] is in. */
static int find_panel(double x, int n) {
    int panel = (int)(x * n);
    return panel < 0 ? 0 : panel >= n ? n - 1 : panel;
}

static void find_polynomials(double x, int n, int panel, double polynomial[DEGREES]) {
    double t = 2 * (x * n - panel) - 1;
    polynomial[0] = 1;
    polynomial[1] = t;
    for (int k = 2; k < DEGREES; k++) {
        polynomial[k] = 2 * t * polynomial[k - 1] - polynomial[k - 2];
    }
}

/* Where an event is, with the window as [0, 1] x [0, 1]. */
typedef struct place {
    double log_energy, energy, zenith;
    int panel;
} place;

static place find_place(const response *d, const double *x) {
    place p = {.log_energy = log(x[0])};
    p.energy = (p.log_energy - d->log_window[0]) / (d->log_window[1] - d->log_window[0]);
    p.zenith = (x[1] - ZENITH_WINDOW[0]) / (ZENITH_WINDOW[1] - ZENITH_WINDOW[0]);
    p.panel = find_panel(p.energy, ENERGY_PANELS) * ZENITH_PANELS + find_panel(p.zenith, ZENITH_PANELS);
    return p;
}

static void compute(const expansion *e, const place *p, double *value, double *gradient) {
    double by_energy[DEGREES], by_zenith[DEGREES], field[N_FIELDS];
    find_polynomials(p->energy, ENERGY_PANELS, p->panel / ZENITH_PANELS, by_energy);
    find_polynomials(p->zenith, ZENITH_PANELS, p->panel % ZENITH_PANELS, by_zenith);
    sum_terms(&e->terms[p->panel][0][0][0], gradient == NULL ? 1 : N_FIELDS, by_energy, by_zenith, field);
    *value = log(field[0] / e->norm[0]) - p->log_energy; /* K has a factor 1 / E_r */
    for (int k = 0; gradient != NULL && k < N_PARAMS; k++) {
        gradient[k] = field[1 + k] / field[0] - e->norm[1 + k] / e->norm[0];
    }
}

/* Panel by panel, since the terms of one fit into the processor's cache, and those of all do not. */
void events_compute(const response *d, const expansion *e, size_t n, const double *x, double *value, double *gradient) {
    place places[EVENTS];
    size_t ends[PANELS + 1] = {0}, order[EVENTS], n_found = 0;
    for (size_t i = 0; i < n; i++) {
        if (value[i] == 0) {
            places[i] = find_place(d, x + 2 * i);
            ends[places[i].panel + 1]++;
            n_found++;
        }
    }
    for (size_t panel = 0; panel < PANELS; panel++) {
        ends[panel + 1] += ends[panel];
    }
    for (size_t i = 0; i < n; i++) {
        if (value[i] == 0) {
            order[ends[places[i].panel]++] = i;
        }
    }
    for (size_t k = 0; k < n_found; k++) {
        size_t i = order[k];
        compute(e, &places[i], value + i, gradient == NULL ? NULL : gradient + i * N_PARAMS);
    }
}
