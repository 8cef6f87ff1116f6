/* What a model is and how it is served, from its file and from itself. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

enum { BLOCK_ROWS = 1024, MOST_BLOCK_ROWS = 1 << 20, MOST_THREADS = 1024 };

/* Members of a spec (demos_hpc/spec.py) that are passed on as they are, */
static const char *const SPEC[] = {
    "name",        "version", "parameters", "observables", "outputs",   "datasets", "uuid",
    "description", "license", "authors",    "citation",    "resources", "notes",    "block_rows",
};
/* those that are flags here; false sets the flag, */
static const struct {
    const char *name;
    uint32_t flag;
} PROMISES[] = {
    {"row_independent", DEMOS_ROWS_DEPEND}, {"params_per_row", DEMOS_ONE_POINT}, {"reproducible", DEMOS_OWN_RANDOM}};
/* and members of a file beside them. */
static const char *const OURS[] = {
    "library",
    "density",
    "log_density",
    "log_density_gradient",
    "log_density_gradient_x",
    "sample",
    "evaluate",
    "thread_safe",
    "threads",
    "settings",
    "limits",
    "log_level",
    "log_file",
};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static int is_known(const demos_json *json, size_t name) {
    int found = 0;
    for (size_t i = 0; i < COUNT(SPEC); i++) {
        found |= demos_json_is(json, name, SPEC[i]);
    }
    for (size_t i = 0; i < COUNT(PROMISES); i++) {
        found |= demos_json_is(json, name, PROMISES[i].name);
    }
    for (size_t i = 0; i < COUNT(OURS); i++) {
        found |= demos_json_is(json, name, OURS[i]);
    }
    return found;
}

static int32_t open_object(demos_json *json, const char *text, const char *what, demos_error *error) {
    int32_t status = demos_json_open(json, text, strlen(text), error);
    if (status == DEMOS_OK && json->values[0].kind != DEMOS_JSON_OBJECT) {
        status = demos_fail(error, DEMOS_INVALID_INPUT, "it is no object, {...}");
    }
    if (status != DEMOS_OK) {
        demos_prefix(error, what);
    }
    return status;
}

static int32_t copy_settings(demos_config *config, demos_error *error) {
    const demos_json *file = &config->file;
    size_t value = demos_json_find(file, 0, "settings");
    const char *text = "{}";
    size_t length = 2;
    if (value != 0) {
        if (file->values[value].kind != DEMOS_JSON_OBJECT) {
            return demos_fail(error, DEMOS_INVALID_INPUT, "the configuration's \"settings\" are no object, {...}");
        }
        text = file->text + file->values[value].start;
        length = file->values[value].end - file->values[value].start;
    }
    config->settings = malloc(length + 1);
    if (config->settings == NULL) {
        return demos_fail(error, DEMOS_INTERNAL, "no memory for %zu bytes of settings", length);
    }
    memcpy(config->settings, text, length);
    config->settings[length] = '\0';
    return DEMOS_OK;
}

int32_t demos_config_open(demos_config *config, const char *file, demos_error *error) {
    *config = (demos_config){.block_rows = BLOCK_ROWS};
    int32_t status = open_object(&config->file, file, "the configuration", error);
    const demos_json *json = &config->file;
    size_t end = status == DEMOS_OK ? demos_json_end(json, 0) : 0;
    for (size_t name = 1; status == DEMOS_OK && name < end; name = demos_json_next(json, name + 1)) {
        if (!is_known(json, name)) {
            char text[64] = "...";
            demos_json_read_text(json, name, text, sizeof text, NULL);
            status = demos_fail(error, DEMOS_INVALID_INPUT,
                                "the configuration has the unknown member \"%s\"; what is for the model alone stands in"
                                " \"settings\"",
                                text);
        }
    }
    return status == DEMOS_OK ? copy_settings(config, error) : status;
}

void demos_config_close(demos_config *config) {
    demos_json_close(&config->file);
    demos_json_close(&config->own);
    free(config->settings);
    *config = (demos_config){0};
}

size_t demos_config_find(const demos_config *config, const char *name, const demos_json **json) {
    *json = &config->file;
    size_t value = demos_json_find(*json, 0, name);
    if (value == 0 && config->own.n_values > 0) {
        *json = &config->own;
        value = demos_json_find(*json, 0, name);
    }
    return value;
}

/* Columns of an array; adds the name to what is missing where there is none. */
static int32_t count_columns(const demos_config *config, const char *name, int is_needed, size_t *count, char *missing,
                             size_t size, demos_error *error) {
    const demos_json *json;
    size_t value = demos_config_find(config, name, &json);
    if (value == 0 && is_needed) {
        size_t used = strlen(missing);
        snprintf(missing + used, size - used, "%s\"%s\": [...]", used == 0 ? "" : ", ", name);
    }
    if (value != 0 && json->values[value].kind != DEMOS_JSON_ARRAY) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "\"%s\" is no array, [...]", name);
    }
    *count = value == 0 ? 0 : json->values[value].count;
    return DEMOS_OK;
}

static int32_t read_columns(demos_config *config, const demos_model *model, demos_error *error) {
    char missing[256] = "";
    const demos_json *json;
    size_t name = demos_config_find(config, "name", &json);
    if (name == 0 || json->values[name].kind != DEMOS_JSON_TEXT) {
        snprintf(missing, sizeof missing, "\"name\": \"...\"");
    }
    int has_rows = model->log_density != NULL || model->log_density_gradient != NULL ||
                   model->log_density_gradient_x != NULL || model->sample != NULL;
    int32_t status = count_columns(config, "parameters", 1, &config->p, missing, sizeof missing, error);
    if (status == DEMOS_OK) {
        status = count_columns(config, "observables", has_rows, &config->d, missing, sizeof missing, error);
    }
    if (status == DEMOS_OK) {
        status = count_columns(config, "outputs", model->evaluate != NULL, &config->q, missing, sizeof missing, error);
    }
    if (status == DEMOS_OK && missing[0] != '\0') {
        status = demos_fail(error, DEMOS_INVALID_INPUT, "the configuration lacks %s", missing);
    }
    return status;
}

/* A whole number of at least 1, where the member is there. */
static int32_t read_number(const demos_config *config, const char *name, uint64_t most, uint64_t *number,
                           demos_error *error) {
    const demos_json *json;
    size_t value = demos_config_find(config, name, &json);
    int32_t status = value == 0 ? DEMOS_OK : demos_json_read_unsigned(json, value, most, number, error);
    if (status == DEMOS_OK && value != 0 && *number == 0) {
        status = demos_fail(error, DEMOS_INVALID_INPUT, "0 is not at least 1");
    }
    if (status != DEMOS_OK) {
        demos_prefix(error, name);
    }
    return status;
}

static int32_t read_flag(demos_config *config, const char *name, int32_t sets, uint32_t flag, demos_error *error) {
    const demos_json *json;
    size_t value = demos_config_find(config, name, &json);
    int32_t is_true = !sets;
    int32_t status = value == 0 ? DEMOS_OK : demos_json_read_bool(json, value, &is_true, error);
    if (status != DEMOS_OK) {
        demos_prefix(error, name);
    } else if (is_true == sets) {
        config->flags |= flag;
    }
    return status;
}

/* "limits": {"chunk_bytes": ...} */
static int32_t read_limits(demos_config *config, demos_error *error) {
    const demos_json *json = &config->file;
    size_t limits = demos_json_find(json, 0, "limits");
    if (limits == 0) {
        return DEMOS_OK;
    }
    size_t value = demos_json_find(json, limits, "chunk_bytes");
    if (json->values[limits].kind != DEMOS_JSON_OBJECT || value == 0 || json->values[limits].count != 1) {
        return demos_fail(error, DEMOS_INVALID_INPUT, "\"limits\" are {\"chunk_bytes\": ...}, and nothing else");
    }
    int32_t status = demos_json_read_unsigned(json, value, INT64_MAX, &config->chunk_bytes, error);
    if (status == DEMOS_OK && config->chunk_bytes == 0) {
        status = demos_fail(error, DEMOS_INVALID_INPUT, "0 is not at least 1");
    }
    if (status != DEMOS_OK) {
        demos_prefix(error, "chunk_bytes");
    }
    return status;
}

int32_t demos_config_complete(demos_config *config, const demos_model *model, demos_error *error) {
    int32_t status = DEMOS_OK;
    if (model->spec != NULL) {
        status = open_object(&config->own, model->spec, "the model's spec", error);
    }
    if (status == DEMOS_OK) {
        status = read_columns(config, model, error);
    }
    uint64_t block_rows = BLOCK_ROWS, threads = 0;
    if (status == DEMOS_OK) {
        status = read_number(config, "block_rows", MOST_BLOCK_ROWS, &block_rows, error);
    }
    if (status == DEMOS_OK) {
        status = read_number(config, "threads", MOST_THREADS, &threads, error);
    }
    config->block_rows = (size_t)block_rows;
    config->threads = (int32_t)threads;
    config->flags = model->flags;
    for (size_t i = 0; i < COUNT(PROMISES) && status == DEMOS_OK; i++) {
        status = read_flag(config, PROMISES[i].name, 0, PROMISES[i].flag, error);
    }
    if (status == DEMOS_OK) {
        status = read_flag(config, "thread_safe", 1, DEMOS_THREAD_SAFE, error);
    }
    return status == DEMOS_OK ? read_limits(config, error) : status;
}

int32_t demos_config_setting(const demos_config *config, const char *name, const char *variable, char *text,
                             size_t size, demos_error *error) {
    size_t value = demos_json_find(&config->file, 0, name);
    if (value == 0) {
        const char *set = getenv(variable);
        snprintf(text, size, "%s", set == NULL ? "" : set);
        return DEMOS_OK;
    }
    int32_t status = demos_json_read_text(&config->file, value, text, size, error);
    if (status != DEMOS_OK) {
        demos_prefix(error, name);
    }
    return status;
}

void demos_config_put_spec(const demos_config *config, const demos_model *model, demos_json_writer *writer) {
    demos_json_open_object(writer);
    const demos_json *json;
    for (size_t i = 0; i < COUNT(SPEC); i++) {
        size_t value = demos_config_find(config, SPEC[i], &json);
        if (value != 0) {
            const demos_json_value *v = &json->values[value];
            size_t quote = v->kind == DEMOS_JSON_TEXT;
            demos_json_name(writer, SPEC[i]);
            demos_json_put_raw(writer, json->text + v->start - quote, v->end - v->start + 2 * quote);
        }
    }
    if ((config->flags & DEMOS_SINGLE) != 0 && demos_config_find(config, "notes", &json) == 0) {
        demos_json_name(writer, "notes");
        demos_json_open_object(writer);
        demos_json_name(writer, "precision");
        demos_json_put_text(writer, "single");
        demos_json_close_last(writer);
    }
    for (size_t i = 0; i < COUNT(PROMISES); i++) {
        demos_json_name(writer, PROMISES[i].name);
        demos_json_put_bool(writer, (config->flags & PROMISES[i].flag) == 0);
    }
    const struct {
        const char *name;
        int is_offered;
    } operations[] = {
        {"log_density", model->log_density != NULL},
        {"log_likelihood", model->log_density != NULL},
        {"log_density_gradient", model->log_density_gradient != NULL},
        {"log_likelihood_gradient", model->log_density_gradient != NULL},
        {"log_density_gradient_x", model->log_density_gradient_x != NULL},
        {"sample", model->sample != NULL},
        {"evaluate", model->evaluate != NULL},
    };
    demos_json_name(writer, "operations");
    demos_json_open_array(writer);
    for (size_t i = 0; i < COUNT(operations); i++) {
        if (operations[i].is_offered) {
            demos_json_put_text(writer, operations[i].name);
        }
    }
    demos_json_close_last(writer);
    demos_json_close_last(writer);
}

/* ---- For plug-ins ----------------------------------------------------------------------------------------------- */

/* Opens `config` and finds a member that is not null; 0 where there is none. */
static int32_t find_setting(demos_json *json, const char *config, const char *name, size_t *value, demos_error *error) {
    int32_t status = open_object(json, config, "the configuration", error);
    *value = status == DEMOS_OK ? demos_json_find(json, 0, name) : 0;
    if (*value != 0 && json->values[*value].kind == DEMOS_JSON_NULL) {
        *value = 0;
    }
    return status;
}

int32_t demos_config_number(const char *config, const char *name, double *value, demos_error *error) {
    demos_json json;
    size_t found;
    int32_t status = find_setting(&json, config, name, &found, error);
    if (found != 0 && (status = demos_json_read_number(&json, found, value, error)) != DEMOS_OK) {
        demos_prefix(error, name);
    }
    demos_json_close(&json);
    return status;
}

int32_t demos_config_text(const char *config, const char *name, char *text, size_t size, demos_error *error) {
    demos_json json;
    size_t found;
    int32_t status = find_setting(&json, config, name, &found, error);
    if (found != 0 && (status = demos_json_read_text(&json, found, text, size, error)) != DEMOS_OK) {
        demos_prefix(error, name);
    }
    demos_json_close(&json);
    return status;
}
