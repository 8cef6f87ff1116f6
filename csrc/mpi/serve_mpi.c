/* A rank of one MPI launch, or a program that joins through the door, as a worker. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "demos_mpi.h"
#include "guard.h"
#include "launch.h"
#include "ticket.h"
#include "worker.h"

static void abort_launch(void) { MPI_Abort(MPI_COMM_WORLD, 1); }

static void guard(const demos_launch *launch) {
    static char exit_words[1024], crash_words[1024];
    static const char remedy[] = "and MPI ends the whole launch with it. Workers of a server of their own are lost one"
                                 " at a time: demos-hpc serve --exec PROGRAM --workers 4";
    snprintf(exit_words, sizeof exit_words, "demos-hpc: %s: the code of the model has called exit(), %s\n",
             launch->name, remedy);
    snprintf(crash_words, sizeof crash_words, "demos-hpc: %s: the code of the model has crashed, %s\n", launch->name,
             remedy);
    demos_guard(exit_words, crash_words, abort_launch);
}

static int32_t serve_in_launch(const demos_model *model, const char *spec, demos_error *error) {
    demos_launch launch;
    char *file = NULL;
    demos_launch_open(&launch, "server", "server");
    int32_t status = DEMOS_OK;
    if (spec == NULL && launch.spec == NULL) {
        status = demos_read_spec(&file, error);
    }
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the analysis, which ends the launch */
    if (status == DEMOS_OK) {
        const demos_duty duty = {.name = launch.name,
                                 .spec = spec != NULL          ? spec
                                         : launch.spec != NULL ? launch.spec
                                                               : file};
        guard(&launch);
        status = demos_work(launch.link, model, &duty, error);
        demos_guard(NULL, NULL, NULL);
    }
    if (status != DEMOS_OK) {
        demos_launch_abort(&launch, error->message);
    }
    demos_launch_close(&launch);
    free(file);
    return DEMOS_OK;
}

int32_t demos_mpi_serve(const demos_model *model, const char *spec, demos_error *error) {
    demos_error own;
    error = error == NULL ? &own : error;
    return demos_has_ticket() ? demos_serve(model, spec, error) : serve_in_launch(model, spec, error);
}
