/* Offers and failures. */
#define _GNU_SOURCE
#include "offer.h"

#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "error.h"

enum { BESIDES = 65536 /* bytes of an offer beside what files say */ };

/* FNV-1a (Fowler, Noll, Vo) of this program's file: tells models apart that say the same of themselves. */
static uint64_t digest_program(void) {
    uint64_t digest = 0xcbf29ce484222325;
    FILE *file = fopen("/proc/self/exe", "re");
    unsigned char bytes[65536];
    for (size_t n; file != NULL && (n = fread(bytes, 1, sizeof bytes, file)) > 0;) {
        for (size_t i = 0; i < n; i++) {
            digest = (digest ^ bytes[i]) * 0x100000001b3;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return digest;
}

void demos_put_failure(demos_json_writer *writer, int32_t status, const char *message) {
    demos_json_open_object(writer);
    demos_json_name(writer, "status");
    demos_json_put_unsigned(writer, (uint64_t)status);
    demos_json_name(writer, "message");
    demos_json_put_text(writer, message);
    demos_json_name(writer, "traceback");
    demos_json_put_text(writer, "");
    demos_json_name(writer, "retry_after");
    demos_json_put_unsigned(writer, 0);
    demos_json_close_last(writer);
}

/* The instructions that the C library chooses among, on which the last bits of exp() and others depend. */
static const char *find_instructions(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") ? "avx512f"
           : __builtin_cpu_supports("fma")   ? "fma"
           : __builtin_cpu_supports("avx2")  ? "avx2"
                                             : "sse2";
#else
    return "-";
#endif
}

static void put_offer(const demos_config *config, const demos_model *model, const char *worker, int32_t threads,
                      int32_t failed, const char *why, demos_json_writer *writer) {
    char word[256];
    struct utsname host;
    uname(&host);
    demos_json_open_object(writer);
    demos_json_name(writer, "worker");
    demos_json_put_text(writer, worker);
    demos_json_name(writer, "fingerprint");
    snprintf(word, sizeof word, "libdemos %s %s %s glibc %s", demos_version(), host.machine, find_instructions(),
             gnu_get_libc_version());
    demos_json_put_text(writer, word);
    if (failed != DEMOS_OK) {
        demos_json_name(writer, "failure");
        demos_put_failure(writer, failed, why);
    } else {
        demos_json_name(writer, "source");
        snprintf(word, sizeof word, "%016llx", (unsigned long long)digest_program());
        demos_json_put_text(writer, word);
        demos_json_name(writer, "spec");
        demos_config_put_spec(config, model, writer);
        demos_json_name(writer, "threads");
        demos_json_put_unsigned(writer, (uint64_t)threads);
    }
}

int32_t demos_make_offer(const demos_config *config, const demos_model *model, const char *worker, int32_t threads,
                         int32_t failed, const char *why, char **text, size_t *length, demos_error *error) {
    size_t file = config->file.n_values > 0 ? strlen(config->file.text) : 0;
    size_t own = config->own.n_values > 0 ? strlen(config->own.text) : 0;
    size_t size = BESIDES + 6 * strlen(why) + file + own;
    demos_json_writer writer;
    *text = malloc(size);
    if (*text == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for an offer of %zu bytes", size);
    }
    demos_json_begin(&writer, *text, size);
    put_offer(config, model, worker, threads, failed, why, &writer);
    return demos_json_finish(&writer, length, error);
}
