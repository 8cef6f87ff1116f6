/* UTF-8, one character at a time. */
#ifndef DEMOS_UNICODE_H
#define DEMOS_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum { DEMOS_LONGEST_CHARACTER = 4 };

/* Bytes of the character that `length` bytes of text begin with; 0 where they begin with none. */
size_t demos_measure_character(const char *text, size_t length);
/* Writes a code point, which is no surrogate; returns how many bytes. */
size_t demos_encode_character(uint32_t code, char *bytes);

#endif
