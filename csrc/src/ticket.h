/* A connection that somebody else has made and proved (demos_hpc/handover.py), and what describes the model. */
#ifndef DEMOS_TICKET_H
#define DEMOS_TICKET_H

#include "link.h"

typedef struct demos_ticket {
    int32_t fd;
    int32_t
        leash; /* a socket to whoever handed it over: it says how we ended, and its end that they have; 0 for none */
    char role[16], name[64];
    double heartbeat;
} demos_ticket;

#pragma GCC visibility push(default)

/* Whether this program was started with one. */
int32_t demos_has_ticket(void);
/* Reads it, once; DEMOS_INVALID_INPUT where there is none, or one for another role. */
int32_t demos_read_ticket(const char *role, demos_ticket *ticket, demos_error *error);
/* The text of the file that DEMOS_SPEC names, NULL where it names none; the caller's to free. */
int32_t demos_read_spec(char **text, demos_error *error);

#pragma GCC visibility pop

#endif
