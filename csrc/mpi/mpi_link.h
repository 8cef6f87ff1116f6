/* A link to the dispatcher of one MPI launch; the twin of demos_hpc/transport/mpi.py. */
#ifndef DEMOS_MPI_LINK_H
#define DEMOS_MPI_LINK_H

#include <mpi.h>

#include "bell.h"
#include "link.h"

/* `rank` is the dispatcher's in `comm`; both and the bell outlive the link. */
int32_t demos_mpi_link_open(MPI_Comm comm, int rank, demos_bell *bell, demos_link **link, demos_error *error);

#endif
