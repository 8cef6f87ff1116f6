/* Models: what is accepted as one, and adapters. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "demos.h"
#include "scalar_model.h"

static int32_t init_all(demos_model *model, const char *config, demos_error *error) {
    return strcmp(config, "{}") == 0 ? demos_adapt(&all_functions, model, error)
                                     : demos_fail(error, DEMOS_MODEL_FAILED, "no table %s", config);
}

/* ---- What is a model -------------------------------------------------------------------------------------------- */

/* A model in memory of so many bytes, and no more. */
static demos_model *make_shorter(const demos_model *model, size_t size) {
    demos_model said = *model;
    void *memory = malloc(size);
    said.size = (uint32_t)size;
    return memory == NULL ? NULL : memcpy(memory, &said, size);
}

static void check_versions(void) {
    demos_model model, given = {.size = sizeof given, .major = DEMOS_ABI_MAJOR};
    demos_error error;
    CHECK(demos_adapt(&all_functions, &given, &error) == DEMOS_OK);
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_OK);
    CHECK(model.evaluate != NULL && model.sample != NULL);

    given.major = DEMOS_ABI_MAJOR + 1;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_BAD_VERSION);
    CHECK_TEXT(error.message, "version 2.0 of demos.h, and this library serves 1.0 to 1.");
    given.major = DEMOS_ABI_MAJOR;
    given.minor = DEMOS_ABI_MINOR + 1;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_BAD_VERSION);
    given.minor = 0;

    /* An older minor version knows fewer members: what lies behind its end is not read. */
    demos_model *shorter = make_shorter(&given, offsetof(demos_model, sample));
    CHECK(demos_check_model(shorter, &model, &error) == DEMOS_OK);
    CHECK(model.size == sizeof model && model.log_density != NULL && model.sample == NULL && model.evaluate == NULL);
    CHECK(demos_adapt(&all_functions, shorter, &error) == DEMOS_OK);
    free(shorter);
    shorter = make_shorter(&given, 8);
    CHECK(demos_check_model(shorter, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK(demos_adapt(&all_functions, shorter, &error) == DEMOS_INVALID_INPUT);
    free(shorter);

    demos_model nothing = {.size = sizeof nothing, .major = DEMOS_ABI_MAJOR};
    CHECK(demos_check_model(&nothing, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "offers nothing");
    nothing = (demos_model){0};
    CHECK(demos_check_model(&nothing, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "sizeof(demos_model)");
    given.flags = 64;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "0x40");
    given.flags = DEMOS_REENTRANT;
    CHECK(demos_check_model(&given, &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "create()");
    CHECK(demos_abi_version() == DEMOS_ABI_MAJOR * 65536 + DEMOS_ABI_MINOR);
}

/* A plug-in of a later version, whose model is larger, and one that writes nothing at all. */
static int32_t init_later(demos_model *model, const char *config, demos_error *error) {
    (void)config;
    (void)error;
    memset(model, 1, 2 * sizeof *model);
    model->size = 2 * sizeof *model;
    model->major = DEMOS_ABI_MAJOR;
    model->minor = DEMOS_ABI_MINOR + 1;
    return DEMOS_OK;
}

static int32_t init_silently(demos_model *model, const char *config, demos_error *error) {
    (void)model, (void)config, (void)error;
    return DEMOS_MODEL_FAILED;
}

static int32_t init_oddly(demos_model *model, const char *config, demos_error *error) {
    (void)model, (void)config;
    memset(error->message, 'x', sizeof error->message);
    return -1;
}

static void check_init(void) {
    demos_model model;
    demos_error error;
    CHECK(demos_init_model(init_all, "{}", &model, &error) == DEMOS_OK);
    demos_end_model(&model);
    CHECK(demos_init_model(init_all, "{\"a\": 1}", &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "no table {\"a\": 1}");
    CHECK(demos_init_model(init_later, "{}", &model, &error) == DEMOS_BAD_VERSION);
    CHECK(demos_init_model(init_silently, "{}", &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "demos_model_init() returned MODEL_FAILED and no message");
    CHECK(demos_init_model(init_oddly, "{}", &model, &error) == DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "demos_model_init() returned -1, UNKNOWN, which no model does: xxx");
    CHECK(strlen(error.message) < sizeof error.message);
    CHECK(demos_init_model(init_silently, "{}", &model, NULL) == DEMOS_MODEL_FAILED);
}

/* ---- Adapters --------------------------------------------------------------------------------------------------- */

static double give_negative(const double *x, const double *params) { return x[0] > 0.5 ? -0.25 * params[0] : 1; }

static double give_nan(const double *x, const double *params) { return x[0] - params[0] + (double)NAN; }

static double give_nothing(const double *x, const double *params) { return 0 * x[0] * params[0] * -1.0; }

static int32_t try_density(demos_density_function density, const double *x, double *value, demos_error *error) {
    const demos_functions functions = {.size = sizeof functions, .density = density};
    static const double params[P] = {1, 2};
    demos_caller *caller = open_caller(&functions, 2);
    CHECK_EQUAL(demos_caller_threads(caller), 1); /* it is not said to be thread-safe */
    int32_t status = demos_call_log_density(caller, 2, x, params, 0, value, error);
    double gradient[2 * P];
    CHECK(demos_call_log_density_gradient(caller, 2, x, params, 0, value, gradient,
                                          error == NULL ? NULL : &(demos_error){0}) == DEMOS_NOT_OFFERED);
    demos_caller_close(caller);
    return status;
}

static void check_densities(void) {
    const double x[2 * D] = {0.25, 0, 0.75, 0};
    double value[2];
    demos_error error;
    CHECK(try_density(give_density, x, value, &error) == DEMOS_OK);
    CHECK_EQUAL(value[1], log(exp(-0.75) * 2));
    CHECK(try_density(give_nothing, x, value, &error) == DEMOS_OK);
    CHECK_EQUAL(value[0], (double)-INFINITY); /* of -0 */
    CHECK(try_density(give_nan, x, value, &error) == DEMOS_OK);
    CHECK(isnan(value[0]) && isnan(value[1]));
    CHECK(try_density(give_negative, x, value, &error) == DEMOS_MODEL_FAILED);
    CHECK_EQUAL(error.status, DEMOS_MODEL_FAILED);
    CHECK_TEXT(error.message, "the density is -0.25, and none is negative, at x = (0.75, 0), params = (1, 2)");
    CHECK(try_density(give_negative, x, value, NULL) == DEMOS_MODEL_FAILED);
}

static void check_functions(void) {
    demos_functions later = all_functions;
    demos_model model = {.size = sizeof model};
    demos_error error;
    later.size = sizeof later + 8;
    CHECK(demos_adapt(&later, &model, &error) == DEMOS_INVALID_INPUT);
    later.size = offsetof(demos_functions, sample); /* an earlier version */
    CHECK(demos_adapt(&later, &model, &error) == DEMOS_OK);
    CHECK(model.log_density != NULL && model.sample == NULL && model.evaluate == NULL);
}

int main(void) {
    check_versions();
    check_init();
    check_densities();
    check_functions();
    return check_failures != 0;
}
