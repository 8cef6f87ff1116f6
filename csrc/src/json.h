/*
 * JSON (RFC 8259), read and written within bounds: what a peer or a file may say is text of at most DEMOS_JSON_BYTES,
 * DEMOS_JSON_DEPTH deep. Reading allocates once, 20 bytes for each value of the text; writing never does.
 */
#ifndef DEMOS_JSON_H
#define DEMOS_JSON_H

#include "demos.h"

enum demos_json_limit { DEMOS_JSON_BYTES = 4194304, DEMOS_JSON_DEPTH = 64 };

enum demos_json_kind {
    DEMOS_JSON_NULL = 1,
    DEMOS_JSON_FALSE = 2,
    DEMOS_JSON_TRUE = 3,
    DEMOS_JSON_NUMBER = 4,
    DEMOS_JSON_TEXT = 5,
    DEMOS_JSON_ARRAY = 6,
    DEMOS_JSON_OBJECT = 7 /* names and values by turns */
};

typedef struct demos_json_value {
    uint32_t kind;  /* enum demos_json_kind */
    uint32_t start; /* in the text; of a text behind its quotation mark */
    uint32_t end;   /* of a text before its quotation mark */
    uint32_t count; /* values of an array, members of an object */
    uint32_t after; /* the value behind this one and all that is in it */
} demos_json_value;

/* A text and the values in it, in their order; value 0 is the whole. The text is the caller's, and outlives this. */
typedef struct demos_json {
    const char *text;
    demos_json_value *values;
    size_t n_values;
} demos_json;

#pragma GCC visibility push(default)

/* Reads a text; DEMOS_INVALID_INPUT where it is not JSON from end to end. A lone surrogate, a number that no double can
 * hold and more bytes or depth than the limits are refused as well. Of members of one name the last one counts. */
int32_t demos_json_open(demos_json *json, const char *text, size_t length, demos_error *error);
void demos_json_close(demos_json *json);

/* The member of an object, 0 where there is none or `object` is no object. */
size_t demos_json_find(const demos_json *json, size_t object, const char *name);
/* The first value in an array or object, and the one behind `value`; compare with demos_json_end(). */
size_t demos_json_first(const demos_json *json, size_t container);
size_t demos_json_next(const demos_json *json, size_t value);
size_t demos_json_end(const demos_json *json, size_t container);
/* Whether a value is this text. */
int32_t demos_json_is(const demos_json *json, size_t value, const char *text);

/* A text, with a 0 behind it; DEMOS_INVALID_INPUT where it is none, does not fit into `size` > 0 or has a 0 in it. */
int32_t demos_json_read_text(const demos_json *json, size_t value, char *text, size_t size, demos_error *error);
/* A number; whatever the locale. */
int32_t demos_json_read_number(const demos_json *json, size_t value, double *number, demos_error *error);
/* A number without sign, point and exponent, at most `most`. */
int32_t demos_json_read_unsigned(const demos_json *json, size_t value, uint64_t most, uint64_t *number,
                                 demos_error *error);
/* true or false. */
int32_t demos_json_read_bool(const demos_json *json, size_t value, int32_t *is_true, demos_error *error);

/* Writes into memory of the caller; what does not fit is counted and left out, as snprintf() does. */
typedef struct demos_json_writer {
    char *text;
    size_t size;
    size_t used;    /* bytes that the text has or would have */
    uint64_t kinds; /* of what is open, a bit each: 1 = object */
    uint32_t depth;
    uint32_t is_first;
} demos_json_writer;

void demos_json_begin(demos_json_writer *writer, char *text, size_t size);
void demos_json_open_object(demos_json_writer *writer);
void demos_json_open_array(demos_json_writer *writer);
void demos_json_close_last(demos_json_writer *writer);
void demos_json_name(demos_json_writer *writer, const char *name);
/* Bytes that are no UTF-8, as the Latin-1 of an old code, become U+FFFD. */
void demos_json_put_text(demos_json_writer *writer, const char *text);
/* 17 digits, so that it is read as the same; null for nan and infinities, which JSON does not have. */
void demos_json_put_number(demos_json_writer *writer, double number);
void demos_json_put_unsigned(demos_json_writer *writer, uint64_t number);
void demos_json_put_bool(demos_json_writer *writer, int32_t is_true);
void demos_json_put_null(demos_json_writer *writer);
/* What is JSON already. */
void demos_json_put_raw(demos_json_writer *writer, const char *text, size_t length);
/* Closes whatever is open, and returns the length; DEMOS_TOO_LARGE where the memory was too small. */
int32_t demos_json_finish(demos_json_writer *writer, size_t *length, demos_error *error);

#pragma GCC visibility pop

#endif
