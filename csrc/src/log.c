/* Structured logs: 2026-11-20T10:02:39.761Z info worker nu_atm.0#1[4711] worker: joined server=nu_atm number=3 */
#define _POSIX_C_SOURCE 200809L
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "json.h"

enum { LINE_BYTES = 8192 };

static const struct {
    const char *name;
    int32_t level;
} LEVELS[] = {
    {"debug", DEMOS_LOG_DEBUG}, {"info", DEMOS_LOG_INFO}, {"warning", DEMOS_LOG_WARNING}, {"error", DEMOS_LOG_ERROR}};
enum { N_LEVELS = sizeof LEVELS / sizeof LEVELS[0] };

static const char *name_level(int32_t level) {
    const char *name = LEVELS[0].name;
    for (int i = 0; i < N_LEVELS; i++) {
        name = level >= LEVELS[i].level ? LEVELS[i].name : name;
    }
    return name;
}

int32_t demos_log_open(demos_log *log, const char *level, const char *file, const char *role, const char *name,
                       demos_error *error) {
    *log = (demos_log){.file = STDERR_FILENO};
    for (int i = 0; i < N_LEVELS; i++) {
        if (strcmp(level, LEVELS[i].name) == 0) {
            log->level = LEVELS[i].level;
        }
    }
    if (log->level == 0) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "log level \"%s\"; it is one of debug, info, warning, error",
                          level);
    }
    snprintf(log->role, sizeof log->role, "%s", role);
    snprintf(log->name, sizeof log->name, "%s", name);
    if (file != NULL && file[0] != '\0') {
        log->is_json = 1;
        log->file = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (log->file < 0) {
            return demos_fail(error, DEMOS_INVALID_INPUT,
                              "the log file %s cannot be opened: %s; name one in a directory that exists and that you"
                              " may write to",
                              file, strerror(errno));
        }
    }
    return DEMOS_OK;
}

void demos_log_close(demos_log *log) {
    if (log->file > STDERR_FILENO) {
        close(log->file);
    }
    log->file = STDERR_FILENO;
}

/* A text or number as JSON, behind what `line` has. */
static void add_json(char *line, size_t size, size_t *used, const char *text, double number) {
    demos_json_writer writer;
    size_t length = 0;
    if (*used + 1 < size) {
        demos_json_begin(&writer, line + *used, size - *used);
        if (text != NULL) {
            demos_json_put_text(&writer, text);
        } else {
            demos_json_put_number(&writer, number);
        }
        /* What is cut off is cut off; the line is one line still. */
        *used = demos_json_finish(&writer, &length, NULL) == DEMOS_OK ? *used + length : size - 1;
    }
}

static void add(char *line, size_t size, size_t *used, const char *text) {
    size_t length = strlen(text), room = size - 1 - *used;
    length = length < room ? length : room;
    memcpy(line + *used, text, length);
    *used += length;
}

/* Bare where nothing in it could be misread, as JSON otherwise. */
static void add_word(char *line, size_t size, size_t *used, const char *text, const char *allowed) {
    int is_bare = text[0] != '\0';
    for (const char *c = text; *c != '\0'; c++) {
        int is_misleading = strchr(" \"'=\\[]{}", *c) != NULL && strchr(allowed, *c) == NULL;
        is_bare = is_bare && *c > 0x1f && *c < 0x7f && !is_misleading;
    }
    if (is_bare) {
        add(line, size, used, text);
    } else {
        add_json(line, size, used, text, 0);
    }
}

static size_t write_for_people(const demos_log *log, char *line, size_t size, const char *when, const char *level,
                               const char *part, const char *event, const demos_field *fields, size_t n_fields) {
    int head = snprintf(line, size, "%s %s %s%s%s[%d] %s: ", when, level, log->role, log->name[0] == '\0' ? "" : " ",
                        log->name, (int)getpid(), part);
    size_t used = head < 0 ? 0 : (size_t)head < size ? (size_t)head : size - 1;
    for (size_t i = 0; i < used; i++) {
        line[i] = line[i] > 0x1f && line[i] < 0x7f ? line[i] : '?';
    }
    add_word(line, size, &used, event, " '[]{}");
    for (size_t i = 0; i < n_fields; i++) {
        add(line, size, &used, " ");
        add(line, size, &used, fields[i].name);
        add(line, size, &used, "=");
        if (fields[i].text != NULL) {
            add_word(line, size, &used, fields[i].text, "");
        } else {
            add_json(line, size, &used, NULL, fields[i].number);
        }
    }
    return used;
}

static size_t write_json(const demos_log *log, char *line, size_t size, const char *when, const char *level,
                         const char *part, const char *event, const demos_field *fields, size_t n_fields) {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    const demos_field own[] = {
        {"time", when, 0},      {"level", level, 0}, {"role", log->role, 0},
        {"name", log->name, 0}, {"host", host, 0},   {"pid", NULL, (double)getpid()},
        {"part", part, 0},      {"event", event, 0},
    };
    size_t n_own = sizeof own / sizeof own[0], used = 0;
    demos_json_writer writer;
    demos_json_begin(&writer, line, size);
    demos_json_open_object(&writer);
    for (size_t i = 0; i < n_own + n_fields; i++) {
        const demos_field *field = i < n_own ? &own[i] : &fields[i - n_own];
        demos_json_name(&writer, field->name);
        if (field->text != NULL) {
            demos_json_put_text(&writer, field->text);
        } else {
            demos_json_put_number(&writer, field->number);
        }
    }
    return demos_json_finish(&writer, &used, NULL) == DEMOS_OK ? used : 0;
}

void demos_log_write(const demos_log *log, int32_t level, const char *part, const char *event,
                     const demos_field *fields, size_t n_fields) {
    if (level < log->level) {
        return;
    }
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    char when[64], line[LINE_BYTES];
    size_t length = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(when + length, sizeof when - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
    size_t size = sizeof line - 1, used;
    if (log->is_json) {
        used = write_json(log, line, size, when, name_level(level), part, event, fields, n_fields);
        if (used == 0) { /* too long: without what it has to tell besides */
            used = write_json(log, line, size, when, name_level(level), part, event, NULL, 0);
        }
    } else {
        used = write_for_people(log, line, size, when, name_level(level), part, event, fields, n_fields);
    }
    line[used++] = '\n';
    while (used > 0 && write(log->file, line, used) < 0 && errno == EINTR) {
    }
}
