/* Errors within the library: demos_fail() with its format checked by the compiler. */
#ifndef DEMOS_ERROR_H
#define DEMOS_ERROR_H

#include "demos.h"

int32_t demos_fail(demos_error *error, int32_t status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Functions that libdemos_mpi and the tests use, and nobody else: no promise is made of them. */
#pragma GCC visibility push(default)
/* Makes an error of the answer of a model: a status that it may have, and a text, whatever it has written. */
int32_t demos_settle(demos_error *error, int32_t status, const char *function);
/* Puts "text: " in front of a message. */
void demos_prefix(demos_error *error, const char *text);
#pragma GCC visibility pop

#endif
