/* Logs: the two forms of a line, levels, and what must not come through. Called with a directory to write in. */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "json.h"
#include "log.h"

static char *read_all(const char *path) {
    static char text[32768];
    FILE *file = fopen(path, "rb");
    size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

static void write_lines(const demos_log *log) {
    char *large = malloc(20000);
    memset(large, 'a', 19999);
    large[19999] = '\0';
    demos_log_write(log, DEMOS_LOG_DEBUG, "worker", "not written", NULL, 0);
    demos_log_write(log, DEMOS_LOG_INFO, "worker", "joined",
                    (demos_field[]){{"server", "nu_atm", 0}, {"number", NULL, 3}, {"why", "a b\n\x1b[2J", 0}}, 3);
    demos_log_write(log, DEMOS_LOG_ERROR, "worker", "long", (demos_field[]){{"text", large, 0}}, 1);
    free(large);
}

int main(int argc, char **argv) {
    char path[4096];
    snprintf(path, sizeof path, "%s/demos-test-log.%d", argc > 1 ? argv[1] : ".", (int)getpid());
    demos_log log;
    demos_error error;
    CHECK(demos_log_open(&log, "loud", NULL, "worker", "w", &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, "debug, info, warning, error");
    CHECK(demos_log_open(&log, "info", "/nowhere/at/all", "worker", "w", &error) == DEMOS_INVALID_INPUT);

    if (CHECK(demos_log_open(&log, "info", path, "worker", "nu_atm.0#1", &error) == DEMOS_OK)) {
        write_lines(&log);
        char *text = read_all(path), *end;
        int lines = 0;
        for (; (end = strchr(text, '\n')) != NULL; text = end + 1, lines++) {
            demos_json json;
            if (CHECK(demos_json_open(&json, text, (size_t)(end - text), &error) == DEMOS_OK)) {
                CHECK(demos_json_is(&json, demos_json_find(&json, 0, "name"), "nu_atm.0#1"));
                CHECK(demos_json_is(&json, demos_json_find(&json, 0, "level"), lines == 0 ? "info" : "error"));
                CHECK(lines == 1 || demos_json_is(&json, demos_json_find(&json, 0, "why"), "a b\n\x1b[2J"));
            }
            demos_json_close(&json);
        }
        CHECK_EQUAL(lines, 2);
        /* The same for people. */
        log.is_json = 0;
        CHECK(ftruncate(log.file, 0) == 0);
        write_lines(&log);
        text = read_all(path);
        CHECK_TEXT(text, "Z info worker nu_atm.0#1[");
        CHECK_TEXT(text, "] worker: joined server=nu_atm number=3 why=\"a b\\u000a\\u001b[2J\"\n");
        CHECK(strchr(text, '\x1b') == NULL);
        demos_log_close(&log);
    }
    remove(path);
    demos_log_open(&log, "error", NULL, "worker", "", &error);
    demos_log_write(&log, DEMOS_LOG_WARNING, "worker", "not written", NULL, 0);
    demos_log_close(&log);
    return check_failures != 0;
}
