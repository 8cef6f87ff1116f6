/* The density at the events that are asked for. */
#ifndef NEUTRINO_EVENTS_H
#define NEUTRINO_EVENTS_H

#include <stddef.h>

#include "response.h"

/* As many as are computed together. */
enum { EVENTS = 1024 };

/* log P of n <= EVENTS events, and its gradient unless that is NULL; but of those only whose value is 0 before. */
void events_compute(const response *d, const expansion *e, size_t n, const double *x /* [n][2] */,
                    double *value /* [n] */, double *gradient /* [n][N_PARAMS] */);

#endif
