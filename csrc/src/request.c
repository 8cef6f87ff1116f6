/* Sends a request, in parts where it is large, and puts the rows of its answer in their place as they come. */
#define _POSIX_C_SOURCE 200809L
#include "request.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "json.h"
#include "refusal.h"

/* Bytes of rows that may be unanswered, and seconds: longest wait at a time, and beyond the deadline, for the server to
 * say so itself. */
static const uint64_t WINDOW = (uint64_t)16 << 20;
static const double LONGEST_WAIT = 1.0, GRACE = 5.0, LONGEST_DEADLINE = 4294967.0;

typedef struct exchange {
    demos_channel *channel;
    const demos_request *request;
    demos_reply *reply;
    uint64_t id, rows_sent, n_answered;
    int is_done;
    int32_t status;
} exchange;

/* ---- Out -------------------------------------------------------------------------------------------------------- */

static uint64_t measure_row(const demos_request *request) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < request->n_per_row; i++) {
        bytes += 8 * request->inputs[i].width;
    }
    return bytes;
}

/* Sends rows first to first + count, behind a header of this kind; the other inputs go with the first part. */
static int32_t send_part(exchange *e, uint8_t kind, uint64_t first, uint64_t count, demos_error *error) {
    const demos_request *q = e->request;
    demos_array arrays[2];
    uint32_t n = kind == DEMOS_REQUEST ? q->n_inputs : q->n_per_row;
    for (uint32_t i = 0; i < n; i++) {
        const demos_input *input = &q->inputs[i];
        uint64_t rows = i < q->n_per_row ? count : input->rows;
        arrays[i] = input->width == 0 ? demos_describe_vector(input->dtype, rows)
                                      : demos_describe_matrix(input->dtype, rows, input->width);
    }
    demos_header header = q->header;
    header.kind = kind;
    header.id = e->id;
    if (kind == DEMOS_REQUEST) {
        double seconds = q->seconds < LONGEST_DEADLINE ? q->seconds : LONGEST_DEADLINE;
        seconds = seconds > 0 ? seconds : 0;
        header.deadline_ms = (uint32_t)(seconds * 1e3) + 1;
    } else {
        header = (demos_header){
            .kind = kind, .operation = header.operation, .id = e->id, .first_row = first, .n_rows = count};
    }
    demos_frame *frame = NULL;
    demos_link *link = e->channel->link;
    int32_t status = demos_frame_make(&link->frames, &header, arrays, n, &frame, error);
    if (status != DEMOS_OK) {
        return status;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = i < q->n_per_row ? first * q->inputs[i].width * 8 : 0;
        if (frame->layout.sizes[i] > 0) {
            memcpy(demos_frame_data(frame, i), (const uint8_t *)q->inputs[i].data + start,
                   (size_t)frame->layout.sizes[i]);
        }
    }
    e->rows_sent += count;
    return link->kind->send(link, frame, error);
}

/* Sends what the window allows of the parts that are left. */
static int32_t push(exchange *e, demos_error *error) {
    const demos_request *q = e->request;
    uint64_t n = q->header.n_rows, row = measure_row(q);
    int32_t status = DEMOS_OK;
    while (status == DEMOS_OK && q->part_rows > 0 && e->rows_sent < n && !e->is_done) {
        double answered = (double)e->n_answered * (double)n / (double)q->n_units;
        if (((double)e->rows_sent - answered) * (double)row >= (double)WINDOW) {
            break;
        }
        uint64_t left = n - e->rows_sent;
        status = send_part(e, DEMOS_ROWS, e->rows_sent, left < q->part_rows ? left : q->part_rows, error);
    }
    return status;
}

/* ---- In --------------------------------------------------------------------------------------------------------- */

static int32_t keep_text(exchange *e, const demos_frame *frame, demos_error *error) {
    const char *text;
    size_t length;
    if (frame->layout.n_arrays == 0) {
        return DEMOS_OK;
    }
    int32_t status = demos_frame_read_text(frame, &text, &length, error);
    if (status == DEMOS_OK) {
        free(e->reply->text);
        e->reply->text = malloc(length + 1);
        if (e->reply->text == NULL) {
            return demos_fail(error, DEMOS_TOO_LARGE, "no memory for an answer of %zu bytes", length);
        }
        memcpy(e->reply->text, text, length);
        e->reply->text[length] = '\0';
        e->reply->length = length;
    }
    return status;
}

static int fits(const demos_request *q, const demos_frame *frame) {
    uint64_t first = frame->header.first_row, count = frame->header.n_rows;
    int suits = frame->layout.n_arrays == q->n_outputs && count <= q->n_units && first <= q->n_units - count;
    for (uint32_t i = 0; suits && i < q->n_outputs; i++) {
        suits = frame->layout.arrays[i].dtype == DEMOS_FLOAT64 && frame->layout.sizes[i] == 8 * count * q->widths[i];
    }
    return suits;
}

/* Puts rows of the answer in their place. */
static int32_t keep_rows(exchange *e, const demos_frame *frame, demos_error *error) {
    const demos_request *q = e->request;
    if (!fits(q, frame)) {
        return demos_fail(error, DEMOS_INTERNAL, "the server answered with rows that were not asked for");
    }
    for (uint32_t i = 0; i < q->n_outputs; i++) {
        if (frame->layout.sizes[i] > 0) {
            memcpy(q->outputs[i] + frame->header.first_row * q->widths[i], demos_frame_data(frame, i),
                   (size_t)frame->layout.sizes[i]);
        }
    }
    e->n_answered += frame->header.n_rows;
    int is_final = (frame->header.flags & DEMOS_FINAL) != 0;
    if (e->n_answered > q->n_units || (is_final && e->n_answered != q->n_units)) {
        return demos_fail(error, DEMOS_INTERNAL, "the server ended its answer after %llu of %llu rows",
                          (unsigned long long)e->n_answered, (unsigned long long)q->n_units);
    }
    return DEMOS_OK;
}

/* Nothing will come any more, to whatever is asked. */
static int32_t lose(exchange *e, const demos_error *error) {
    e->channel->lost = *error;
    e->is_done = 1;
    return error->status;
}

/* Looks at a frame; an answer to something else, late, is dropped. */
static int32_t take(exchange *e, const demos_frame *frame, demos_error *error) {
    const demos_header *header = &frame->header;
    if (header->kind == DEMOS_END) {
        demos_fail(error, DEMOS_SERVER_LOST, "the server has ended");
        return lose(e, error);
    }
    if (header->kind == DEMOS_REPLY && header->id == 0 && header->status != DEMOS_OK) { /* about the link */
        demos_read_refusal(frame, error);
        return lose(e, error);
    }
    if (header->kind != DEMOS_REPLY || header->id != e->id) {
        return DEMOS_OK;
    }
    if (header->status != DEMOS_OK) {
        e->is_done = 1;
        return demos_read_refusal(frame, error);
    }
    int32_t status = e->request->n_outputs > 0 ? keep_rows(e, frame, error) : keep_text(e, frame, error);
    e->is_done = (header->flags & DEMOS_FINAL) != 0;
    e->reply->revision = header->revision;
    return status;
}

static int32_t wait_for_answer(exchange *e, demos_error *error) {
    demos_link *link = e->channel->link;
    double end = demos_now() + e->request->seconds + GRACE;
    int32_t status = DEMOS_OK;
    while (status == DEMOS_OK && !e->is_done) {
        demos_frame *frame = NULL;
        status = link->kind->receive(link, &frame, error);
        if (status != DEMOS_OK) {
            return lose(e, error);
        }
        if (frame != NULL) {
            status = take(e, frame, error);
            demos_frame_give(&link->frames, frame);
            status = status == DEMOS_OK ? push(e, error) : status;
            continue;
        }
        double left = end - demos_now();
        if (left <= 0) {
            return demos_fail(error, DEMOS_DEADLINE, "no answer within %g s", e->request->seconds);
        }
        link->kind->wait(link, left < LONGEST_WAIT ? left : LONGEST_WAIT);
    }
    return status;
}

/* What its answer may have, texts included; late answers to others are no larger than those were. */
static uint64_t measure_answer(const demos_request *request) {
    uint64_t bytes = DEMOS_MAX_HEAD_BYTES + DEMOS_JSON_BYTES;
    for (uint32_t i = 0; i < request->n_outputs; i++) {
        bytes += 8 * request->n_units * request->widths[i];
    }
    return bytes;
}

int32_t demos_ask(demos_channel *channel, const demos_request *request, demos_reply *reply, demos_error *error) {
    demos_error own = {0};
    error = error == NULL ? &own : error;
    if (channel->owner != (int32_t)getpid()) {
        return demos_fail(
            error, DEMOS_INVALID_INPUT,
            "this connection belongs to the process that made it, not to its forks: connect once in each");
    }
    if (channel->lost.status != DEMOS_OK) {
        return demos_fail(error, channel->lost.status, "%s", channel->lost.message);
    }
    exchange e = {.channel = channel, .request = request, .reply = reply, .id = ++channel->last_id};
    uint64_t first = request->header.n_rows, most = measure_answer(request);
    channel->link->most_bytes = most > channel->most_bytes ? most : channel->most_bytes;
    channel->most_bytes = channel->link->most_bytes;
    if (request->part_rows > 0 && request->part_rows < first) {
        first = request->part_rows;
    }
    int32_t status = send_part(&e, DEMOS_REQUEST, 0, first, error);
    if (status == DEMOS_OK) {
        status = push(&e, error);
    }
    if (status == DEMOS_OK) {
        status = wait_for_answer(&e, error);
    }
    if (status != DEMOS_OK && !e.is_done) {
        demos_link_say(channel->link, &(demos_header){.kind = DEMOS_CANCEL, .id = e.id}, NULL);
    }
    return status;
}
