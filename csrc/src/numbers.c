/* A program that has called setlocale() would else write and read 0,5 where JSON has 0.5. */
#define _POSIX_C_SOURCE 200809L
#include "numbers.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

/* The plain locale for this thread; returns the one before. glibc keeps it ready: this neither allocates nor fails. */
static locale_t enter(locale_t *plain) {
    *plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return *plain == (locale_t)0 ? (locale_t)0 : uselocale(*plain);
}

static void leave(locale_t plain, locale_t before) {
    if (plain != (locale_t)0) {
        uselocale(before);
        freelocale(plain);
    }
}

double demos_parse_number(const char *digits) {
    locale_t plain, before = enter(&plain);
    double number = strtod(digits, NULL);
    leave(plain, before);
    return number;
}

void demos_format_number(char text[DEMOS_NUMBER_BYTES], double number) {
    locale_t plain, before = enter(&plain);
    snprintf(text, DEMOS_NUMBER_BYTES, "%.17g", number);
    leave(plain, before);
}
