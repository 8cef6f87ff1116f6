/* UTF-8 as RFC 3629 has it: no surrogates, nothing longer than needed, nothing beyond U+10FFFF. */
#include "unicode.h"

size_t demos_measure_character(const char *text, size_t length) {
    static const struct {
        uint8_t first, last;  /* range of the first byte */
        uint8_t lower, upper; /* and of the second */
        uint8_t bytes;
    } forms[] = {
        {0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    const uint8_t *bytes = (const uint8_t *)text;
    for (size_t i = 0; length > 0 && i < sizeof forms / sizeof forms[0]; i++) {
        if (bytes[0] < forms[i].first || bytes[0] > forms[i].last) {
            continue;
        }
        int is_right = forms[i].bytes <= length;
        is_right = is_right && (forms[i].bytes == 1 || (bytes[1] >= forms[i].lower && bytes[1] <= forms[i].upper));
        for (size_t k = 2; is_right && k < forms[i].bytes; k++) {
            is_right = (bytes[k] & 0xc0) == 0x80;
        }
        return is_right ? forms[i].bytes : 0;
    }
    return 0;
}

size_t demos_encode_character(uint32_t code, char *bytes) {
    if (code < 0x80) {
        bytes[0] = (char)code;
        return 1;
    }
    size_t count = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t k = count - 1; k > 0; k--, code >>= 6) {
        bytes[k] = (char)(0x80 | (code & 0x3f));
    }
    bytes[0] = (char)((0xf00U >> count & 0xf0) | code);
    return count;
}
