/*
 * The model "nu_atm" of demos_hpc.models.neutrino in C: upgoing atmospheric muon neutrinos, seen after three-flavor
 * oscillations in the Earth. An event is a reconstructed energy E_r and a reconstructed cosine of the zenith angle c_r,
 *
 *     P(x | params) = sum_ij r_ij K(E_r | E_i) K_c(c_r | c_j, E_i) / N,    N = sum_ij r_ij eps_i,
 *
 * with the rates r_ij of rates.h, and the response K and K_c of response.h.
 *
 *     demos-hpc check build/csrc/examples/neutrino/libneutrino.so
 */
#include <math.h>

#include <demos.h>

#include "events.h"
#include "spec.h"
#include "tables.h"

enum { N_OBSERVABLES = 2 };

/* ---- Support ---------------------------------------------------------------------------------------------------- */

static int is_inside(double value, const double window[2]) { return window[0] <= value && value <= window[1]; }

/* 0, but -inf outside of the bounds, and nan where there is a nan. */
static double penalize_params(const double *params) {
    double penalty = 0;
    for (int k = 0; k < N_PARAMS; k++) {
        if (isnan(params[k])) {
            return NAN;
        }
        if (params[k] < LOWER[k] || params[k] > UPPER[k]) {
            penalty = -INFINITY;
        }
    }
    return penalty;
}

static double penalize_row(const double *x, double of_params) {
    if (isnan(x[0]) || isnan(x[1]) || isnan(of_params)) {
        return NAN;
    }
    return is_inside(x[0], ENERGY_WINDOW) && is_inside(x[1], ZENITH_WINDOW) ? of_params : -INFINITY;
}

/* ---- Density ---------------------------------------------------------------------------------------------------- */

/* Of at most EVENTS rows; t is NULL where none of them is in the support. */
static void compute_rows(const tables *all, const table *t, size_t n, const double *x, double of_params, double *value,
                         double *gradient) {
    for (size_t i = 0; i < n; i++) {
        value[i] = penalize_row(x + N_OBSERVABLES * i, of_params);
        for (size_t k = 0; gradient != NULL && k < N_PARAMS; k++) {
            gradient[i * N_PARAMS + k] = isnan(value[i]) ? NAN : 0;
        }
    }
    if (t != NULL) {
        events_compute(&all->response, &t->density, n, x, value, gradient);
    }
}

static int32_t compute(tables *all, size_t n, const double *x, const double *params, double *value, double *gradient,
                       demos_error *error) {
    double of_params = penalize_params(params);
    const table *t = NULL;
    if (of_params == 0 && (t = tables_take(all, params, gradient != NULL)) == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "no memory for the table of a point, %zu bytes", sizeof *t);
    }
    for (size_t i = 0; i < n; i += EVENTS) {
        compute_rows(all, t, n - i < EVENTS ? n - i : EVENTS, x + N_OBSERVABLES * i, of_params, value + i,
                     gradient == NULL ? NULL : gradient + N_PARAMS * i);
    }
    if (t != NULL) {
        tables_give_back(all, t);
    }
    return DEMOS_OK;
}

static int32_t log_density(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                           size_t params_stride, double *value, demos_error *error) {
    (void)d, (void)p, (void)params_stride;
    return compute(user, n, x, params, value, NULL, error);
}

static int32_t log_density_gradient(void *user, size_t n, size_t d, size_t p, const double *x, const double *params,
                                    size_t params_stride, double *value, double *gradient, demos_error *error) {
    (void)d, (void)p, (void)params_stride;
    return compute(user, n, x, params, value, gradient, error);
}

/* ---- Draws ------------------------------------------------------------------------------------------------------ */

/* A node, with the probability of its rate. */
static int draw_node(const table *t, demos_stream *stream) {
    int low = 0, high = N_ENERGIES * N_ZENITHS - 1;
    double wanted = demos_stream_uniform(stream) * t->cumulative[high];
    while (low < high) { /* the first one that is greater */
        int middle = (low + high) / 2;
        if (t->cumulative[middle] > wanted) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void draw(const tables *all, const table *t, demos_stream *stream, double *x) {
    const response *d = &all->response;
    int node, energy;
    do {
        node = draw_node(t, stream);
        energy = node / N_ZENITHS;
        double mean = all->rates.log_energy[energy] + log1p(t->params[DE]);
        x[0] = exp(mean + d->energy_width[energy] * demos_stream_normal(stream));
    } while (!is_inside(x[0], ENERGY_WINDOW));
    /* K_c is normalized over the window: the node stays. */
    do {
        x[1] = all->rates.cos_zenith[node % N_ZENITHS] + d->zenith_width[energy] * demos_stream_normal(stream);
    } while (!is_inside(x[1], ZENITH_WINDOW));
}

static int32_t sample(void *user, size_t n, size_t d, size_t p, const double *params, demos_stream *stream, double *x,
                      demos_error *error) {
    (void)d, (void)p;
    tables *all = user;
    const table *t = NULL;
    if (penalize_params(params) == 0 && (t = tables_take(all, params, 0)) == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "no memory for the table of a point, %zu bytes", sizeof *t);
    }
    for (size_t i = 0; i < n; i++, x += N_OBSERVABLES) {
        if (t == NULL) {
            x[0] = x[1] = NAN;
        } else {
            draw(all, t, stream, x);
        }
    }
    if (t != NULL) {
        tables_give_back(all, t);
    }
    return DEMOS_OK;
}

/* ---- The plug-in ------------------------------------------------------------------------------------------------ */

static void destroy(void *user) { tables_close(user); }

int32_t demos_model_init(demos_model *model, const char *config, demos_error *error) {
    (void)config;
    tables *all = tables_open();
    if (all == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "no memory for the nodes, %zu bytes", sizeof *all);
    }
    *model = (demos_model){
        .size = sizeof *model,
        .major = DEMOS_ABI_MAJOR,
        .minor = DEMOS_ABI_MINOR,
        .flags = DEMOS_THREAD_SAFE | DEMOS_ONE_POINT,
        .spec = SPEC,
        .user = all,
        .log_density = log_density,
        .log_density_gradient = log_density_gradient,
        .sample = sample,
        .destroy = destroy,
    };
    return DEMOS_OK;
}
