/* Writing JSON into memory that somebody else has. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "json.h"
#include "numbers.h"
#include "unicode.h"

static void put(demos_json_writer *w, const char *bytes, size_t length) {
    if (w->used < w->size) {
        size_t room = w->size - w->used;
        memcpy(w->text + w->used, bytes, length < room ? length : room);
    }
    w->used += length;
}

static void put_string(demos_json_writer *w, const char *text) { put(w, text, strlen(text)); }

/* What stands between two values. */
static void separate(demos_json_writer *w) {
    if (!w->is_first) {
        put_string(w, ", ");
    }
    w->is_first = 0;
}

static void put_quoted(demos_json_writer *w, const char *text) {
    put_string(w, "\"");
    for (size_t length = strlen(text); length > 0;) {
        size_t size = demos_measure_character(text, length);
        if (size == 0) {
            put_string(w, "\\ufffd");
            size = 1;
        } else if (*text == '"' || *text == '\\') {
            put_string(w, "\\");
            put(w, text, 1);
        } else if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            char escaped[8];
            put(w, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)*text));
        } else {
            put(w, text, size);
        }
        text += size;
        length -= size;
    }
    put_string(w, "\"");
}

void demos_json_begin(demos_json_writer *writer, char *text, size_t size) {
    *writer = (demos_json_writer){.text = text, .size = size, .is_first = 1};
}

static void open_last(demos_json_writer *w, int is_object) {
    separate(w);
    put_string(w, is_object ? "{" : "[");
    w->kinds = w->kinds << 1 | (uint64_t)is_object; /* DEMOS_JSON_DEPTH bits */
    w->depth++;
    w->is_first = 1;
}

void demos_json_open_object(demos_json_writer *writer) { open_last(writer, 1); }

void demos_json_open_array(demos_json_writer *writer) { open_last(writer, 0); }

void demos_json_close_last(demos_json_writer *writer) {
    put_string(writer, writer->kinds & 1 ? "}" : "]");
    writer->kinds >>= 1;
    writer->depth--;
    writer->is_first = 0;
}

void demos_json_name(demos_json_writer *writer, const char *name) {
    separate(writer);
    put_quoted(writer, name);
    put_string(writer, ": ");
    writer->is_first = 1; /* nothing stands before its value */
}

void demos_json_put_text(demos_json_writer *writer, const char *text) {
    separate(writer);
    put_quoted(writer, text);
}

void demos_json_put_number(demos_json_writer *writer, double number) {
    if (!isfinite(number)) {
        demos_json_put_null(writer);
        return;
    }
    separate(writer);
    char digits[DEMOS_NUMBER_BYTES];
    demos_format_number(digits, number);
    put_string(writer, digits);
}

void demos_json_put_unsigned(demos_json_writer *writer, uint64_t number) {
    separate(writer);
    char digits[32];
    put(writer, digits, (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)number));
}

void demos_json_put_bool(demos_json_writer *writer, int32_t is_true) {
    separate(writer);
    put_string(writer, is_true ? "true" : "false");
}

void demos_json_put_null(demos_json_writer *writer) {
    separate(writer);
    put_string(writer, "null");
}

void demos_json_put_raw(demos_json_writer *writer, const char *text, size_t length) {
    separate(writer);
    put(writer, text, length);
}

int32_t demos_json_finish(demos_json_writer *writer, size_t *length, demos_error *error) {
    while (writer->depth > 0) {
        demos_json_close_last(writer);
    }
    *length = writer->used;
    if (writer->used >= writer->size) {
        return demos_fail(error, DEMOS_TOO_LARGE, "JSON of %zu bytes where there is room for %zu", writer->used,
                          writer->size);
    }
    writer->text[writer->used] = '\0';
    return DEMOS_OK;
}
