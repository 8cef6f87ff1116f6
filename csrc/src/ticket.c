/* What a program finds in its environment. */
#define _POSIX_C_SOURCE 200809L
#include "ticket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "error.h"
#include "json.h"

static const char TICKET[] = "DEMOS_TICKET", SPEC[] = "DEMOS_SPEC";

int32_t demos_has_ticket(void) { return getenv(TICKET) != NULL; }

static int32_t read_members(const demos_json *json, demos_ticket *ticket, demos_error *error) {
    uint64_t fd = 0;
    int32_t status = demos_json_read_unsigned(json, demos_json_find(json, 0, "fd"), INT32_MAX, &fd, error);
    ticket->fd = (int32_t)fd;
    ticket->leash = 0;
    size_t end = demos_json_find(json, 0, "end");
    if (status == DEMOS_OK && end != 0 &&
        (status = demos_json_read_unsigned(json, end, INT32_MAX, &fd, error)) == DEMOS_OK) {
        ticket->leash = (int32_t)fd;
    }
    const struct {
        const char *name;
        char *text;
        size_t size;
    } texts[] = {{"role", ticket->role, sizeof ticket->role}, {"name", ticket->name, sizeof ticket->name}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && status == DEMOS_OK; i++) {
        status =
            demos_json_read_text(json, demos_json_find(json, 0, texts[i].name), texts[i].text, texts[i].size, error);
    }
    return status == DEMOS_OK
               ? demos_json_read_number(json, demos_json_find(json, 0, "heartbeat"), &ticket->heartbeat, error)
               : status;
}

/* A ticket is for one process: whoever takes the byte that lies in its leash. */
static int32_t claim(const demos_ticket *ticket, demos_error *error) {
    char word;
    if (ticket->leash == 0) {
        return DEMOS_OK;
    }
    fcntl(ticket->leash, F_SETFD, FD_CLOEXEC);
    ssize_t n = recv(ticket->leash, &word, 1, MSG_DONTWAIT);
    if (n == 0) {
        return demos_fail(error, DEMOS_SERVER_LOST, "the process that started this program has died");
    }
    return n == 1 ? DEMOS_OK
                  : demos_fail(error, DEMOS_INVALID_INPUT,
                               "another process has taken this ticket, which is for one; where there are several ranks,"
                               " each gets its own: mpiexec -n 4 demos-hpc ticket NAME -- PROGRAM");
}

int32_t demos_read_ticket(const char *role, demos_ticket *ticket, demos_error *error) {
    static int is_used;
    const char *text = getenv(TICKET);
    if (is_used) { /* its file is closed, or another one by now */
        return demos_fail(error, DEMOS_INVALID_INPUT,
                          "this program has ended its connection to the server, and cannot connect again");
    }
    if (text == NULL) {
        return demos_fail(error, DEMOS_INVALID_INPUT,
                          "this program has no connection to a server: start it by `demos-hpc worker --join NAME --exec"
                          " PROGRAM` to serve, by `demos-hpc ticket NAME -- PROGRAM` to call");
    }
    demos_json json;
    int32_t status = demos_json_open(&json, text, strlen(text), error);
    if (status == DEMOS_OK) {
        status = read_members(&json, ticket, error);
    }
    demos_json_close(&json);
    if (status != DEMOS_OK) {
        demos_prefix(error, TICKET);
    } else if (strcmp(ticket->role, role) != 0) {
        status = demos_fail(error, DEMOS_INVALID_INPUT,
                            "this program was started as a %s and acts as a %s: `demos-hpc worker --exec` is for"
                            " programs that serve, `demos-hpc ticket` for those that call",
                            ticket->role, role);
    } else {
        status = claim(ticket, error);
    }
    is_used = status == DEMOS_OK;
    return status;
}

static int32_t read_file(FILE *file, const char *path, char **text, demos_error *error) {
    *text = malloc(DEMOS_JSON_BYTES + 1);
    if (*text == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory to read %s", path);
    }
    size_t length = fread(*text, 1, DEMOS_JSON_BYTES + 1, file);
    if (ferror(file) || length > DEMOS_JSON_BYTES) {
        free(*text);
        *text = NULL;
        return demos_fail(error, DEMOS_INVALID_INPUT, "%s (%s) cannot be read, or has more than %d bytes", path, SPEC,
                          DEMOS_JSON_BYTES);
    }
    (*text)[length] = '\0';
    return DEMOS_OK;
}

int32_t demos_read_spec(char **text, demos_error *error) {
    const char *path = getenv(SPEC);
    *text = NULL;
    if (path == NULL || path[0] == '\0') {
        return DEMOS_OK;
    }
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "%s (%s) cannot be read: %s", path, SPEC, strerror(errno));
    }
    int32_t status = read_file(file, path, text, error);
    fclose(file);
    return status;
}
