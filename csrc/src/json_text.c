/* Characters and numbers as JSON writes them. */
#include "json_text.h"

#include <stdint.h>
#include <string.h>

#include "numbers.h"
#include "unicode.h"

static int32_t read_digit(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

/* The four digits of \uXXXX; -1 where they are none. */
static int32_t read_unit(const char *digits, size_t length) {
    int32_t unit = 0;
    for (size_t i = 0; i < 4; i++) {
        int32_t digit = i < length ? read_digit(digits[i]) : -1;
        if (digit < 0) {
            return -1;
        }
        unit = unit * 16 + digit;
    }
    return unit;
}

size_t demos_json_read_character(const char *text, size_t length, char *bytes, size_t *n_bytes) {
    if (length == 0 || (unsigned char)text[0] < 0x20) {
        return 0;
    }
    if (text[0] != '\\') {
        *n_bytes = demos_measure_character(text, length);
        memcpy(bytes, text, *n_bytes);
        return *n_bytes;
    }
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *escape = length > 1 && text[1] != '\0' ? strchr(escapes, text[1]) : NULL;
    if (escape != NULL) {
        *bytes = meanings[escape - escapes];
        *n_bytes = 1;
        return 2;
    }
    if (length < 2 || text[1] != 'u') {
        return 0;
    }
    int32_t code = read_unit(text + 2, length - 2);
    size_t taken = 6;
    if (code >= 0xd800 && code < 0xdc00) { /* the first half of a pair */
        int32_t half = length > 8 && text[6] == '\\' && text[7] == 'u' ? read_unit(text + 8, length - 8) : -1;
        code = half >= 0xdc00 && half < 0xe000 ? 0x10000 + (code - 0xd800) * 0x400 + (half - 0xdc00) : -1;
        taken = 12;
    } else if (code >= 0xdc00 && code < 0xe000) {
        code = -1;
    }
    if (code < 0) {
        return 0;
    }
    *n_bytes = demos_encode_character((uint32_t)code, bytes);
    return taken;
}

double demos_json_convert(const char *text, size_t length) {
    char digits[DEMOS_JSON_LONGEST_NUMBER + 1];
    memcpy(digits, text, length);
    digits[length] = '\0';
    return demos_parse_number(digits);
}
