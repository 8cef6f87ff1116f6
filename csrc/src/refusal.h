/* What the other side says of a failure. */
#ifndef DEMOS_REFUSAL_H
#define DEMOS_REFUSAL_H

#include "frame.h"

/* Makes an error of a frame whose status is not DEMOS_OK. */
int32_t demos_read_refusal(const demos_frame *frame, demos_error *error);

#endif
