/* Computes what comes over a link, one chunk after the other. */
#define _POSIX_C_SOURCE 200809L
#include "worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chunk.h"
#include "error.h"
#include "offer.h"
#include "refusal.h"

/* Longest wait at a time, and longest time given to an answer to leave before the next chunk is begun, seconds. */
static const double LONGEST_WAIT = 1.0, LONGEST_FLUSH = 0.02;

typedef struct worker {
    demos_link *link;
    const demos_duty *duty;
    demos_model model;
    demos_config config;
    demos_served served;
    char name[64]; /* of the model */
    demos_frame_queue chunks;
    demos_log log;
    double next_beat;
    int is_over;
} worker;

/* ---- Answering -------------------------------------------------------------------------------------------------- */

/* Rows of the first array with nan or +inf in them: -inf is a valid log-density. */
static uint32_t count_nonfinite(const demos_frame *result) {
    const double *values = demos_frame_data(result, 0);
    size_t n = (size_t)result->layout.arrays[0].shape[0], count = 0;
    size_t width = n == 0 ? 0 : (size_t)result->layout.sizes[0] / sizeof *values / n;
    for (size_t i = 0; i < n; i++) {
        int is_bad = 0;
        for (size_t j = 0; j < width; j++) {
            is_bad |= !(values[i * width + j] < (double)INFINITY);
        }
        count += (size_t)is_bad;
    }
    return count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
}

static int32_t send_failure(worker *w, const demos_frame *chunk, int32_t status, const char *message,
                            demos_error *error) {
    demos_header header = demos_answer_to(&chunk->header);
    header.status = (uint16_t)status;
    char where[2 * DEMOS_MESSAGE_BYTES], text[16 * DEMOS_MESSAGE_BYTES];
    snprintf(where, sizeof where, "model '%s': %s (%s)", w->name, message, w->duty->name);
    size_t length = 0;
    demos_json_writer writer;
    demos_json_begin(&writer, text, sizeof text);
    demos_put_failure(&writer, status, where);
    int32_t written = demos_json_finish(&writer, &length, error);
    return written == DEMOS_OK ? demos_link_tell(w->link, &header, text, length, error) : written;
}

static int32_t send_result(worker *w, demos_frame *result, double seconds, demos_error *error) {
    result->header.deadline_ms = count_nonfinite(result);
    result->header.seed = (uint64_t)(seconds * 1e9);
    memcpy(result->bytes, &result->header, sizeof result->header);
    return w->link->kind->send(w->link, result, error);
}

/* Computes a chunk and answers it, whatever happens. */
static int32_t answer(worker *w, const demos_frame *chunk, demos_error *error) {
    demos_error failure = {0};
    demos_frame *result = NULL;
    double start = demos_now();
    int32_t status = demos_compute(&w->served, chunk, &result, &failure);
    double seconds = demos_now() - start;
    const demos_field fields[] = {{"chunk", NULL, (double)chunk->header.id},
                                  {"rows", NULL, (double)chunk->header.n_rows},
                                  {"seconds", NULL, seconds},
                                  {"status", NULL, status}};
    demos_log_write(&w->log, DEMOS_LOG_DEBUG, "worker", "chunk", fields, sizeof fields / sizeof fields[0]);
    if (status == DEMOS_OK) {
        return send_result(w, result, seconds, error);
    }
    demos_frame_give(&w->link->frames, result);
    return send_failure(w, chunk, status, failure.message, error);
}

/* ---- Serving ---------------------------------------------------------------------------------------------------- */

static int32_t cancel(worker *w, uint64_t id, demos_error *error) {
    demos_frame_queue kept = {0};
    int32_t status = DEMOS_OK;
    for (demos_frame *chunk; (chunk = demos_queue_pop(&w->chunks)) != NULL;) {
        if (chunk->header.id != id) {
            demos_queue_put(&kept, chunk);
            continue;
        }
        demos_header header = demos_answer_to(&chunk->header);
        header.status = DEMOS_CANCELLED;
        status = status == DEMOS_OK ? demos_link_say(w->link, &header, error) : status;
        demos_frame_give(&w->link->frames, chunk);
    }
    w->chunks = kept;
    return status;
}

static int32_t take(worker *w, demos_frame *frame, demos_error *error) {
    int32_t status = DEMOS_OK;
    switch (frame->header.kind) {
    case DEMOS_CHUNK:
        demos_queue_put(&w->chunks, frame);
        return DEMOS_OK;
    case DEMOS_CANCEL:
        status = cancel(w, frame->header.id, error);
        break;
    case DEMOS_END:
        w->is_over = 1;
        break;
    case DEMOS_REPLY: /* what was offered is not wanted */
        status = frame->header.status == DEMOS_OK ? DEMOS_OK : demos_read_refusal(frame, error);
        break;
    default:
        break;
    }
    demos_frame_give(&w->link->frames, frame);
    return status;
}

/* Memory that this process has, bytes. */
static uint64_t find_memory(void) {
    unsigned long long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL) {
        if (fscanf(file, "%llu %llu", &pages, &resident) != 2) {
            resident = 0;
        }
        fclose(file);
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int32_t beat(worker *w, demos_error *error) {
    double now = demos_now();
    if (w->duty->heartbeat <= 0 || now < w->next_beat) {
        return DEMOS_OK;
    }
    w->next_beat = now + w->duty->heartbeat;
    char text[64];
    int length = snprintf(text, sizeof text, "{\"rss\":%llu}", (unsigned long long)find_memory());
    return demos_link_tell(w->link, &(demos_header){.kind = DEMOS_BEAT}, text, (size_t)length, error);
}

/* Whether whoever started this program has died: nobody would see it end. */
static int32_t check_leash(const worker *w, demos_error *error) {
    char word;
    if (w->duty->leash == 0 || recv(w->duty->leash, &word, 1, MSG_PEEK | MSG_DONTWAIT) != 0) {
        return DEMOS_OK;
    }
    return demos_fail(error, DEMOS_SERVER_LOST, "the process that started this program has died");
}

/* Takes what has arrived, and computes one chunk, or waits. */
static int32_t step(worker *w, demos_error *error) {
    demos_frame *frame = NULL;
    int32_t status;
    do {
        status = w->link->kind->receive(w->link, &frame, error);
        if (status == DEMOS_OK && frame != NULL) {
            status = take(w, frame, error);
        }
    } while (status == DEMOS_OK && frame != NULL && !w->is_over);
    if (status == DEMOS_OK) {
        status = beat(w, error);
    }
    if (status == DEMOS_OK && !w->is_over) {
        status = check_leash(w, error);
    }
    if (status != DEMOS_OK || w->is_over) {
        return status;
    }
    demos_frame *chunk = demos_queue_pop(&w->chunks);
    if (chunk == NULL) {
        double wait = w->duty->heartbeat > 0 ? w->next_beat - demos_now() : LONGEST_WAIT;
        w->link->kind->wait(w->link, wait < 0 ? 0 : wait < LONGEST_WAIT ? wait : LONGEST_WAIT);
        return DEMOS_OK;
    }
    /* An answer that could not leave yet would otherwise wait until this chunk is done as well. */
    demos_link_flush(w->link, LONGEST_FLUSH);
    status = answer(w, chunk, error);
    demos_frame_give(&w->link->frames, chunk);
    return status;
}

/* Threads of a model whose file does not say. */
static int32_t count_threads(void) {
    const char *text = getenv("DEMOS_THREADS");
    long n = text == NULL ? 1 : strtol(text, NULL, 10);
    return n < 1 ? 1 : n > 1024 ? 1024 : (int32_t)n;
}

/* Makes the model ready to be called. */
static int32_t prepare(worker *w, const demos_model *model, demos_error *error) {
    int32_t status = demos_check_model(model, &w->model, error);
    if (status == DEMOS_OK) {
        status = demos_config_open(&w->config, w->duty->spec == NULL ? "{}" : w->duty->spec, error);
    }
    if (status == DEMOS_OK && (status = demos_config_complete(&w->config, &w->model, error)) != DEMOS_OK &&
        w->duty->spec == NULL) {
        demos_prefix(error, "no file was given that describes the model (--spec FILE.json, or DEMOS_SPEC)");
    }
    if (status == DEMOS_OK) {
        w->model.flags = w->config.flags;
        status =
            demos_caller_open(&w->model, w->config.d, w->config.p, w->config.q,
                              w->config.threads > 0 ? w->config.threads : count_threads(), &w->served.caller, error);
    }
    return status;
}

static int32_t open_log(worker *w, demos_error *error) {
    char level[32] = "", file[4096] = "";
    int32_t status = demos_config_setting(&w->config, "log_level", "DEMOS_LOG_LEVEL", level, sizeof level, error);
    if (status == DEMOS_OK) {
        status = demos_config_setting(&w->config, "log_file", "DEMOS_LOG_FILE", file, sizeof file, error);
    }
    return status == DEMOS_OK
               ? demos_log_open(&w->log, level[0] == '\0' ? "warning" : level, file, "worker", w->duty->name, error)
               : status;
}

/* Tells the dispatcher what there is, or why there is nothing. */
static int32_t offer(worker *w, int32_t failed, const char *why, demos_error *error) {
    char *text = NULL;
    size_t length = 0;
    int32_t given = count_threads(), threads = w->config.threads > given ? w->config.threads : given;
    int32_t status =
        demos_make_offer(&w->config, &w->model, w->duty->name, threads, failed, why, &text, &length, error);
    if (status == DEMOS_OK) {
        status = demos_link_tell(w->link, &(demos_header){.kind = DEMOS_HELLO}, text, length, error);
    }
    free(text);
    return status;
}

static int32_t serve(worker *w, const demos_model *model, demos_error *error) {
    demos_error failure = {0};
    int32_t failed = prepare(w, model, &failure);
    if (failed == DEMOS_OK) {
        failed = open_log(w, &failure);
    }
    const demos_json *json;
    size_t name = w->config.file.n_values == 0 ? 0 : demos_config_find(&w->config, "name", &json);
    snprintf(w->name, sizeof w->name, "?");
    if (name != 0) {
        demos_json_read_text(json, name, w->name, sizeof w->name, NULL);
    }
    const demos_field fields[] = {{"model", w->name, 0}, {"why", failed == DEMOS_OK ? "" : failure.message, 0}};
    demos_log_write(&w->log, failed == DEMOS_OK ? DEMOS_LOG_INFO : DEMOS_LOG_ERROR, "worker",
                    failed == DEMOS_OK ? "offers" : "has nothing to offer", fields, failed == DEMOS_OK ? 1 : 2);
    int32_t status = offer(w, failed, failure.message, error);
    while (status == DEMOS_OK && !w->is_over) {
        status = step(w, error);
    }
    demos_log_write(&w->log, DEMOS_LOG_INFO, "worker", "ends", fields, 1);
    return status;
}

int32_t demos_work(demos_link *link, const demos_model *model, const demos_duty *duty, demos_error *error) {
    worker w = {.link = link, .duty = duty, .log = {.level = DEMOS_LOG_WARNING, .file = STDERR_FILENO}};
    w.served = (demos_served){.frames = &link->frames, .config = &w.config};
    snprintf(w.log.role, sizeof w.log.role, "worker");
    snprintf(w.log.name, sizeof w.log.name, "%s", duty->name);
    int32_t status = serve(&w, model, error);
    demos_queue_clear(&w.chunks, &link->frames);
    demos_caller_close(w.served.caller);
    demos_config_close(&w.config);
    demos_log_close(&w.log);
    return status;
}
