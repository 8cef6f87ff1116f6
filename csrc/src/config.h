/*
 * The file that says what a model is and how it is served, in JSON (docs/legacy.md): members of its spec, which the
 * model may bring itself, and a few of ours. demos_hpc/glue.py reads the same.
 */
#ifndef DEMOS_CONFIG_H
#define DEMOS_CONFIG_H

#include "json.h"

typedef struct demos_config {
    demos_json file; /* what the file says; wins */
    demos_json own;  /* what the model says of itself */
    char *settings;  /* for demos_model_init(): the member of the file, or "{}" */
    /* After demos_config_complete(): */
    size_t d, p, q;
    size_t block_rows;
    uint32_t flags;       /* enum demos_model_flag: those of the model and of both specs */
    int32_t threads;      /* 0: the file does not say */
    uint64_t chunk_bytes; /* most that a chunk may have; 0: any */
} demos_config;

#pragma GCC visibility push(default)

/* Reads the text of a file, which has to outlive *config; "{}" where there is none. */
int32_t demos_config_open(demos_config *config, const char *file, demos_error *error);
/* Adds what the model says; DEMOS_INVALID_INPUT names all that is missing for the functions that it has. */
int32_t demos_config_complete(demos_config *config, const demos_model *model, demos_error *error);
void demos_config_close(demos_config *config);
/* A text of the file, or else of the environment; empty where neither has it. */
int32_t demos_config_setting(const demos_config *config, const char *name, const char *variable, char *text,
                             size_t size, demos_error *error);
/* The value of a member, in the file if it is there, else in the model's own spec: *json says which; 0 for none. */
size_t demos_config_find(const demos_config *config, const char *name, const demos_json **json);
/* Writes the spec as an object, with the names of the operations that the model offers. */
void demos_config_put_spec(const demos_config *config, const demos_model *model, demos_json_writer *writer);

#pragma GCC visibility pop

#endif
