/* A client: a model that is served elsewhere, called as if it were here. Its requests stand in client_call.c. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client_state.h"
#include "error.h"
#include "json.h"
#include "ticket.h"

/* Seconds that a call may take, and its end. */
static const double TIMEOUT = 600.0, PARTING = 1.0;

/* ---- What the model is ------------------------------------------------------------------------------------------ */

static size_t count(const demos_json *json, size_t object, const char *name) {
    size_t value = demos_json_find(json, object, name);
    return value != 0 && json->values[value].kind == DEMOS_JSON_ARRAY ? json->values[value].count : 0;
}

/* A bound of a parameter, `none` where it has none. */
static int32_t read_bound(const demos_json *json, size_t parameter, const char *name, double none, double *bound,
                          demos_error *error) {
    size_t value = demos_json_find(json, parameter, name);
    *bound = none;
    return value == 0 || json->values[value].kind == DEMOS_JSON_NULL
               ? DEMOS_OK
               : demos_json_read_number(json, value, bound, error);
}

static int32_t read_bounds(demos_client *client, const demos_json *json, size_t spec, demos_error *error) {
    size_t list = demos_json_find(json, spec, "parameters");
    client->lower = calloc(2 * client->p + 1, sizeof *client->lower);
    if (client->lower == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for %zu parameters", client->p);
    }
    client->upper = client->lower + client->p;
    int32_t status = DEMOS_OK;
    size_t value = client->p > 0 ? demos_json_first(json, list) : 0;
    for (size_t j = 0; j < client->p && status == DEMOS_OK; j++) {
        status = read_bound(json, value, "lower", -(double)INFINITY, &client->lower[j], error);
        if (status == DEMOS_OK) {
            status = read_bound(json, value, "upper", (double)INFINITY, &client->upper[j], error);
        }
        value = demos_json_next(json, value);
    }
    return status;
}

static int32_t read_metadata(demos_client *client, const demos_json *json, demos_error *error) {
    uint64_t handle = 0, block_rows = 1;
    size_t spec = demos_json_find(json, 0, "spec");
    int32_t status = demos_json_read_unsigned(json, demos_json_find(json, 0, "handle"), UINT16_MAX, &handle, error);
    if (status == DEMOS_OK) {
        status = demos_json_read_unsigned(json, demos_json_find(json, spec, "block_rows"), 1 << 20, &block_rows, error);
    }
    if (status == DEMOS_OK && block_rows == 0) {
        status = demos_fail(error, DEMOS_BAD_FRAME, "a model whose blocks have no rows");
    }
    client->handle = (uint16_t)handle;
    client->block_rows = block_rows;
    client->d = count(json, spec, "observables");
    client->p = count(json, spec, "parameters");
    client->q = count(json, spec, "outputs");
    return status == DEMOS_OK ? read_bounds(client, json, spec, error) : status;
}

/* Asks for the metadata; the text stays the client's. */
static int32_t fetch_metadata(demos_client *client, demos_error *error) {
    char question[2048] = "{}"; /* a name may be 256 bytes, each of them six */
    size_t length = 2;
    demos_json_writer writer;
    demos_reply reply = {0};
    if (client->name[0] != '\0') {
        demos_json_begin(&writer, question, sizeof question);
        demos_json_open_object(&writer);
        demos_json_name(&writer, "model");
        demos_json_put_text(&writer, client->name);
        demos_json_finish(&writer, &length, NULL);
    }
    const demos_request request = {
        .header = {.operation = DEMOS_METADATA, .n_rows = 1},
        .inputs = {{.data = question, .dtype = DEMOS_UINT8, .rows = length}},
        .n_inputs = 1,
        .seconds = client->seconds,
    };
    int32_t status = demos_ask(client->channel, &request, &reply, error);
    if (status == DEMOS_OK && reply.text == NULL) {
        status = demos_fail(error, DEMOS_BAD_FRAME, "the server says nothing of its model");
    }
    if (status == DEMOS_OK) {
        free(client->metadata);
        client->metadata = reply.text;
    } else {
        free(reply.text);
    }
    return status;
}

const char *demos_client_metadata(demos_client *client, demos_error *error) {
    return fetch_metadata(client, error) == DEMOS_OK ? client->metadata : NULL;
}

int32_t demos_client_defaults(demos_client *client, double *params, demos_error *error) {
    demos_json json = {0};
    char name[256];
    int32_t status = fetch_metadata(client, error);
    if (status == DEMOS_OK) {
        status = demos_json_open(&json, client->metadata, strlen(client->metadata), error);
    }
    size_t values = status == DEMOS_OK ? demos_json_find(&json, 0, "params") : 0;
    size_t list = values == 0 ? 0 : demos_json_find(&json, demos_json_find(&json, 0, "spec"), "parameters");
    if (status == DEMOS_OK && (list == 0 || json.values[list].count != client->p)) {
        status = demos_fail(error, DEMOS_BAD_FRAME, "the server does not say what its parameters are");
    }
    size_t parameter = status != DEMOS_OK || client->p == 0 ? 0 : demos_json_first(&json, list);
    for (size_t j = 0; j < client->p && status == DEMOS_OK; j++) {
        status = demos_json_read_text(&json, demos_json_find(&json, parameter, "name"), name, sizeof name, error);
        size_t value = status == DEMOS_OK ? demos_json_find(&json, values, name) : 0;
        params[j] = (double)NAN;
        if (value != 0 && json.values[value].kind != DEMOS_JSON_NULL) {
            status = demos_json_read_number(&json, value, &params[j], error);
        }
        parameter = demos_json_next(&json, parameter);
    }
    demos_json_close(&json);
    return status;
}

/* ---- From connecting to the end --------------------------------------------------------------------------------- */

static void free_client(demos_client *client) {
    free(client->metadata);
    free(client->lower);
    free(client->name);
    free(client);
}

int32_t demos_client_open(demos_channel *channel, const char *model, void (*end)(demos_channel *channel),
                          demos_client **client, demos_error *error) {
    demos_json json = {0};
    demos_client *made = calloc(1, sizeof *made);
    char *name = strdup(model == NULL ? "" : model);
    channel->n_clients++;
    if (made == NULL || name == NULL || strlen(name) > 256) {
        free(made);
        free(name);
        channel->n_clients--;
        return demos_fail(error, DEMOS_INVALID_INPUT, "no memory for a client, or a name of more than 256 bytes");
    }
    *made = (demos_client){.channel = channel, .end = end, .name = name, .seconds = TIMEOUT};
    int32_t status = fetch_metadata(made, error);
    if (status == DEMOS_OK) {
        status = demos_json_open(&json, made->metadata, strlen(made->metadata), error);
    }
    if (status == DEMOS_OK) {
        status = read_metadata(made, &json, error);
    }
    demos_json_close(&json);
    if (status != DEMOS_OK) { /* the connection stays: there may be a model of another name */
        channel->n_clients--;
        free_client(made);
        return status;
    }
    *client = made;
    return DEMOS_OK;
}

void demos_disconnect(demos_client *client) {
    if (client == NULL) {
        return;
    }
    if (--client->channel->n_clients == 0 && client->channel->owner == (int32_t)getpid()) {
        client->end(client->channel);
    }
    free_client(client);
}

static void end_channel(demos_channel *channel) {
    demos_link *link = channel->link;
    demos_link_say(link, &(demos_header){.kind = DEMOS_GOODBYE}, NULL);
    if (demos_link_flush(link, PARTING)) {
        demos_stream_part(link, PARTING);
    }
    link->kind->close(link);
    free(channel);
}

/* The connection of this process: it has one ticket, and may have several clients. */
static demos_channel *handed_over;

static void end_handed_over(demos_channel *channel) {
    handed_over = NULL;
    end_channel(channel);
}

int32_t demos_connect(const char *model, demos_client **client, demos_error *error) {
    demos_ticket ticket = {0};
    int32_t status = DEMOS_OK;
    if (handed_over == NULL) {
        demos_link *link = NULL;
        demos_channel *channel = calloc(1, sizeof *channel);
        status = channel == NULL ? demos_fail(error, DEMOS_INTERNAL, "no memory for a connection")
                                 : demos_read_ticket("client", &ticket, error);
        if (status == DEMOS_OK) {
            status = demos_stream_open(ticket.fd, &link, error);
        }
        if (status != DEMOS_OK) {
            free(channel);
            return status;
        }
        channel->link = link;
        channel->owner = (int32_t)getpid();
        handed_over = channel;
    }
    return demos_client_open(handed_over, model, end_handed_over, client, error);
}

size_t demos_client_observables(const demos_client *client) { return client->d; }

size_t demos_client_params(const demos_client *client) { return client->p; }

size_t demos_client_outputs(const demos_client *client) { return client->q; }

void demos_client_timeout(demos_client *client, double seconds) {
    client->seconds = seconds > 0 ? seconds : 0; /* nan is 0 as well */
}
