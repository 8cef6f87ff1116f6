/* Numbers as text with a decimal point, whatever locale the program has chosen. */
#ifndef DEMOS_NUMBERS_H
#define DEMOS_NUMBERS_H

enum { DEMOS_NUMBER_BYTES = 32 };

double demos_parse_number(const char *digits);
/* 17 digits, so that it is read as the same. */
void demos_format_number(char text[DEMOS_NUMBER_BYTES], double number);

#endif
