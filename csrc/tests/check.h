/* The least that tests in C need: a check says where it failed and goes on; main() returns how it went. */
#ifndef DEMOS_TESTS_CHECK_H
#define DEMOS_TESTS_CHECK_H

#include <stdio.h>
#include <string.h>

static int check_failures;

#define CHECK(condition) check_that((condition) ? 1 : 0, #condition, __FILE__, __LINE__)
#define CHECK_EQUAL(left, right) check_numbers((double)(left), (double)(right), #left " == " #right, __FILE__, __LINE__)
#define CHECK_TEXT(text, part) check_text((text), (part), __FILE__, __LINE__)

static inline int check_that(int holds, const char *what, const char *file, int line) {
    if (!holds) {
        fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
        check_failures++;
    }
    return holds;
}

static inline int check_numbers(double left, double right, const char *what, const char *file, int line) {
    int holds = left == right || (left != left && right != right);
    if (!holds) {
        fprintf(stderr, "%s:%d: not so: %s: %.17g, %.17g\n", file, line, what, left, right);
        check_failures++;
    }
    return holds;
}

/* That a text has this part. */
static inline int check_text(const char *text, const char *part, const char *file, int line) {
    int holds = strstr(text, part) != NULL;
    if (!holds) {
        fprintf(stderr, "%s:%d: \"%s\" is not in \"%s\"\n", file, line, part, text);
        check_failures++;
    }
    return holds;
}

#endif
