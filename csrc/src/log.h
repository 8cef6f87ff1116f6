/* Structured logs, an event and its fields a line, in the two forms that demos_hpc/logs.py writes. */
#ifndef DEMOS_LOG_H
#define DEMOS_LOG_H

#include "demos.h"

enum demos_log_level { DEMOS_LOG_DEBUG = 10, DEMOS_LOG_INFO = 20, DEMOS_LOG_WARNING = 30, DEMOS_LOG_ERROR = 40 };

typedef struct demos_log {
    int32_t level; /* of the least that is written */
    int32_t file;  /* descriptor */
    int32_t is_json;
    char role[32], name[64];
} demos_log;

typedef struct demos_field {
    const char *name;
    const char *text; /* NULL: the number counts */
    double number;
} demos_field;

#pragma GCC visibility push(default)

/* `level` is "debug", "info", "warning" or "error"; `file` the path of a file for JSON lines, to which nobody else
 * writes, or NULL for standard error and lines for people. */
int32_t demos_log_open(demos_log *log, const char *level, const char *file, const char *role, const char *name,
                       demos_error *error);
void demos_log_close(demos_log *log);
/* Writes one line in one piece; a line that cannot be written is lost, and never an error. */
void demos_log_write(const demos_log *log, int32_t level, const char *part, const char *event,
                     const demos_field *fields, size_t n_fields);

#pragma GCC visibility pop

#endif
