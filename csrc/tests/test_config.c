/* Configuration: what a file and a model say together, what is missing, and what plug-ins ask for. */
#include <stdlib.h>

#include "check.h"
#include "config.h"

static double density(const double *x, const double *params) { return x[0] * params[0]; }
static void map(double *out, const double *params) { out[0] = params[0]; }

static demos_model make(const demos_functions *functions, const char *spec) {
    demos_model model = {.size = sizeof model, .spec = spec};
    CHECK(demos_adapt(functions, &model, NULL) == DEMOS_OK);
    return model;
}

static const demos_functions densities = {.size = sizeof densities, .density = density};
static const demos_functions maps = {.size = sizeof maps, .evaluate = map};

/* Opens and completes; the status of whichever fails. */
static int32_t read(demos_config *config, const char *file, const demos_model *model, demos_error *error) {
    int32_t status = demos_config_open(config, file, error);
    return status == DEMOS_OK ? demos_config_complete(config, model, error) : status;
}

static void expect_refusal(const char *file, const demos_model *model, const char *part) {
    demos_config config;
    demos_error error = {.message = ""};
    CHECK(read(&config, file, model, &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, part);
    demos_config_close(&config);
}

static void check_what_is_missing(void) {
    demos_model rows = make(&densities, NULL), points = make(&maps, "{\"name\": \"m\"}");
    expect_refusal("{}", &rows, "lacks \"name\": \"...\", \"parameters\": [...], \"observables\": [...]");
    expect_refusal("{\"parameters\": []}", &points, "lacks \"outputs\": [...]");
    expect_refusal("{\"parameters\": {}}", &points, "\"parameters\" is no array");
    expect_refusal("{\"paramters\": []}", &rows, "the unknown member \"paramters\"");
    expect_refusal("[]", &rows, "the configuration: it is no object");
    expect_refusal("{\"threads\": 0, \"name\": \"a\", \"parameters\": [], \"observables\": []}", &rows, "threads: 0");
    expect_refusal("{\"threads\": 1.5, \"name\": \"a\", \"parameters\": [], \"observables\": []}", &rows,
                   "threads: 1.5");
    expect_refusal("{\"thread_safe\": 1, \"name\": \"a\", \"parameters\": [], \"observables\": []}", &rows,
                   "thread_safe");
    expect_refusal("{\"settings\": 1}", &rows, "\"settings\"");
    demos_model broken = make(&densities, "{");
    expect_refusal("{}", &broken, "the model's spec: not JSON");
}

static void check_both(void) {
    static const char spec[] = "{\"name\": \"own\", \"version\": \"1.0.0\", \"parameters\": [\"a\", {\"name\": \"b\"}],"
                               " \"observables\": [\"x\"], \"block_rows\": 256, \"row_independent\": false}";
    static const char file[] =
        "{\"name\": \"fil\\u00e9\", \"threads\": 3, \"settings\": {\"d\": [1, {}]}, \"reproducible\":"
        " false, \"params_per_row\": true, \"thread_safe\": true, \"density\": \"f\"}";
    demos_model model = make(&densities, spec);
    demos_config config;
    demos_error error;
    CHECK(read(&config, file, &model, &error) == DEMOS_OK);
    CHECK(config.d == 1 && config.p == 2 && config.q == 0 && config.block_rows == 256 && config.threads == 3);
    CHECK(config.flags == (DEMOS_ROWS_DEPEND | DEMOS_OWN_RANDOM | DEMOS_THREAD_SAFE));
    CHECK(strcmp(config.settings, "{\"d\": [1, {}]}") == 0);
    char text[1024];
    size_t length;
    demos_json_writer writer;
    demos_json_begin(&writer, text, sizeof text);
    demos_config_put_spec(&config, &model, &writer);
    CHECK(demos_json_finish(&writer, &length, &error) == DEMOS_OK);
    CHECK(strcmp(text, "{\"name\": \"fil\\u00e9\", \"version\": \"1.0.0\", \"parameters\": [\"a\", {\"name\": \"b\"}],"
                       " \"observables\": [\"x\"], \"block_rows\": 256, \"row_independent\": false, \"params_per_row\":"
                       " true, \"reproducible\": false, \"operations\": [\"log_density\", \"log_likelihood\"]}") == 0);
    demos_config_close(&config);
    demos_config_close(&config); /* nothing is left */
}

static void check_single_precision(void) {
    demos_model model = make(&maps, "{\"name\": \"m\", \"parameters\": [], \"outputs\": []}");
    demos_config config;
    demos_error error;
    model.flags = DEMOS_SINGLE;
    CHECK(read(&config, "{}", &model, &error) == DEMOS_OK);
    char text[512];
    size_t length;
    demos_json_writer writer;
    demos_json_begin(&writer, text, sizeof text);
    demos_config_put_spec(&config, &model, &writer);
    CHECK(demos_json_finish(&writer, &length, &error) == DEMOS_OK);
    CHECK_TEXT(text, "\"notes\": {\"precision\": \"single\"}");
    demos_config_close(&config);
}

static void check_settings(void) {
    static const char config[] = "{\"d\": 3, \"mode\": \"exit\", \"none\": null}";
    double d = 1, other = 2;
    char mode[5] = "";
    demos_error error;
    CHECK(demos_config_number(config, "d", &d, &error) == DEMOS_OK);
    CHECK(demos_config_number(config, "absent", &other, &error) == DEMOS_OK);
    CHECK(demos_config_number(config, "none", &other, &error) == DEMOS_OK);
    CHECK(d == 3 && other == 2);
    CHECK(demos_config_text(config, "mode", mode, sizeof mode, &error) == DEMOS_OK);
    CHECK(strcmp(mode, "exit") == 0);
    CHECK(demos_config_text(config, "mode", mode, 4, &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, "mode: \"exit\" is not a text of less than 4 bytes");
    CHECK(demos_config_number(config, "mode", &d, &error) == DEMOS_INVALID_INPUT);
    CHECK(demos_config_number("{", "d", &d, &error) == DEMOS_INVALID_INPUT);
    CHECK(demos_config_text("[]", "d", mode, sizeof mode, NULL) == DEMOS_INVALID_INPUT);
}

int main(void) {
    check_what_is_missing();
    check_both();
    check_single_precision();
    check_settings();
    return check_failures != 0;
}
