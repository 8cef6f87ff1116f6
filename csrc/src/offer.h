/* What a worker says of itself, and of what went wrong, in JSON (csrc/WIRE.md, 9 and 10). */
#ifndef DEMOS_OFFER_H
#define DEMOS_OFFER_H

#include "config.h"

/* The Offer of a model by a worker that has so many threads, or where `failed` is a status, why there is none; *text is
 * the caller's to free. */
int32_t demos_make_offer(const demos_config *config, const demos_model *model, const char *worker, int32_t threads,
                         int32_t failed, const char *why, char **text, size_t *length, demos_error *error);
/* A Failure, as an object. */
void demos_put_failure(demos_json_writer *writer, int32_t status, const char *message);

#endif
