/* Reading JSON: one pass that checks and counts, one that writes down where every value is; no recursion. */
#define _POSIX_C_SOURCE 200809L
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "json_text.h"
#include "unicode.h"

typedef struct scanner {
    const char *text;
    size_t length, at;
    demos_json_value *values; /* NULL: only count */
    size_t n_values;
    size_t depth;
    struct {
        uint32_t value, count; /* its number, and how many are in it so far */
        char closing;
    } open[DEMOS_JSON_DEPTH];
    demos_error *error;
} scanner;

static int32_t refuse(const scanner *s, const char *what) {
    return demos_fail(s->error, DEMOS_INVALID_INPUT, "not JSON at byte %zu of %zu: %s", s->at, s->length, what);
}

static int peek(const scanner *s) { return s->at < s->length ? (unsigned char)s->text[s->at] : -1; }

static void skip_space(scanner *s) {
    for (int c = peek(s); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = peek(s)) {
        s->at++;
    }
}

static uint32_t add_value(scanner *s, uint32_t kind, size_t start, size_t end) {
    if (s->values != NULL) {
        uint32_t after = (uint32_t)s->n_values + 1;
        s->values[s->n_values] = (demos_json_value){kind, (uint32_t)start, (uint32_t)end, 0, after};
    }
    return (uint32_t)s->n_values++;
}

/* ---- Texts and numbers ------------------------------------------------------------------------------------------ */

static int32_t scan_text(scanner *s) {
    size_t start = ++s->at;
    char bytes[DEMOS_LONGEST_CHARACTER];
    size_t n_bytes = 0;
    while (peek(s) != '"') {
        size_t taken = demos_json_read_character(s->text + s->at, s->length - s->at, bytes, &n_bytes);
        if (taken == 0) {
            return refuse(s, peek(s) < 0 ? "a text has no end" : "a text with a character that it may not have");
        }
        s->at += taken;
    }
    add_value(s, DEMOS_JSON_TEXT, start, s->at++);
    return DEMOS_OK;
}

static size_t skip_digits(scanner *s) {
    size_t start = s->at;
    while (peek(s) >= '0' && peek(s) <= '9') {
        s->at++;
    }
    return s->at - start;
}

static int32_t scan_number(scanner *s) {
    size_t start = s->at;
    s->at += peek(s) == '-';
    if (peek(s) == '0') {
        s->at++;
    } else if (skip_digits(s) == 0) {
        return refuse(s, "a value is missing");
    }
    int is_whole = 1;
    if (peek(s) == '.') {
        s->at++;
        is_whole = 0;
        if (skip_digits(s) == 0) {
            return refuse(s, "a number with no digit behind its point");
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        is_whole = 0;
        s->at += peek(s) == '+' || peek(s) == '-';
        if (skip_digits(s) == 0) {
            return refuse(s, "a number with no digit in its exponent");
        }
    }
    size_t length = s->at - start;
    if (length > DEMOS_JSON_LONGEST_NUMBER) {
        return refuse(s, "a number of more than 511 characters");
    }
    /* What is short cannot overflow; and converting takes long. */
    if ((!is_whole || length > 300) && s->values == NULL && !isfinite(demos_json_convert(s->text + start, length))) {
        return refuse(s, "a number that is too large for a double");
    }
    add_value(s, DEMOS_JSON_NUMBER, start, s->at);
    return DEMOS_OK;
}

static int32_t scan_word(scanner *s, const char *word, uint32_t kind) {
    size_t length = strlen(word);
    if (s->length - s->at < length || memcmp(s->text + s->at, word, length) != 0) {
        return refuse(s, "a value is missing");
    }
    add_value(s, kind, s->at, s->at + length);
    s->at += length;
    return DEMOS_OK;
}

/* ---- Arrays and objects ----------------------------------------------------------------------------------------- */

static int32_t open_container(scanner *s) {
    int is_object = peek(s) == '{';
    if (s->depth == DEMOS_JSON_DEPTH) {
        return refuse(s, "arrays and objects in one another more than 64 deep");
    }
    uint32_t value = add_value(s, is_object ? DEMOS_JSON_OBJECT : DEMOS_JSON_ARRAY, s->at, 0);
    s->open[s->depth].value = value;
    s->open[s->depth].count = 0;
    s->open[s->depth].closing = is_object ? '}' : ']';
    s->depth++;
    s->at++;
    return DEMOS_OK;
}

static void close_container(scanner *s) {
    s->depth--;
    s->at++;
    if (s->values != NULL) {
        demos_json_value *value = &s->values[s->open[s->depth].value];
        value->end = (uint32_t)s->at;
        value->count = s->open[s->depth].count;
        value->after = (uint32_t)s->n_values;
    }
}

static int32_t scan_value(scanner *s) {
    switch (peek(s)) {
    case '{':
    case '[':
        return open_container(s);
    case '"':
        return scan_text(s);
    case 't':
        return scan_word(s, "true", DEMOS_JSON_TRUE);
    case 'f':
        return scan_word(s, "false", DEMOS_JSON_FALSE);
    case 'n':
        return scan_word(s, "null", DEMOS_JSON_NULL);
    default:
        return scan_number(s);
    }
}

/* Goes on behind a value, or behind the bracket of a container that was just opened, to where the next value begins;
 * *is_over where there is none. */
static int32_t find_next(scanner *s, int is_open, int *is_over) {
    for (;; is_open = 0) {
        skip_space(s);
        if (s->depth == 0) {
            *is_over = 1;
            return s->at == s->length ? DEMOS_OK : refuse(s, "something stands behind the value");
        }
        char closing = s->open[s->depth - 1].closing;
        if (peek(s) == closing) {
            close_container(s);
            continue;
        }
        if (!is_open) {
            if (peek(s) != ',') {
                return refuse(s, closing == '}' ? "',' or '}' is missing" : "',' or ']' is missing");
            }
            s->at++;
            skip_space(s);
        }
        s->open[s->depth - 1].count++;
        if (closing == '}') {
            if (peek(s) != '"') {
                return refuse(s, "a name in quotation marks is missing");
            }
            int32_t status = scan_text(s);
            if (status != DEMOS_OK) {
                return status;
            }
            skip_space(s);
            if (peek(s) != ':') {
                return refuse(s, "':' is missing");
            }
            s->at++;
            skip_space(s);
        }
        return DEMOS_OK;
    }
}

static int32_t scan(scanner *s) {
    s->at = s->n_values = s->depth = 0;
    skip_space(s);
    for (int is_over = 0; !is_over;) {
        size_t depth = s->depth;
        int32_t status = scan_value(s);
        if (status == DEMOS_OK) {
            status = find_next(s, s->depth > depth, &is_over);
        }
        if (status != DEMOS_OK) {
            return status;
        }
    }
    return DEMOS_OK;
}

int32_t demos_json_open(demos_json *json, const char *text, size_t length, demos_error *error) {
    *json = (demos_json){.text = text};
    if (length > DEMOS_JSON_BYTES) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "JSON of %zu bytes; at most %d are read", length,
                          DEMOS_JSON_BYTES);
    }
    scanner s = {.text = text, .length = length, .error = error};
    int32_t status = scan(&s);
    if (status != DEMOS_OK) {
        return status;
    }
    s.values = malloc(s.n_values * sizeof *s.values);
    if (s.values == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for the %zu values of a JSON text", s.n_values);
    }
    json->values = s.values;
    json->n_values = s.n_values;
    return scan(&s);
}

void demos_json_close(demos_json *json) {
    free(json->values);
    *json = (demos_json){0};
}
