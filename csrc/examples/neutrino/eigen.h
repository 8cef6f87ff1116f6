/* Eigenvalues and eigenvectors of many real symmetric 3x3 matrices, and cosines and sines of many angles. */
#ifndef NEUTRINO_EIGEN_H
#define NEUTRINO_EIGEN_H

#include "oscillation.h"

/* Destroys the matrices, given as xx, yy, zz, xy, xz, yz, whose largest elements are 0, or 1e-120 to 1e120. */
void diagonalize(tracks matrix[6], eigensystem *eigen);

/* Of angles up to 1e5, to 1 in the last place or 1e-16. */
void compute_sines(const tracks angle, tracks sine, tracks cosine);

#endif
