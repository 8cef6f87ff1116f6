/* Says why a program ends in the middle of its work: its code has called exit(), or crashed. */
#ifndef DEMOS_GUARD_H
#define DEMOS_GUARD_H

enum { DEMOS_HANDLER_BYTES = 65536 };

#pragma GCC visibility push(default)
/* From here on exit() ends the process with status 1 instead, after these words; where `end` is given, by that. With
 * `crash`, signals that end the process are told of as well, before they do. Both texts are kept, not copied; NULL
 * for `exit` lets the process go. */
void demos_guard(const char *exit_words, const char *crash_words, void (*end)(void));
/* Lets handlers of signals run in this thread on memory of DEMOS_HANDLER_BYTES: what crashes most is a stack that is
 * full. */
void demos_take_stack(void *memory);
/* Until the launcher has read what was said on standard error: it throws the rest away when it ends a launch. */
void demos_wait_until_read(void);
#pragma GCC visibility pop

#endif
