/* What is said at the end of a process that was not meant to end. */
#define _POSIX_C_SOURCE 200809L
#include "guard.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *volatile at_exit, *volatile at_crash;
static void (*volatile ending)(void);

static void say(const char *words) {
    size_t length = strlen(words);
    while (length > 0) {
        ssize_t n = write(STDERR_FILENO, words, length);
        if (n <= 0) {
            return;
        }
        words += n;
        length -= (size_t)n;
    }
}

static void end_early(void) {
    if (at_exit == NULL) {
        return;
    }
    say(at_exit);
    if (ending != NULL) {
        ending();
    }
    _exit(1);
}

static void crash(int number) {
    if (at_crash != NULL) {
        say(at_crash);
    }
    signal(number, SIG_DFL); /* which ends the process when this returns */
    raise(number);
}

void demos_guard(const char *exit_words, const char *crash_words, void (*end)(void)) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    static int is_registered;
    at_exit = exit_words;
    ending = end;
    if (!is_registered) {
        is_registered = 1;
        atexit(end_early);
    }
    struct sigaction action = {.sa_handler = crash};
    for (size_t i = 0; crash_words != NULL && i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction before;
        if (at_crash == NULL && sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL) {
            sigaction(signals[i], &action, NULL); /* whoever has a handler of their own keeps it */
        }
    }
    at_crash = crash_words;
}
