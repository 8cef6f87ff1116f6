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
 * done, and then ends it as well; `spec` is what the server was given by --spec where it is NULL here. Whatever goes
 * wrong with the launch itself is told on standard error, and ends all of its ranks.
 */
int32_t demos_mpi_serve(const demos_model *model, const char *spec, demos_error *error);

/*
 * Connects to a model of the launch, as demos_connect() does through the door; without a launch it does that. All ranks
 * of an analysis call it, and end by demos_disconnect(), which ends MPI as well where this began it. Ranks that were
 * started by the same words belong together: demos_mpi_comm() has these, in place of MPI_COMM_WORLD, which all ranks of
 * the launch share with the server's. A program that calls MPI_Init() by itself does so before, and MPI_Finalize()
 * after.
 */
int32_t demos_mpi_connect(const char *model, demos_client **client, demos_error *error);
/* Those ranks; MPI_COMM_NULL before the first connection and after the last. */
MPI_Comm demos_mpi_comm(void);
/* The same as Fortran knows it, by MPI_Comm_c2f(); -1, which is no communicator, where that is MPI_COMM_NULL. */
int demos_mpi_comm_f(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
