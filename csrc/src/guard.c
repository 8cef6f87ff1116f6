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

/* Milliseconds for a launcher to read the last words of a process. */
enum { READING = 1000 };

static const char *volatile at_exit, *volatile at_crash;
static void (*volatile ending)(void);
/* Whose work it is: a fork of it has nothing to say. */
static volatile pid_t owner;

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
    if (at_exit == NULL || getpid() != owner) {
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
static int is_ours[N_SIGNALS];

static void crash(int number, siginfo_t *info, void *context) {
    (void)context;
    if (at_crash != NULL && getpid() == owner) {
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

void demos_take_stack(void *memory) {
    const stack_t own = {.ss_sp = memory, .ss_size = DEMOS_HANDLER_BYTES};
    stack_t now;
    if (sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) != 0) {
        sigaltstack(&own, NULL);
    }
}

/* Whoever has a handler, as Fortran's library and MPI do, which show where it was, has it called after ours. */
static void take_signals(void) {
    static char stack[DEMOS_HANDLER_BYTES];
    const struct sigaction action = {.sa_sigaction = crash, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    demos_take_stack(stack);
    for (size_t i = 0; i < N_SIGNALS; i++) {
        if (!is_ours[i] && sigaction(signals[i], &action, &before[i]) == 0) {
            is_ours[i] = 1;
        }
    }
}

void demos_guard(const char *exit_words, const char *crash_words, void (*end)(void)) {
    static int is_registered;
    owner = getpid();
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
