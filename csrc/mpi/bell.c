/* Bells: a byte in shared memory that says who sleeps, and datagrams that wake. */
#define _GNU_SOURCE
#include "bell.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "json.h"
#include "link.h"

static const double YIELD = 200e-6, SHORT_WINDOW = 30e-6, FIRST_NAP = 4e-3, LONGEST_SLEEP = 1.0,
                    LONGEST_BLIND_SLEEP = 0.05, ROLL_PAUSE = 2e-3 /* nobody rings before all have met */;
static const char SHM[] = "/dev/shm";
enum { AWAKE = 0, ASLEEP = 1, STUCK = 2, LOOKS = 4 };

/* ---- Addresses -------------------------------------------------------------------------------------------------- */

static int32_t broken(const char *what, demos_error *error) {
    return demos_fail(error, DEMOS_INTERNAL, "the doorbell: %s: %s", what, strerror(errno));
}

static int32_t open_sockets(demos_bell *bell, demos_error *error) {
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t length = sizeof any;
    size_t name = strlen(bell->name);
    memcpy(own.sun_path + 1, bell->name, name); /* of the abstract namespace: begins with 0 */
    bell->unix_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bell->udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bell->unix_fd < 0 || bell->udp_fd < 0 ||
        bind(bell->unix_fd, (struct sockaddr *)&own, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + name)) ||
        bind(bell->udp_fd, (struct sockaddr *)&any, length) ||
        getsockname(bell->udp_fd, (struct sockaddr *)&any, &length)) {
        return broken("sockets", error);
    }
    bell->udp_port = ntohs(any.sin_port);
    return DEMOS_OK;
}

int32_t demos_bell_open(demos_bell *bell, demos_error *error) {
    const char *kind = getenv("DEMOS_BELL"), *yield = getenv("DEMOS_YIELD_SECONDS");
    uint64_t word = 0;
    *bell = (demos_bell){.unix_fd = -1, .udp_fd = -1, .looks = LOOKS, .longest = ROLL_PAUSE, .nap = FIRST_NAP};
    bell->by_udp = kind != NULL && strcmp(kind, "udp") == 0;
    bell->window = bell->yield_seconds = yield == NULL ? YIELD : strtod(yield, NULL);
    if (getrandom(&word, sizeof word, 0) != sizeof word) {
        return broken("getrandom", error);
    }
    snprintf(bell->name, sizeof bell->name, "demos-%d-%016llx", (int)getpid(), (unsigned long long)word);
    return open_sockets(bell, error);
}

void demos_bell_close(demos_bell *bell) {
    if (bell->flags != NULL) {
        munmap((void *)bell->flags, bell->n_flags);
        bell->flags = NULL;
    }
    if (bell->unix_fd >= 0) {
        close(bell->unix_fd);
    }
    if (bell->udp_fd >= 0) {
        close(bell->udp_fd);
    }
    bell->unix_fd = bell->udp_fd = -1;
}

/* Equal for processes that share both /dev/shm and the names of Unix sockets. */
static void find_neighborhood(const demos_bell *bell, char *text, size_t size) {
    char boot[64] = "", space[128] = "";
    struct stat shm = {0};
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file != NULL) {
        if (fscanf(file, "%63s", boot) != 1) {
            boot[0] = '\0';
        }
        fclose(file);
    }
    ssize_t length = readlink("/proc/self/ns/net", space, sizeof space - 1);
    space[length < 0 ? 0 : length] = '\0';
    if (bell->by_udp || boot[0] == '\0' || stat(SHM, &shm) != 0) {
        snprintf(text, size, "%s", bell->name);
    } else {
        snprintf(text, size, "%s %llu %s", boot, (unsigned long long)shm.st_dev, space);
    }
}

void demos_bell_address(const demos_bell *bell, char text[DEMOS_BELL_BYTES]) {
    char neighborhood[256], host[256] = "";
    size_t length;
    demos_json_writer writer;
    find_neighborhood(bell, neighborhood, sizeof neighborhood);
    gethostname(host, sizeof host - 1);
    demos_json_begin(&writer, text, DEMOS_BELL_BYTES - 1);
    demos_json_open_array(&writer);
    demos_json_put_text(&writer, neighborhood);
    demos_json_put_text(&writer, bell->name);
    demos_json_put_text(&writer, host);
    demos_json_put_unsigned(&writer, bell->udp_port);
    demos_json_finish(&writer, &length, NULL);
    text[length] = '\0';
}

/* ---- Meeting ---------------------------------------------------------------------------------------------------- */

/* The parts of an address: neighborhood, name, host, port. */
static int32_t read_address(const char *address, char neighborhood[256], char name[256], char host[256], uint16_t *port,
                            demos_error *error) {
    demos_json json;
    char *const texts[] = {neighborhood, name, host};
    uint64_t number = 0;
    int32_t status = demos_json_open(&json, address, strlen(address), error);
    if (status == DEMOS_OK && (json.values[0].kind != DEMOS_JSON_ARRAY || json.values[0].count != 4)) {
        status = demos_fail(error, DEMOS_BAD_FRAME, "the address of a bell, %.200s, is none", address);
    }
    size_t value = status == DEMOS_OK ? demos_json_first(&json, 0) : 0;
    for (int i = 0; i < 3 && status == DEMOS_OK; i++) {
        status = demos_json_read_text(&json, value, texts[i], 256, error);
        value = demos_json_next(&json, value);
    }
    if (status == DEMOS_OK) {
        status = demos_json_read_unsigned(&json, value, UINT16_MAX, &number, error);
    }
    *port = (uint16_t)number;
    demos_json_close(&json);
    return status;
}

static void resolve(demos_bell *bell, const char *host, uint16_t port) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM}, *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) == 0 && found != NULL) {
        memcpy(&bell->far, found->ai_addr, sizeof bell->far);
        bell->far.sin_port = htons(port);
    } /* else nobody rings there, and the dispatcher's sleeps are short */
    if (found != NULL) {
        freeaddrinfo(found);
    }
}

static int32_t share_flags(demos_bell *bell, size_t n, const char *token, demos_error *error) {
    char path[128];
    if (strlen(token) > 64 || strspn(token, "0123456789abcdef") != strlen(token)) {
        return demos_fail(error, DEMOS_BAD_FRAME, "a launch with the token %.64s; it is hexadecimal", token);
    }
    snprintf(path, sizeof path, "%s/demos-%s", SHM, token);
    int32_t fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)n) != 0) {
        broken(path, error);
        if (fd >= 0) {
            close(fd);
        }
        return DEMOS_INTERNAL;
    }
    void *memory = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) {
        return broken(path, error);
    }
    bell->flags = memory;
    bell->n_flags = n;
    return DEMOS_OK;
}

int32_t demos_bell_meet(demos_bell *bell, const char *dispatcher, size_t me, size_t n, const char *token,
                        demos_error *error) {
    char here[256], there[256], name[256], host[256];
    uint16_t port;
    int32_t status = read_address(dispatcher, there, name, host, &port, error);
    if (status != DEMOS_OK) {
        return status;
    }
    find_neighborhood(bell, here, sizeof here);
    bell->me = me;
    bell->looks = LOOKS + 4 * (int32_t)n;
    bell->longest = LONGEST_SLEEP;
    bell->is_near = strcmp(here, there) == 0;
    size_t length = strlen(name);
    if (bell->is_near && length < sizeof bell->near.sun_path) {
        bell->near.sun_family = AF_UNIX;
        memcpy(bell->near.sun_path + 1, name, length);
        bell->near_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
        return share_flags(bell, n, token, error);
    }
    bell->is_near = 0;
    bell->longest = LONGEST_BLIND_SLEEP;
    resolve(bell, host, port);
    return DEMOS_OK;
}

/* ---- Ringing ---------------------------------------------------------------------------------------------------- */

static void ring_near(demos_bell *bell) {
    /* Gone, or rung so often that its queue is full: nobody has to know. */
    sendto(bell->unix_fd, "!", 1, MSG_DONTWAIT, (struct sockaddr *)&bell->near, bell->near_length);
}

void demos_bell_ring(demos_bell *bell) {
    if (bell->is_near) {
        __sync_synchronize();
        if (bell->flags[0] != AWAKE) {
            ring_near(bell);
        }
    } else if (bell->far.sin_family != 0 && demos_now() - bell->rung > SHORT_WINDOW / 2) {
        bell->rung = demos_now();
        sendto(bell->udp_fd, "!", 1, MSG_DONTWAIT, (struct sockaddr *)&bell->far, sizeof bell->far);
    }
}

void demos_bell_nudge(demos_bell *bell) {
    if (bell->is_near && bell->flags[0] == STUCK) {
        ring_near(bell);
    }
}

/* ---- Waiting ---------------------------------------------------------------------------------------------------- */

void demos_bell_has_come(demos_bell *bell) {
    if (bell->is_waiting) {
        bell->is_waiting = 0;
        bell->window = demos_now() - bell->since < bell->yield_seconds ? bell->yield_seconds : SHORT_WINDOW;
    }
}

int32_t demos_bell_spin(demos_look look, void *what, double until) {
    while (demos_now() < until) {
        if (look(what)) {
            return 1;
        }
        sched_yield();
    }
    return 0;
}

static void announce(demos_bell *bell, uint8_t flag) {
    if (bell->flags != NULL) {
        bell->flags[bell->me] = flag;
        __sync_synchronize();
    }
}

static void take_rings(demos_bell *bell) {
    char nothing[16];
    while (recv(bell->unix_fd, nothing, sizeof nothing, MSG_DONTWAIT) > 0) {
    }
    while (recv(bell->udp_fd, nothing, sizeof nothing, MSG_DONTWAIT) > 0) {
    }
}

static double least(double a, double b) { return a < b ? a : b; }

void demos_bell_wait(demos_bell *bell, demos_look look, void *what, double seconds, int32_t is_stuck) {
    if (!bell->is_waiting) {
        bell->is_waiting = 1;
        bell->since = demos_now();
        bell->nap = FIRST_NAP;
        bell->awake_until = bell->since + bell->window;
    }
    if (demos_bell_spin(look, what, bell->awake_until)) {
        return;
    }
    announce(bell, is_stuck ? STUCK : ASLEEP);
    int32_t has_come = 0;
    for (int32_t i = 0; i < bell->looks && !has_come; i++) {
        has_come = look(what);
    }
    if (!has_come) {
        struct pollfd bells[] = {{.fd = bell->unix_fd, .events = POLLIN}, {.fd = bell->udp_fd, .events = POLLIN}};
        double sleep = least(least(seconds, bell->nap), bell->longest);
        int rung = poll(bells, 2, (int)(sleep * 1e3) + (sleep > 0));
        if (rung > 0) {
            bell->nap = FIRST_NAP;
            bell->awake_until = demos_now() + SHORT_WINDOW;
            take_rings(bell);
        } else {
            bell->nap *= 4;
        }
    }
    announce(bell, AWAKE);
}
