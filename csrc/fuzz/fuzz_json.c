/* JSON: whatever is read is read the same a second time, written and read once more. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void copy_value(const demos_json *json, size_t value, demos_json_writer *w) {
    char text[256];
    double number = 0;
    demos_error error;
    switch (json->values[value].kind) {
    case DEMOS_JSON_OBJECT:
        demos_json_open_object(w);
        for (size_t at = demos_json_first(json, value); at < demos_json_end(json, value);) {
            if (demos_json_read_text(json, at, text, sizeof text, &error) == DEMOS_OK) {
                if (!demos_json_is(json, at, text) || demos_json_find(json, value, text) == 0) {
                    abort();
                }
            } else {
                text[0] = '\0';
            }
            demos_json_name(w, text);
            copy_value(json, at + 1, w);
            at = demos_json_next(json, at + 1);
        }
        demos_json_close_last(w);
        break;
    case DEMOS_JSON_ARRAY:
        demos_json_open_array(w);
        for (size_t at = demos_json_first(json, value); at < demos_json_end(json, value);) {
            copy_value(json, at, w);
            at = demos_json_next(json, at);
        }
        demos_json_close_last(w);
        break;
    case DEMOS_JSON_TEXT:
        text[0] = '\0';
        demos_json_read_text(json, value, text, sizeof text, &error);
        demos_json_put_text(w, demos_json_is(json, value, text) ? text : "");
        break;
    case DEMOS_JSON_NUMBER:
        if (demos_json_read_number(json, value, &number, &error) != DEMOS_OK) {
            abort();
        }
        demos_json_put_number(w, number);
        break;
    default:
        demos_json_put_bool(w, json->values[value].kind == DEMOS_JSON_TRUE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    demos_json json, again;
    demos_error error;
    if (demos_json_open(&json, (const char *)data, size, &error) == DEMOS_OK) {
        static char text[1 << 16];
        size_t length = 0;
        demos_json_writer w;
        demos_json_begin(&w, text, sizeof text);
        copy_value(&json, 0, &w);
        if (demos_json_finish(&w, &length, &error) == DEMOS_OK) {
            if (demos_json_open(&again, text, length, &error) != DEMOS_OK || again.n_values != json.n_values) {
                abort();
            }
            demos_json_close(&again);
        }
    } else if (memchr(error.message, '\0', sizeof error.message) == NULL) {
        abort();
    }
    demos_json_close(&json);
    return 0;
}
