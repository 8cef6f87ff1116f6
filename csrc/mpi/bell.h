/* How a rank waits without using its core, and wakes its dispatcher; the twin of demos_hpc/transport/doorbell.py. */
#ifndef DEMOS_BELL_H
#define DEMOS_BELL_H

#include <netinet/in.h>
#include <sys/un.h>

#include "demos.h"

/* Bytes of an address as text for a HELLO. */
enum { DEMOS_BELL_BYTES = 1024 };

typedef struct demos_bell {
    char name[64];
    int32_t unix_fd, udp_fd;
    uint16_t udp_port;
    int32_t by_udp;
    /* A byte for each process of this host; NULL where nobody is known yet. */
    volatile uint8_t *flags;
    size_t n_flags, me;
    /* The dispatcher's: */
    int32_t is_near;
    struct sockaddr_un near;
    socklen_t near_length;
    struct sockaddr_in far;
    double rung;
    /* Of the wait that is under way: */
    double window, yield_seconds, since, awake_until, nap, longest;
    int32_t looks, is_waiting;
} demos_bell;

/* Whether something has come. */
typedef int32_t (*demos_look)(void *what);

int32_t demos_bell_open(demos_bell *bell, demos_error *error);
void demos_bell_close(demos_bell *bell);
/* Where others ring, a text in JSON. */
void demos_bell_address(const demos_bell *bell, char text[DEMOS_BELL_BYTES]);
/* Learns of the dispatcher's address and its own number among n ranks; the token is the same for all. */
int32_t demos_bell_meet(demos_bell *bell, const char *dispatcher, size_t me, size_t n, const char *token,
                        demos_error *error);
/* Wakes the dispatcher if it sleeps; call it after sending. */
void demos_bell_ring(demos_bell *bell);
/* Wakes it if it sleeps while it has something to send; call it after receiving. */
void demos_bell_nudge(demos_bell *bell);
/* What was waited for has come. */
void demos_bell_has_come(demos_bell *bell);
/* Yields the core until look() or `until` on the clock of demos_now(); whether something has come. */
int32_t demos_bell_spin(demos_look look, void *what, double until);
/* Until look(), a ring, or about so many seconds. `is_stuck`: something could not be sent yet. */
void demos_bell_wait(demos_bell *bell, demos_look look, void *what, double seconds, int32_t is_stuck);

#endif
