/* A program of its own as a worker, through the door: over the connection that it was handed. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "guard.h"
#include "ticket.h"
#include "worker.h"

/* Tells who started this program how its service has ended, since its exit status may say something else. */
static void tell_end(int32_t leash, int32_t status) {
    if (leash > 0 && (status == DEMOS_OK || status == DEMOS_SERVER_LOST)) {
        send(leash, status == DEMOS_OK ? "E" : "L", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

int32_t demos_serve(const demos_model *model, const char *spec, demos_error *error) {
    demos_ticket ticket = {0};
    char *file = NULL;
    demos_link *link = NULL;
    int32_t status = demos_read_ticket("worker", &ticket, error);
    if (status == DEMOS_OK && spec == NULL) {
        status = demos_read_spec(&file, error);
    }
    if (status == DEMOS_OK) {
        status = demos_stream_open(ticket.fd, &link, error);
    }
    if (status == DEMOS_OK) {
        if (ticket.leash > 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* a code that does not return would stay for ever */
        }
        demos_guard("demos-hpc: the code of the model has called exit(): this worker is lost\n", NULL, NULL);
        const demos_duty duty = {.name = ticket.name,
                                 .spec = spec == NULL ? file : spec,
                                 .heartbeat = ticket.heartbeat,
                                 .leash = ticket.leash};
        status = demos_work(link, model, &duty, error);
        tell_end(ticket.leash, status);
        demos_link_flush(link, 1.0);
        link->kind->close(link);
        demos_guard(NULL, NULL, NULL);
    }
    free(file);
    return status;
}
