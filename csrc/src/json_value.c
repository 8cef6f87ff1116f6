/* What is in a JSON text that was read. */
#define _POSIX_C_SOURCE 200809L
#include <string.h>

#include "error.h"
#include "json.h"
#include "json_text.h"
#include "unicode.h"

enum { QUOTED_BYTES = 40 /* of a value that a message quotes */ };

size_t demos_json_first(const demos_json *json, size_t container) {
    (void)json;
    return container + 1;
}

size_t demos_json_next(const demos_json *json, size_t value) { return json->values[value].after; }

size_t demos_json_end(const demos_json *json, size_t container) { return json->values[container].after; }

int32_t demos_json_is(const demos_json *json, size_t value, const char *text) {
    const demos_json_value *v = &json->values[value];
    char bytes[DEMOS_LONGEST_CHARACTER];
    size_t n_bytes = 0;
    for (size_t at = v->start; v->kind == DEMOS_JSON_TEXT && at < v->end;) {
        at += demos_json_read_character(json->text + at, v->end - at, bytes, &n_bytes);
        if (strnlen(text, n_bytes) < n_bytes || memcmp(text, bytes, n_bytes) != 0) {
            return 0;
        }
        text += n_bytes;
    }
    return v->kind == DEMOS_JSON_TEXT && *text == '\0';
}

size_t demos_json_find(const demos_json *json, size_t object, const char *name) {
    size_t found = 0;
    if (json->values[object].kind == DEMOS_JSON_OBJECT) {
        size_t end = demos_json_end(json, object);
        for (size_t at = demos_json_first(json, object); at < end; at = demos_json_next(json, at + 1)) {
            if (demos_json_is(json, at, name)) {
                found = at + 1;
            }
        }
    }
    return found;
}

/* An error about a value, which is quoted. */
static int32_t reject(const demos_json *json, size_t value, const char *wanted, demos_error *error) {
    const demos_json_value *v = &json->values[value];
    size_t start = v->start - (v->kind == DEMOS_JSON_TEXT), length = v->end + (v->kind == DEMOS_JSON_TEXT) - start;
    size_t shown = 0;
    while (shown < length && shown < QUOTED_BYTES) {
        shown += demos_measure_character(json->text + start + shown, length - shown);
    }
    return demos_fail(error, DEMOS_INVALID_INPUT, "%.*s%s is not %s", (int)shown, json->text + start,
                      shown < length ? "..." : "", wanted);
}

int32_t demos_json_read_text(const demos_json *json, size_t value, char *text, size_t size, demos_error *error) {
    const demos_json_value *v = &json->values[value];
    if (v->kind != DEMOS_JSON_TEXT) {
        return reject(json, value, "a text", error);
    }
    char bytes[DEMOS_LONGEST_CHARACTER];
    size_t used = 0, n_bytes = 0;
    for (size_t at = v->start; at < v->end;) {
        at += demos_json_read_character(json->text + at, v->end - at, bytes, &n_bytes);
        if (bytes[0] == '\0') {
            return reject(json, value, "a text without the character 0", error);
        }
        if (used + n_bytes >= size) {
            demos_error wanted;
            demos_fail(&wanted, 0, "a text of less than %zu bytes", size);
            return reject(json, value, wanted.message, error);
        }
        memcpy(text + used, bytes, n_bytes);
        used += n_bytes;
    }
    text[used] = '\0';
    return DEMOS_OK;
}

int32_t demos_json_read_number(const demos_json *json, size_t value, double *number, demos_error *error) {
    const demos_json_value *v = &json->values[value];
    if (v->kind != DEMOS_JSON_NUMBER) {
        return reject(json, value, "a number", error);
    }
    *number = demos_json_convert(json->text + v->start, v->end - v->start);
    return DEMOS_OK;
}

int32_t demos_json_read_unsigned(const demos_json *json, size_t value, uint64_t most, uint64_t *number,
                                 demos_error *error) {
    const demos_json_value *v = &json->values[value];
    uint64_t read = 0;
    int is_right = v->kind == DEMOS_JSON_NUMBER;
    for (size_t at = v->start; is_right && at < v->end; at++) {
        uint64_t digit = (uint64_t)(json->text[at] - '0');
        is_right = json->text[at] >= '0' && json->text[at] <= '9' && read <= (UINT64_MAX - digit) / 10;
        read = read * 10 + digit;
    }
    if (!is_right || read > most) {
        demos_error wanted;
        demos_fail(&wanted, 0, "a whole number of at most %llu", (unsigned long long)most);
        return reject(json, value, wanted.message, error);
    }
    *number = read;
    return DEMOS_OK;
}

int32_t demos_json_read_bool(const demos_json *json, size_t value, int32_t *is_true, demos_error *error) {
    uint32_t kind = json->values[value].kind;
    if (kind != DEMOS_JSON_TRUE && kind != DEMOS_JSON_FALSE) {
        return reject(json, value, "true or false", error);
    }
    *is_true = kind == DEMOS_JSON_TRUE;
    return DEMOS_OK;
}
