/* A chunk of a model's rows, computed. */
#ifndef DEMOS_CHUNK_H
#define DEMOS_CHUNK_H

#include "config.h"
#include "frame.h"

/* What is needed to compute one. */
typedef struct demos_served {
    demos_frames *frames;
    const demos_config *config;
    demos_caller *caller; /* NULL where the model cannot be served */
} demos_served;

/* Header of the RESULT of a chunk. */
demos_header demos_answer_to(const demos_header *chunk);
/* Makes the RESULT; *result may have to be given back even where this fails. */
int32_t demos_compute(demos_served *w, const demos_frame *chunk, demos_frame **result, demos_error *error);

#endif
