/* What clients over a connection that was handed over, and in a launch, have in common. */
#ifndef DEMOS_CLIENT_H
#define DEMOS_CLIENT_H

#include "request.h"

#pragma GCC visibility push(default)
/* A client over a channel, of which the last one to be closed calls `end`. */
int32_t demos_client_open(demos_channel *channel, const char *model, void (*end)(demos_channel *channel),
                          demos_client **client, demos_error *error);
#pragma GCC visibility pop

#endif
