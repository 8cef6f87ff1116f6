/* Clients that are ranks of one MPI launch. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "demos_mpi.h"
#include "error.h"
#include "guard.h"
#include "launch.h"
#include "ticket.h"

/* A process is in one launch, once. */
static demos_launch launch;
static demos_channel channel;
static enum { BEFORE, WITHIN, AFTER } place = BEFORE;

MPI_Comm demos_mpi_comm(void) { return place == WITHIN ? launch.group : MPI_COMM_NULL; }

/* Before MPI_Init() and after MPI_Finalize() Open MPI converts nothing, not even MPI_COMM_NULL: it ends the program. */
int demos_mpi_comm_f(void) { return place == WITHIN ? (int)MPI_Comm_c2f(launch.group) : -1; }

/* The words that this program was started by. */
static void find_words(char *words, size_t size) {
    FILE *file = fopen("/proc/self/cmdline", "re");
    size_t length = file == NULL ? 0 : fread(words, 1, size - 1, file);
    if (file != NULL) {
        fclose(file);
    }
    for (size_t i = 0; i + 1 < length; i++) {
        words[i] = words[i] == '\0' ? ' ' : words[i];
    }
    words[length] = '\0';
}

static void abort_launch(void) { MPI_Abort(MPI_COMM_WORLD, 1); }

static void enter(void) {
    static char words[DEMOS_GROUP_BYTES], said[512];
    find_words(words, sizeof words);
    demos_launch_open(&launch, "client", words);
    snprintf(said, sizeof said,
             "demos-hpc: %s has ended in the middle, without demos_disconnect(); the launch ends for all ranks\n",
             launch.name);
    demos_guard(said, NULL, abort_launch);
    channel = (demos_channel){.link = launch.link, .owner = (int32_t)getpid()};
    place = WITHIN;
}

/* Says goodbye, and waits until all others are done as well. */
static void leave(demos_channel *ended) {
    demos_error error = ended->lost;
    demos_frame *frame = NULL;
    int is_over = error.status == DEMOS_SERVER_LOST; /* END came before: the service is over for all */
    int32_t status = is_over ? DEMOS_OK : error.status;
    if (status == DEMOS_OK && !is_over) {
        status = demos_link_say(ended->link, &(demos_header){.kind = DEMOS_GOODBYE}, &error);
    }
    while (status == DEMOS_OK && !is_over) {
        status = demos_link_await(ended->link, 1e6, &frame, &error);
        is_over = status == DEMOS_OK && frame->header.kind == DEMOS_END;
        demos_frame_give(&ended->link->frames, frame);
        frame = NULL;
    }
    if (status != DEMOS_OK) {
        demos_launch_abort(&launch, error.message);
    }
    place = AFTER;
    demos_guard(NULL, NULL, NULL);
    demos_launch_close(&launch);
}

int32_t demos_mpi_connect(const char *model, demos_client **client, demos_error *error) {
    if (demos_has_ticket()) {
        return demos_connect(model, client, error);
    }
    if (place == AFTER) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "this rank has disconnected, and cannot connect again");
    }
    if (place == BEFORE) {
        enter();
    }
    return demos_client_open(&channel, model, leave, client, error);
}
