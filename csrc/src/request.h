/* One request of a client, from its first frame to the last of its answer; the twin of demos_hpc/connection.py. */
#ifndef DEMOS_REQUEST_H
#define DEMOS_REQUEST_H

#include "link.h"

/* The way to the dispatcher, which several clients of one process may share. */
typedef struct demos_channel {
    demos_link *link;
    uint64_t last_id;
    int32_t n_clients;
    int32_t owner; /* the process that has it: forks would take one another's answers */
    uint64_t most_bytes; /* of all answers that were asked for */
    demos_error lost;    /* why nothing will come over it any more; of status DEMOS_OK while it stands */
} demos_channel;

/* An array of the request; `width` doubles a row, 0 for an array of one dimension. */
typedef struct demos_input {
    const void *data;
    uint8_t dtype;
    uint64_t rows, width;
} demos_input;

typedef struct demos_request {
    demos_header header; /* operation, flags, model, first_row, n_rows, seed */
    demos_input inputs[2];
    uint32_t n_inputs;
    uint32_t n_per_row; /* the first so many have a row for each row of the request, and may travel in parts */
    uint64_t part_rows; /* so many rows each; 0: all at once */
    /* The answer: rows of outputs, `widths` doubles each; where there is none, a text. */
    uint64_t n_units;
    double *outputs[2];
    uint64_t widths[2];
    uint32_t n_outputs;
    double seconds;
} demos_request;

/* What came back beside the outputs. */
typedef struct demos_reply {
    uint32_t revision;
    char *text; /* the caller's to free; NULL for none */
    size_t length;
} demos_reply;

#pragma GCC visibility push(default)
int32_t demos_ask(demos_channel *channel, const demos_request *request, demos_reply *reply, demos_error *error);
#pragma GCC visibility pop

#endif
