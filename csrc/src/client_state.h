/* What a client knows of its model. */
#ifndef DEMOS_CLIENT_STATE_H
#define DEMOS_CLIENT_STATE_H

#include "client.h"

struct demos_client {
    demos_channel *channel;
    void (*end)(demos_channel *channel);
    char *name; /* what it was asked for by */
    char *metadata;
    double seconds;
    uint16_t handle;
    uint64_t block_rows;
    size_t d, p, q;
    double *lower, *upper; /* [p] */
};

#endif
