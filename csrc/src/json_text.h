/* Characters and numbers as JSON writes them. */
#ifndef DEMOS_JSON_TEXT_H
#define DEMOS_JSON_TEXT_H

#include <stddef.h>

enum { DEMOS_JSON_LONGEST_NUMBER = 511 /* characters */ };

/* One character of a text, escaped or not, as UTF-8. Returns how much of the text it takes; 0 where it is none. */
size_t demos_json_read_character(const char *text, size_t length, char *bytes, size_t *n_bytes);
/* The number that so many characters are, which is not more than the longest. */
double demos_json_convert(const char *text, size_t length);

#endif
