/* Frames over MPI: a small one is one message, a larger one a head and the pieces of its arrays (csrc/WIRE.md, 4). */
#include "mpi_link.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { HEAD = 1, PIECE = 2 };
/* Seconds: longest sleep while something is under way; how long a large message is waited for without sleep. */
static const double NAP = 1e-3, PATIENCE = 0.1;

/* A frame that is being sent or received, with the requests of its messages. */
typedef struct transfer {
    demos_frame *frame;
    MPI_Request *requests;
    int n_requests;
    struct transfer *next;
} transfer;

typedef struct mpi_link {
    demos_link link; /* first */
    MPI_Comm comm;
    int rank;
    demos_bell *bell;
    transfer *first_out, *last_out;
    transfer *incoming; /* the large frame that is being received */
    demos_frame_queue arrived;
    double moving_until;
} mpi_link;

/* ---- The messages of a frame ------------------------------------------------------------------------------------ */

/* The nth run of bytes behind the head: arrays and the padding between them, by turns; empty ones included. */
static void find_run(const demos_layout *layout, uint32_t nth, uint64_t *start, uint64_t *length) {
    uint32_t array = nth / 2;
    uint64_t end = layout->offsets[array] + layout->sizes[array];
    *start = nth % 2 == 0 ? layout->offsets[array] : end;
    *length = nth % 2 == 0 ? layout->sizes[array] : layout->offsets[array + 1] - end;
}

static uint32_t count_runs(const demos_layout *layout) { return 2 * layout->n_arrays - 1; }

static int count_pieces(const demos_layout *layout) {
    uint64_t count = 0, start, length;
    for (uint32_t i = 0; i < count_runs(layout); i++) {
        find_run(layout, i, &start, &length);
        count += (length + DEMOS_PIECE_BYTES - 1) / DEMOS_PIECE_BYTES;
    }
    return (int)count;
}

static int has_pieces(const demos_frame *frame) { return !demos_is_inline(&frame->header); }

/* Starts to send or receive the pieces of a frame; fills in n_requests from its present value on. */
static void start_pieces(mpi_link *m, transfer *t, int is_out) {
    const demos_layout *layout = &t->frame->layout;
    uint64_t start, length;
    for (uint32_t i = 0; i < count_runs(layout); i++) {
        find_run(layout, i, &start, &length);
        for (uint64_t done = 0; done < length; done += DEMOS_PIECE_BYTES) {
            uint64_t rest = length - done;
            int size = rest < DEMOS_PIECE_BYTES ? (int)rest : DEMOS_PIECE_BYTES;
            uint8_t *bytes = t->frame->bytes + start + done;
            MPI_Request *request = &t->requests[t->n_requests++];
            if (is_out) {
                MPI_Isend(bytes, size, MPI_BYTE, m->rank, PIECE, m->comm, request);
            } else {
                MPI_Irecv(bytes, size, MPI_BYTE, m->rank, PIECE, m->comm, request);
            }
        }
    }
}

static transfer *make_transfer(demos_frame *frame, int n_requests) {
    transfer *t = malloc(sizeof *t);
    MPI_Request *requests = malloc((size_t)n_requests * sizeof *requests);
    if (t == NULL || requests == NULL) {
        free(t);
        free(requests);
        return NULL;
    }
    *t = (transfer){.frame = frame, .requests = requests};
    return t;
}

static void free_transfer(transfer *t) {
    free(t->requests);
    free(t);
}

static int is_done(transfer *t) {
    int flag = 0;
    MPI_Testall(t->n_requests, t->requests, &flag, MPI_STATUSES_IGNORE);
    return flag;
}

/* ---- Out -------------------------------------------------------------------------------------------------------- */

static int32_t is_sent(demos_link *link) {
    mpi_link *m = (mpi_link *)link;
    for (transfer *t; (t = m->first_out) != NULL && is_done(t);) {
        m->first_out = t->next;
        m->last_out = t->next == NULL ? NULL : m->last_out;
        demos_frame_give(&link->frames, t->frame);
        free_transfer(t);
    }
    return m->first_out == NULL;
}

static int32_t send_frame(demos_link *link, demos_frame *frame, demos_error *error) {
    mpi_link *m = (mpi_link *)link;
    int n_pieces = has_pieces(frame) ? count_pieces(&frame->layout) : 0;
    transfer *t = make_transfer(frame, 1 + n_pieces);
    if (t == NULL) {
        demos_frame_give(&link->frames, frame);
        return demos_fail(error, DEMOS_TOO_LARGE, "no memory to send a frame of %d pieces", n_pieces);
    }
    int head = (int)(n_pieces == 0 ? frame->layout.end : frame->layout.head);
    MPI_Isend(frame->bytes, head, MPI_BYTE, m->rank, HEAD, m->comm, &t->requests[t->n_requests++]);
    if (n_pieces > 0) {
        start_pieces(m, t, 1);
    }
    if (m->last_out == NULL) {
        m->first_out = t;
    } else {
        m->last_out->next = t;
    }
    m->last_out = t;
    is_sent(link);
    demos_bell_ring(m->bell);
    return DEMOS_OK;
}

/* ---- In --------------------------------------------------------------------------------------------------------- */

static int32_t out_of_memory(uint64_t bytes, demos_error *error) {
    return demos_fail(error, DEMOS_TOO_LARGE, "no memory for a frame of %llu bytes", (unsigned long long)bytes);
}

/* Begins to receive a large frame, whose head is there. */
static int32_t begin_large(mpi_link *m, const demos_header *header, const demos_layout *layout, const uint8_t *head,
                           demos_error *error) {
    demos_frame *frame = demos_frame_take(&m->link.frames, (size_t)layout->end);
    transfer *t = frame == NULL ? NULL : make_transfer(frame, count_pieces(layout));
    if (t == NULL) {
        demos_frame_give(&m->link.frames, frame);
        return out_of_memory(layout->end, error);
    }
    frame->header = *header;
    frame->layout = *layout;
    memcpy(frame->bytes, head, (size_t)layout->head);
    start_pieces(m, t, 0);
    m->incoming = t;
    m->moving_until = demos_now() + PATIENCE;
    return DEMOS_OK;
}

/* The frame that `length` bytes from `start` of a message are or begin with. */
static int32_t take_frame(mpi_link *m, const demos_frame *message, size_t start, size_t length,
                          const demos_header *header, demos_error *error) {
    const uint8_t *bytes = message->bytes + start;
    demos_layout layout;
    int32_t status = demos_link_check(&m->link, header, bytes, length, &layout, error);
    if (status != DEMOS_OK || !demos_is_inline(header)) {
        return status == DEMOS_OK ? begin_large(m, header, &layout, bytes, error) : status;
    }
    demos_frame *frame = demos_frame_take(&m->link.frames, (size_t)layout.end);
    if (frame == NULL) {
        return out_of_memory(layout.end, error);
    }
    frame->header = *header;
    frame->layout = layout;
    memcpy(frame->bytes, bytes, (size_t)layout.end);
    demos_queue_put(&m->arrived, frame);
    return DEMOS_OK;
}

/* Looks at a message; *is_whole says that it was one small frame, and is in the queue itself. */
static int32_t take_message(mpi_link *m, demos_frame *message, size_t length, int *is_whole, demos_error *error) {
    *is_whole = 0;
    for (size_t start = 0, next; start < length; start = next) {
        demos_header header;
        int32_t status = demos_split(message->bytes, length, start, &header, &next, error);
        if (status == DEMOS_OK && start == 0 && DEMOS_HEADER_BYTES + header.payload == length &&
            demos_is_inline(&header)) {
            message->header = header;
            status = demos_link_check(&m->link, &header, message->bytes, length, &message->layout, error);
            if (status == DEMOS_OK) {
                *is_whole = 1;
                demos_queue_put(&m->arrived, message);
            }
            return status;
        }
        if (status == DEMOS_OK) {
            status = take_frame(m, message, start, length - start, &header, error);
        }
        if (status != DEMOS_OK) {
            return status;
        }
    }
    return DEMOS_OK;
}

/* Takes in a message, if there is one. */
static int32_t receive_message(mpi_link *m, int *is_any, demos_error *error) {
    MPI_Status found;
    int length = 0, is_whole = 0;
    MPI_Iprobe(m->rank, HEAD, m->comm, is_any, &found);
    if (!*is_any) {
        return DEMOS_OK;
    }
    MPI_Get_count(&found, MPI_BYTE, &length);
    demos_frame *message = demos_frame_take(&m->link.frames, (size_t)length);
    if (message == NULL) {
        return out_of_memory((uint64_t)length, error);
    }
    MPI_Recv(message->bytes, length, MPI_BYTE, m->rank, HEAD, m->comm, MPI_STATUS_IGNORE);
    int32_t status = take_message(m, message, (size_t)length, &is_whole, error);
    if (!is_whole) {
        demos_frame_give(&m->link.frames, message);
    }
    demos_bell_has_come(m->bell);
    demos_bell_nudge(m->bell);
    return status;
}

static int32_t receive(demos_link *link, demos_frame **frame, demos_error *error) {
    mpi_link *m = (mpi_link *)link;
    if (m->first_out != NULL) {
        is_sent(link);
    }
    *frame = demos_queue_pop(&m->arrived);
    if (*frame != NULL) {
        return DEMOS_OK;
    }
    if (m->incoming != NULL) {
        demos_bell_nudge(m->bell);
        if (is_done(m->incoming)) {
            *frame = m->incoming->frame;
            free_transfer(m->incoming);
            m->incoming = NULL;
            demos_bell_has_come(m->bell);
        }
        return DEMOS_OK; /* what comes behind it is behind it */
    }
    int is_any;
    int32_t status = receive_message(m, &is_any, error);
    *frame = status == DEMOS_OK ? demos_queue_pop(&m->arrived) : NULL;
    return status;
}

static int32_t look(void *what) {
    mpi_link *m = what;
    int flag = 0;
    if (m->first_out != NULL) {
        is_sent(&m->link); /* what waits leaves only if somebody looks */
    }
    if (m->incoming != NULL) {
        demos_bell_nudge(m->bell);
        MPI_Testall(m->incoming->n_requests, m->incoming->requests, &flag, MPI_STATUSES_IGNORE);
    } else {
        MPI_Iprobe(m->rank, HEAD, m->comm, &flag, MPI_STATUS_IGNORE);
    }
    return flag;
}

static void wait_for(demos_link *link, double seconds) {
    mpi_link *m = (mpi_link *)link;
    double now = demos_now();
    if (m->incoming != NULL && now < m->moving_until) {
        demos_bell_spin(look, m, now + NAP); /* large messages move only while both sides look */
    } else {
        int is_moving = m->incoming != NULL || m->first_out != NULL;
        demos_bell_wait(m->bell, look, m, is_moving && seconds > NAP ? NAP : seconds, m->first_out != NULL);
    }
}

static void close_link(demos_link *link) {
    mpi_link *m = (mpi_link *)link;
    while (m->first_out != NULL) { /* nobody takes it any more: MPI keeps its hands on the memory */
        transfer *t = m->first_out;
        m->first_out = t->next;
        free(t);
    }
    demos_queue_clear(&m->arrived, &link->frames);
    demos_frames_close(&link->frames);
    free(m);
}

static const demos_link_kind MPI_LINK = {
    .send = send_frame, .receive = receive, .is_sent = is_sent, .wait = wait_for, .close = close_link};

int32_t demos_mpi_link_open(MPI_Comm comm, int rank, demos_bell *bell, demos_link **link, demos_error *error) {
    mpi_link *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for a link");
    }
    *m = (mpi_link){.link = {.kind = &MPI_LINK, .most_bytes = UINT64_MAX}, .comm = comm, .rank = rank, .bell = bell};
    *link = &m->link;
    return DEMOS_OK;
}
