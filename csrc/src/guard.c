/* What is said at the end of a process that was not meant to end. */
#define _GNU_SOURCE
#include "guard.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Milliseconds for a launcher to read the last words of a process, and bytes for a handler of signals. */
enum { READING = 1000, HANDLER_BYTES = 65536 };

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

void demos_wait_until_read(void) {
    struct stat file;
    int unread = 0;
    if (fstat(STDERR_FILENO, &file) != 0 || !S_ISFIFO(file.st_mode)) {
        return;
    }
    for (int i = 0; i < READING && ioctl(STDERR_FILENO, FIONREAD, &unread) == 0 && unread > 0; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void end_early(void) {
    if (at_exit == NULL) {
        return;
    }
    fflush(NULL); /* why it has called exit(), perhaps */
    say(at_exit);
    demos_wait_until_read();
    if (ending != NULL) {
        ending();
    }
    _exit(1);
}

static void crash(int number) {
    if (at_crash != NULL) {
        say(at_crash);
        demos_wait_until_read();
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
    /* Of its own stack: what crashes most is a stack that is full. */
    static char stack[HANDLER_BYTES];
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    stack_t before_own;
    if (crash_words != NULL && sigaltstack(NULL, &before_own) == 0 && (before_own.ss_flags & SS_DISABLE) != 0) {
        sigaltstack(&own, NULL);
    }
    struct sigaction action = {.sa_handler = crash, .sa_flags = SA_ONSTACK};
    for (size_t i = 0; crash_words != NULL && i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction before;
        if (at_crash == NULL && sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL) {
            sigaction(signals[i], &action, NULL); /* whoever has a handler of their own keeps it */
        }
    }
    at_crash = crash_words;
}
