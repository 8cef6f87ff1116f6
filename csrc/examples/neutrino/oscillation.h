/*
 * Three-flavor neutrino oscillations through layers of constant density, with their exact gradient, for 64 tracks at a
 * time. Formulas and conventions are those of demos_hpc/models/oscillation.py.
 *
 * In units of 1/km the Hamiltonian is H = U diag(0, dm21, dm31) U^+ / 2E + diag(V, 0, 0), and a layer of length L has
 * the propagator S = exp(-i H L) (Barger, Whisnant, Pakvasa and Phillips, Phys. Rev. D 22 (1980) 2718). H = W M W^+,
 * where W = R23 diag(1, 1, exp(i delta)) and M is real, symmetric and free of theta23 and delta (Denton and Parke,
 * arXiv:2405.02400): the hermitian eigenproblem is a real one, and W is applied once at each end.
 */
#ifndef NEUTRINO_OSCILLATION_H
#define NEUTRINO_OSCILLATION_H

#include <stddef.h>

enum {
    TRACKS = 64,     /* computed together; loops over them are what is vectorized */
    MOST_LAYERS = 8, /* on a track */
    N_MIXING = 6
};

enum neutrino_flavor { ELECTRON, MUON, TAU };

/* A number for each track. */
typedef double tracks[TRACKS];

/* The oscillation parameters: squares of the sines of the angles, the CP phase in radians, eV^2. */
typedef struct mixing {
    double s12sq, s13sq, s23sq, delta, dm21, dm31;
} mixing;

/* What the mixing is made of, for neutrinos or antineutrinos; symmetric matrices are xx, yy, zz, xy, xz, yz. */
typedef struct mixing_matrices {
    double mass[6];                              /* M in vacuum times 2E, eV^2 */
    double mass_slopes[4][6];                    /* by s12sq, s13sq, dm21, dm31 */
    double squares[3];                           /* its eigenvalues, eV^2 */
    double vectors[3][3];                        /* its eigenvectors, in columns */
    double re[3][3], im[3][3];                   /* W; rows are flavors */
    double slope_re[2][3][3], slope_im[2][3][3]; /* by s23sq, delta */
} mixing_matrices;

/* Eigenvalues, 1/km, and eigenvectors, in columns, of the Hamiltonians of one density. */
typedef struct eigensystem {
    tracks value[3];
    tracks vector[3][3];
} eigensystem;

/* A layer as the tracks cross it. Phases are relative to the first eigenvalue's, which changes no probability. */
typedef struct layer {
    const eigensystem *eigen;
    tracks length;             /* km; 0 where a track misses the layer */
    tracks cosine[2], sine[2]; /* of (l_k - l_0) L / 2, k = 1, 2 */
} layer;

/* Three complex amplitudes. */
typedef struct state {
    tracks re[3], im[3];
} state;

/* The layers that tracks cross, from the source to the detector; one may be there twice. */
typedef struct path {
    size_t n;
    const layer *layers[MOST_LAYERS];
} path;

/* sign is 1 for neutrinos and -1 for antineutrinos. */
void mixing_make(const mixing *parameters, double sign, mixing_matrices *matrices);

/* Of H in matter of `electrons` mol/cm^3, for energies in GeV. */
void eigensystem_in_matter(const mixing_matrices *matrices, double sign, double electrons, const double *energy,
                           eigensystem *eigen);
void eigensystem_in_vacuum(const mixing_matrices *matrices, const double *energy, eigensystem *eigen);

/* Where the layer's eigensystem and lengths are set already. */
void layer_set_phases(layer *l);

/* P[a -> final] of the three flavors a. */
void oscillate(const mixing_matrices *matrices, const path *way, enum neutrino_flavor final, tracks probability[3]);
/* The same, and the gradient of sum_a weight_a P[a -> final] in the order and the units of `mixing`. At the ends of
 * [0, 1] the derivative by a squared sine is infinite in general; a large finite one is returned. */
void oscillate_gradient(const mixing_matrices *matrices, const path *way, enum neutrino_flavor final,
                        const double *energy, tracks weight[3], tracks probability[3], tracks gradient[N_MIXING]);

#endif
