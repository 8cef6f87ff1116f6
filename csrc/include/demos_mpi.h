/*
 * demos_mpi.h: programs that are ranks of an MPI launch, with libdemos_mpi; demos.h has the rest.
 *
 *     mpiexec -n 1 demos-hpc serve --spec my_model.json : -n 4 ./my_model : -n 1 python -m demos_hpc analysis.py
 *
 * The same program joins a server through its door where `demos-hpc worker --join NAME --exec ./my_model` starts it: it
 * then has nothing to do with MPI.
 */
#ifndef DEMOS_MPI_H
#define DEMOS_MPI_H

#include <mpi.h>

#include "demos.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/*
 * Serves a model until the service is over, as demos_serve() does. In a launch it initializes MPI, unless that has been
 * done, and then ends it as well; `spec` is what the server was given by --spec where it is NULL here. Whatever goes wrong
 * with the launch itself is told on standard error, and ends all of its ranks.
 */
int32_t demos_mpi_serve(const demos_model *model, const char *spec, demos_error *error);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
