/* Marks that this rank has started, calls in, and makes groups and intercommunicators in the order that all keep. */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "guard.h"
#include "json.h"
#include "mpi_link.h"

enum { GROUP_TAG = 32001, PAIR_TAG = 16000, HELLO_BYTES = 8192 + 6 * DEMOS_GROUP_BYTES, TOKEN_BYTES = 80 };
/* Seconds: longest wait for the roll call unless the environment says otherwise, and longer than rank 0's; for what is
 * still to be sent at the end. */
static const double ROLL_CALL = 60.0, ROLL_GRACE = 5.0, LAST_WORDS = 60.0;

void demos_launch_abort(const demos_launch *launch, const char *message) {
    fprintf(stderr, "demos-hpc: %s: %s\n", launch->name, message);
    fflush(NULL);
    demos_wait_until_read();
    MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1); /* MPICH's may return before the launcher has ended this process */
}

/* ---- Starting --------------------------------------------------------------------------------------------------- */

static int find_number(const char *const names[3]) {
    for (int i = 0; i < 3; i++) {
        const char *text = getenv(names[i]);
        if (text != NULL && text[0] >= '0' && text[0] <= '9') {
            return atoi(text);
        }
    }
    return -1;
}

/* What launchers say before MPI does; -1 where they say nothing. */
static int find_rank(void) {
    static const char *const names[] = {"PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"};
    return find_number(names);
}

static int find_size(void) {
    static const char *const names[] = {"PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"};
    return find_number(names);
}

/* The mark that rank 0's watchdog looks for where MPI_Init hangs (demos_hpc/watchdog.py). */
static void leave_mark(void) {
    char directory[4096], path[4128];
    const char *said = getenv("DEMOS_RUN_DIR");
    int rank = find_rank();
    if (rank < 0 || find_size() < 2) {
        return; /* as rank 0, which looks for none then */
    }
    if (said != NULL && said[0] != '\0') {
        snprintf(directory, sizeof directory, "%s", said);
    } else {
        snprintf(directory, sizeof directory, "/dev/shm/demos-run-%d-%d", (int)getuid(), (int)getppid());
    }
    mkdir(directory, 0700);
    snprintf(path, sizeof path, "%s/%d", directory, rank);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        close(fd);
    }
}

static void start_mpi(demos_launch *launch) {
    int is_initialized = 0, level;
    char host[256] = "?";
    MPI_Initialized(&is_initialized);
    if (!is_initialized) {
        leave_mark();
        MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
        launch->must_finalize = 1;
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &launch->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &launch->size);
    gethostname(host, sizeof host - 1);
    snprintf(launch->name, sizeof launch->name, "rank %d on %s", launch->rank, host);
}

/* ---- The roll call ---------------------------------------------------------------------------------------------- */

static int32_t say_hello(demos_launch *launch, demos_link *link, const char *role, const char *group,
                         demos_error *error) {
    char text[HELLO_BYTES], bell[DEMOS_BELL_BYTES], host[256] = "", user[64];
    const struct passwd *entry = getpwuid(getuid());
    snprintf(user, sizeof user, "%d", (int)getuid());
    gethostname(host, sizeof host - 1);
    demos_bell_address(&launch->bell, bell);
    const struct {
        const char *name, *text;
    } members[] = {{"role", role},
                   {"group", group},
                   {"host", host},
                   {"user", entry == NULL ? user : entry->pw_name},
                   {"bell", bell}};
    demos_json_writer writer;
    size_t length = 0;
    demos_json_begin(&writer, text, sizeof text);
    demos_json_open_object(&writer);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        demos_json_name(&writer, members[i].name);
        demos_json_put_text(&writer, members[i].text);
    }
    demos_json_name(&writer, "pid");
    demos_json_put_unsigned(&writer, (uint64_t)getpid());
    int32_t status = demos_json_finish(&writer, &length, error);
    return status == DEMOS_OK ? demos_link_tell(link, &(demos_header){.kind = DEMOS_HELLO}, text, length, error)
                              : status;
}

/* Everybody's role and group, in order of ranks, as the WELCOME has them. */
typedef struct roll {
    demos_json json;
    size_t *hellos; /* values, one for each rank */
    int *leaders;   /* the first rank of each client's group; -1 for servers */
    char dispatcher[DEMOS_BELL_BYTES], token[TOKEN_BYTES];
} roll;

static int is_server(const roll *r, int rank) {
    return demos_json_is(&r->json, demos_json_find(&r->json, r->hellos[rank], "role"), "server");
}

/* Whether two clients were started by the same words: one writer has written both. */
static int are_together(const roll *r, int a, int b) {
    const demos_json_value *one = &r->json.values[demos_json_find(&r->json, r->hellos[a], "group")],
                           *other = &r->json.values[demos_json_find(&r->json, r->hellos[b], "group")];
    size_t length = one->end - one->start;
    return other->end - other->start == length &&
           memcmp(r->json.text + one->start, r->json.text + other->start, length) == 0;
}

static void find_leaders(roll *r, int size) {
    for (int rank = 0; rank < size; rank++) {
        int leader = is_server(r, rank) ? -1 : rank;
        for (int other = 0; other < rank && leader == rank; other++) {
            if (r->leaders[other] == other && are_together(r, rank, other)) {
                leader = other;
            }
        }
        r->leaders[rank] = leader;
    }
}

static int32_t read_hellos(const demos_launch *launch, roll *r, demos_error *error) {
    size_t list = demos_json_find(&r->json, 0, "hellos");
    if (list == 0 || r->json.values[list].kind != DEMOS_JSON_ARRAY ||
        r->json.values[list].count != (uint32_t)launch->size) {
        return demos_fail(error, DEMOS_BAD_FRAME, "rank 0's answer does not name all %d ranks", launch->size);
    }
    r->hellos = calloc((size_t)launch->size, sizeof *r->hellos);
    r->leaders = calloc((size_t)launch->size, sizeof *r->leaders);
    if (r->hellos == NULL || r->leaders == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for %d ranks", launch->size);
    }
    size_t value = demos_json_first(&r->json, list);
    for (int rank = 0; rank < launch->size; rank++) {
        r->hellos[rank] = value;
        value = demos_json_next(&r->json, value);
    }
    find_leaders(r, launch->size);
    return DEMOS_OK;
}

static int32_t read_welcome(demos_launch *launch, const demos_frame *frame, roll *r, demos_error *error) {
    const char *text;
    size_t length;
    int32_t status = frame->header.kind == DEMOS_WELCOME
                         ? demos_frame_read_text(frame, &text, &length, error)
                         : demos_fail(error, DEMOS_BAD_FRAME, "rank 0 answers the roll call by a frame of kind %d",
                                      frame->header.kind);
    if (status == DEMOS_OK) {
        status = demos_json_open(&r->json, text, length, error);
    }
    if (status == DEMOS_OK) {
        status = read_hellos(launch, r, error);
    }
    if (status == DEMOS_OK) {
        size_t bell = demos_json_find(&r->json, r->hellos[0], "bell");
        status = demos_json_read_text(&r->json, bell, r->dispatcher, sizeof r->dispatcher, error);
    }
    if (status == DEMOS_OK) {
        status =
            demos_json_read_text(&r->json, demos_json_find(&r->json, 0, "token"), r->token, sizeof r->token, error);
    }
    size_t spec = status == DEMOS_OK ? demos_json_find(&r->json, 0, "spec") : 0;
    if (spec != 0 && (launch->spec = malloc(length)) == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for the description of a model");
    }
    if (spec != 0) {
        status = demos_json_read_text(&r->json, spec, launch->spec, length, error);
        if (status == DEMOS_OK && launch->spec[0] == '\0') {
            free(launch->spec);
            launch->spec = NULL;
        }
    }
    return status;
}

/* ---- Groups ----------------------------------------------------------------------------------------------------- */

static int32_t make_group(demos_launch *launch, const roll *r, demos_error *error) {
    int *ranks = calloc((size_t)launch->size, sizeof *ranks), n = 0;
    if (ranks == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for %d ranks", launch->size);
    }
    for (int rank = 0; rank < launch->size; rank++) {
        if (r->leaders[rank] == r->leaders[launch->rank]) {
            ranks[n++] = rank;
        }
    }
    MPI_Group world, group;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Group_incl(world, n, ranks, &group);
    MPI_Comm_create_group(MPI_COMM_WORLD, group, GROUP_TAG, &launch->group);
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    free(ranks);
    return DEMOS_OK;
}

static MPI_Comm join(const demos_launch *launch, int leader, int pair, int is_high) {
    MPI_Comm bridge, merged;
    MPI_Intercomm_create(launch->group, 0, MPI_COMM_WORLD, leader, PAIR_TAG + pair, &bridge);
    MPI_Intercomm_merge(bridge, is_high, &merged);
    return merged;
}

/* Every server rank takes part in every pair, in the same order; a client in its own. */
static int32_t link_up(demos_launch *launch, const roll *r, demos_error *error) {
    int32_t status = make_group(launch, r, error);
    int pair = 0;
    for (int rank = 0; rank < launch->size && status == DEMOS_OK; rank++) {
        if (r->leaders[rank] != rank) {
            continue;
        }
        if (r->leaders[launch->rank] < 0) {
            join(launch, rank, pair, 0);
        } else if (r->leaders[launch->rank] == rank) {
            launch->joined = join(launch, 0, pair, 1);
        }
        pair++;
    }
    MPI_Comm comm = launch->joined == MPI_COMM_NULL ? launch->group : launch->joined;
    return status == DEMOS_OK ? demos_mpi_link_open(comm, 0, &launch->bell, &launch->link, error) : status;
}

static int32_t call_in(demos_launch *launch, const char *role, const char *group, demos_error *error) {
    const char *said = getenv("DEMOS_ROLL_CALL_TIMEOUT");
    double seconds = (said == NULL ? ROLL_CALL : strtod(said, NULL)) + ROLL_GRACE;
    demos_link *link = NULL;
    demos_frame *frame = NULL;
    roll r = {0};
    int32_t status = demos_mpi_link_open(MPI_COMM_WORLD, 0, &launch->bell, &link, error);
    if (status == DEMOS_OK) {
        status = say_hello(launch, link, role, group, error);
    }
    if (status == DEMOS_OK && (status = demos_link_await(link, seconds, &frame, error)) != DEMOS_OK) {
        demos_prefix(error, "rank 0 has not called the roll (the server must come first on the command line)");
    }
    if (status == DEMOS_OK) {
        status = read_welcome(launch, frame, &r, error);
    }
    if (status == DEMOS_OK) {
        status =
            demos_bell_meet(&launch->bell, r.dispatcher, (size_t)launch->rank, (size_t)launch->size, r.token, error);
    }
    if (status == DEMOS_OK) {
        status = link_up(launch, &r, error);
    }
    demos_json_close(&r.json);
    free(r.hellos);
    free(r.leaders);
    if (link != NULL) {
        demos_frame_give(&link->frames, frame);
        demos_link_flush(link, LAST_WORDS);
        link->kind->close(link);
    }
    return status;
}

/* ---- From the beginning to the end ------------------------------------------------------------------------------ */

void demos_launch_open(demos_launch *launch, const char *role, const char *group) {
    demos_error error = {0};
    *launch = (demos_launch){.group = MPI_COMM_NULL, .joined = MPI_COMM_NULL};
    start_mpi(launch);
    if (launch->size == 1 && find_size() > 1) {
        demos_launch_abort(launch,
                           "many ranks were started, and each of them is an MPI world of its own, since the launcher"
                           " and this program's MPI library do not speak the same language: `demos-hpc doctor` tells"
                           " more. With Slurm, try srun --mpi=pmi2 or --mpi=pmix, or mpiexec inside the allocation");
    }
    if (launch->rank == 0) {
        demos_launch_abort(
            launch, strcmp(role, "client") == 0
                        ? "this program calls a model, and has no connection to one: demos-hpc ticket NAME -- PROGRAM,"
                          " or a launch whose first rank is the dispatcher: mpiexec -n 1 demos-hpc serve --spec"
                          " my_model.json : -n 4 ./my_model : -n 1 PROGRAM"
                        : "this program is rank 0, where the dispatcher has to be: mpiexec -n 1 demos-hpc serve"
                          " --spec my_model.json : -n 4 ./my_model : -n 1 ANALYSIS; or start it by demos-hpc"
                          " worker --exec");
    }
    int32_t status = demos_bell_open(&launch->bell, &error);
    if (status == DEMOS_OK) {
        status = call_in(launch, role, group, &error);
    }
    if (status != DEMOS_OK) {
        demos_launch_abort(launch, error.message);
    }
}

void demos_launch_close(demos_launch *launch) {
    if (!demos_link_flush(launch->link, LAST_WORDS)) {
        demos_launch_abort(launch, "something to be sent was not taken in time");
    }
    launch->link->kind->close(launch->link);
    demos_bell_close(&launch->bell);
    free(launch->spec);
    if (launch->must_finalize) {
        MPI_Finalize();
    }
}
