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

/* Signals that end a process, and what was done about them before. */
static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
enum { N_SIGNALS = sizeof signals / sizeof signals[0] };
static struct sigaction before[N_SIGNALS];
static int was_default[N_SIGNALS], is_ours[N_SIGNALS];

static void crash(int number, siginfo_t *info, void *context) {
    (void)context;
    if (at_crash != NULL) {
        say(at_crash);
        demos_wait_until_read();
    }
    for (size_t i = 0; i < N_SIGNALS; i++) {
        if (signals[i] == number) {
            sigaction(number, &before[i], NULL);
        }
    }
    if (info->si_code <= 0) {
        raise(number); /* others come again by themselves when this returns */
    }
}

void demos_note_signals(void) {
    for (size_t i = 0; i < N_SIGNALS; i++) {
        struct sigaction now;
        was_default[i] = sigaction(signals[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL;
    }
}

/* Whoever has a handler of their own keeps it; MPI's, which shows where it was, comes after ours. */
static void take_signals(void) {
    /* Of its own stack: what crashes most is a stack that is full. */
    static char stack[HANDLER_BYTES];
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    stack_t now;
    if (sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) != 0) {
        sigaltstack(&own, NULL);
    }
    const struct sigaction action = {.sa_sigaction = crash, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    for (size_t i = 0; i < N_SIGNALS; i++) {
        if (!is_ours[i] && sigaction(signals[i], NULL, &before[i]) == 0 &&
            (before[i].sa_handler == SIG_DFL || was_default[i])) {
            is_ours[i] = 1;
            sigaction(signals[i], &action, NULL);
        }
    }
}

void demos_guard(const char *exit_words, const char *crash_words, void (*end)(void)) {
    static int is_registered;
    at_exit = exit_words;
    ending = end;
    at_crash = crash_words;
    if (!is_registered) {
        is_registered = 1;
        atexit(end_early);
    }
    if (crash_words != NULL) {
        take_signals();
    }
}
