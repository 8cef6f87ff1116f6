/* This rank's place in one MPI launch, after the roll call; the twin of demos_hpc/launch.py. */
#ifndef DEMOS_LAUNCH_H
#define DEMOS_LAUNCH_H

#include <mpi.h>

#include "bell.h"
#include "link.h"

/* Bytes of the words that a group was started by. */
enum { DEMOS_GROUP_BYTES = 16384 };

typedef struct demos_launch {
    int rank, size;
    char name[320];  /* "rank 3 on node7" */
    MPI_Comm group;  /* the ranks that belong together with this one */
    MPI_Comm joined; /* the same with those of the server; MPI_COMM_NULL on servers */
    demos_bell bell;
    demos_link *link; /* to the dispatcher */
    char *spec;       /* the description that the server was given, NULL for none */
    int must_finalize;
} demos_launch;

/* Takes part in the launch as "server" or "client". Where that fails it says why and ends the launch: others wait. */
void demos_launch_open(demos_launch *launch, const char *role, const char *group);
/* Waits until all is sent, and ends MPI together with all other ranks. */
void demos_launch_close(demos_launch *launch);
/* Says why, and ends every rank of the launch. */
_Noreturn void demos_launch_abort(const demos_launch *launch, const char *message);

#endif
