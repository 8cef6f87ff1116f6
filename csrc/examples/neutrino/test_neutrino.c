/* The parts of libneutrino against reference values, and the model from several threads. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "demos.h"
#include "earth.h"
#include "eigen.h"
#include "neutrino.h"
#include "spec.h"

#define CHECK_CLOSE(left, right, tolerance) CHECK(fabs((left) - (right)) <= (tolerance))

/* NuFIT 6.0, normal ordering, rounded: the point at which the reference values were computed. */
static const mixing MIXING = {0.308, 0.02215, 0.47, 3.7000980142279785, 7.49e-5, 2.513e-3};

/* ---- Linear algebra, angles ------------------------------------------------------------------------------------- */

static void check_eigen(double xx, double yy, double zz, double xy, double xz, double yz) {
    const double wanted[3][3] = {{xx, xy, xz}, {xy, yy, yz}, {xz, yz, zz}}, six[6] = {xx, yy, zz, xy, xz, yz};
    tracks matrix[6];
    eigensystem e;
    for (int k = 0; k < 6; k++) {
        for (int t = 0; t < TRACKS; t++) {
            matrix[k][t] = six[k];
        }
    }
    diagonalize(matrix, &e);
    double scale = fabs(xx) + fabs(yy) + fabs(zz) + fabs(xy) + fabs(xz) + fabs(yz);
    for (int a = 0; a < 3; a++) {
        for (int b = 0; b < 3; b++) {
            double product = 0, again = 0;
            for (int k = 0; k < 3; k++) {
                product += e.vector[k][a][5] * e.vector[k][b][5];
                again += e.vector[a][k][5] * e.value[k][5] * e.vector[b][k][5];
            }
            CHECK_CLOSE(product, a == b, 2e-15);
            CHECK_CLOSE(again, wanted[a][b], 2e-15 * scale);
        }
    }
}

static void check_eigensystems(void) {
    check_eigen(0, 0, 0, 0, 0, 0);
    check_eigen(1, 1, 1, 0, 0, 0);
    check_eigen(1, 1, 1, 1, 1, 1); /* twice 0 */
    check_eigen(1, 1 + 1e-14, 1 - 1e-14, 1e-15, -1e-14, 3e-15);
    check_eigen(2, 3, 5, 1e-9, -1e-12, 1e-16);
    check_eigen(1e-4, -2e-3, 3e-3, 1.5e-3, -2.5e-3, 0.5e-3);
    check_eigen(1e-120, 2e-120, 5e-120, 3e-120, 1e-120, 1e-120);
    srand(1);
    for (int nth = 0; nth < 1000; nth++) {
        double m[6];
        for (int k = 0; k < 6; k++) {
            m[k] = pow(10, -8.0 * rand() / RAND_MAX) * (rand() % 2 ? 1 : -1);
        }
        check_eigen(m[0], m[1], m[2], m[3], m[4], m[5]);
    }
}

static void check_sines(void) {
    tracks angle, sine, cosine;
    for (int scale = -10; scale < 6; scale++) {
        for (int t = 0; t < TRACKS; t++) {
            angle[t] = pow(10, scale) * (t - 31.5) / 31.5;
            angle[t] = t == 0 ? 0 : t < 9 ? 0.78539816339744830962 * (t - 4) : angle[t];
        }
        compute_sines(angle, sine, cosine);
        for (int t = 0; t < TRACKS; t++) {
            CHECK_CLOSE(sine[t], sin(angle[t]), 2.3e-16);
            CHECK_CLOSE(cosine[t], cos(angle[t]), 2.3e-16);
        }
    }
}

/* ---- Probabilities ---------------------------------------------------------------------------------------------- */

/* P[a -> final] and the gradient of one of them, through a single layer. */
static void cross_layer(double energy, double sign, double electrons, double length, int initial, int final,
                        double probability[3], double gradient[N_MIXING]) {
    static mixing_matrices matrices;
    static eigensystem eigen;
    static layer one;
    tracks energies, weight[3], p[3], slopes[N_MIXING];
    memset(weight, 0, sizeof weight);
    for (int t = 0; t < TRACKS; t++) {
        energies[t] = energy;
        one.length[t] = length;
        weight[initial][t] = 1;
    }
    mixing_make(&MIXING, sign, &matrices);
    eigensystem_in_matter(&matrices, sign, electrons, energies, &eigen);
    one.eigen = &eigen;
    layer_set_phases(&one);
    path way = {.n = 1, .layers = {&one}};
    oscillate_gradient(&matrices, &way, (enum neutrino_flavor) final, energies, weight, p, slopes);
    for (int a = 0; a < 3; a++) {
        probability[a] = p[a][7];
    }
    for (int k = 0; k < N_MIXING; k++) {
        gradient[k] = slopes[k][7];
    }
}

/* 1300 km of 2.848 g/cm^3; agrees with nuSQuIDS 1.13.3 to 9e-13 once that has the same constants. */
static void check_long_baseline(void) {
    static const double P[3][3] = {{0.8704298792477465, 0.05346683118769856, 0.076103289564556},
                                   {0.07005036576926413, 0.009796815863839235, 0.920152818366898},
                                   {0.059519754982990405, 0.9367363529484636, 0.003743892068547339}};
    static const double SLOPES[6] = {0.00962445856078, 2.78382749077, 0.126796053569,
                                     0.0128042171574,  137.593134274, 18.550686998};
    double p[3], gradient[N_MIXING];
    for (int final = 0; final < 3; final++) {
        cross_layer(2.5, 1, 2.848 * 0.5, 1300, MUON, final, p, gradient);
        for (int a = 0; a < 3; a++) {
            CHECK_CLOSE(p[a], P[a][final], 1e-13);
        }
        for (int k = 0; final == ELECTRON && k < N_MIXING; k++) {
            CHECK_CLOSE(gradient[k], SLOPES[k], 1e-9 * fabs(SLOPES[k]));
        }
    }
    cross_layer(2.5, -1, 2.848 * 0.5, 1300, MUON, ELECTRON, p, gradient);
    CHECK_CLOSE(p[MUON], 0.01948452, 5e-9);
}

static void check_reactor(void) {
    double p[3], gradient[N_MIXING];
    cross_layer(0.003, -1, 2.45 * 0.5, 52.5, ELECTRON, ELECTRON, p, gradient);
    CHECK_CLOSE(p[ELECTRON], 0.154469595866266, 1e-12);
    cross_layer(0.003, -1, 0, 52.5, ELECTRON, ELECTRON, p, gradient);
    CHECK_CLOSE(p[ELECTRON], 0.148849204124672, 1e-12);
}

/* Through the castle wall: (P_mumu, P_mu->e), and a gradient. */
static void check_castle_wall(void) {
    static const double ENERGY[3] = {3, 3, 6}, COSINE[3] = {-1, -0.8, -0.8};
    static const double P[3][2] = {{0.4280576980307869, 0.3453804934758491},
                                   {0.034569119349132385, 0.0020702391398336397},
                                   {0.33171929667570643, 0.47983930393965124}};
    static const double SLOPES[6] = {0.342259774773, 22.2268852652,  -0.639816236065,
                                     0.019613270075, -1931.12846284, 1294.65666082};
    const double parameters[6] = {MIXING.s12sq, MIXING.s13sq, MIXING.s23sq, MIXING.delta, MIXING.dm21, MIXING.dm31};
    double muon[3][3], electron[3][3], gradient[3][N_MIXING];
    neutrino_gradients(3, ENERGY, COSINE, parameters, 1, MUON, MUON, muon[0], gradient[0]);
    neutrino_probabilities(3, ENERGY, COSINE, parameters, 1, ELECTRON, electron[0]);
    for (int nth = 0; nth < 3; nth++) {
        CHECK_CLOSE(muon[nth][MUON], P[nth][0], 1e-13);
        CHECK_CLOSE(electron[nth][MUON], P[nth][1], 1e-13);
    }
    for (int k = 0; k < N_MIXING; k++) {
        CHECK_CLOSE(gradient[0][k], SLOPES[k], 1e-9 * fabs(SLOPES[k]));
    }
}

/* More tracks than one bundle, and the same ones alone. */
static void check_batches(void) {
    enum { N = 150 };
    const double parameters[6] = {0.33, 0.03, 0.6, -1.1, 6.5e-5, -2.3e-3};
    double energy[N], cosine[N], p[N][3], one[3];
    for (int t = 0; t < N; t++) {
        energy[t] = 0.1 * (t + 1);
        cosine[t] = -((t * 37) % N) / (N - 1.0);
    }
    neutrino_probabilities(N, energy, cosine, parameters, -1, TAU, p[0]);
    for (int t = 0; t < N; t++) {
        neutrino_probabilities(1, energy + t, cosine + t, parameters, -1, TAU, one);
        CHECK_CLOSE(p[t][0] + p[t][1] + p[t][2], 1, 1e-13);
        CHECK_CLOSE(one[0], p[t][0], 1e-14);
        CHECK_CLOSE(one[2], p[t][2], 1e-14);
    }
}

/* ---- The model -------------------------------------------------------------------------------------------------- */

enum { ROWS = 3000, POINTS = 9, BLOCK = 256, BLOCKS = (ROWS + BLOCK - 1) / BLOCK };

typedef struct answers {
    double value[ROWS], gradient[ROWS][10], sum[POINTS][BLOCKS], slopes[POINTS][BLOCKS][10];
} answers;

/* Points in the bounds and on them; more than the tables that are kept. */
static void choose_points(double points[POINTS][10]) {
    for (int k = 0; k < POINTS; k++) {
        for (int j = 0; j < 10; j++) {
            points[k][j] = LOWER[j] + (UPPER[j] - LOWER[j]) * ((k * 7 + j * 13) % 11) / 10;
        }
    }
}

static int ask(int threads, answers *a, const double *x, double points[POINTS][10]) {
    demos_model model = {0};
    demos_caller *caller = NULL;
    demos_error error;
    int ok = demos_init_model(demos_model_init, "{}", &model, &error) == DEMOS_OK &&
             demos_caller_open(&model, 2, 10, 0, threads, &caller, &error) == DEMOS_OK &&
             demos_call_log_density_gradient(caller, ROWS, x, points[0], 0, a->value, a->gradient[0], &error) == 0 &&
             demos_call_log_likelihood(caller, ROWS, x, POINTS, points[0], BLOCK, a->sum[0], a->slopes[0][0], &error) ==
                 DEMOS_OK;
    demos_caller_close(caller);
    demos_end_model(&model);
    return ok;
}

static void check_threads(void) {
    static double x[ROWS][2], points[POINTS][10];
    static answers one, four;
    choose_points(points);
    for (int i = 0; i < ROWS; i++) {
        x[i][0] = 3 + 57.0 * ((i * 7919) % ROWS) / (ROWS - 1);
        x[i][1] = -1 + ((i * 104729) % ROWS) / (ROWS - 1.0);
    }
    CHECK(ask(1, &one, x[0], points));
    CHECK(ask(4, &four, x[0], points));
    CHECK(memcmp(&one, &four, sizeof one) == 0);
}

int main(void) {
    check_eigensystems();
    check_sines();
    check_long_baseline();
    check_reactor();
    check_castle_wall();
    check_batches();
    check_threads();
    return check_failures > 0;
}
