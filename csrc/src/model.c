/* A model that somebody else has filled in: whether it is one, and what of it is known here. */
#include "demos.h"

#include <string.h>

#include "error.h"

enum {
    KNOWN_FLAGS =
        DEMOS_THREAD_SAFE | DEMOS_REENTRANT | DEMOS_SINGLE | DEMOS_ROWS_DEPEND | DEMOS_OWN_RANDOM | DEMOS_ONE_POINT,
    /* A plug-in of a newer version may write so many bytes before it is refused. */
    ROOM = 4096
};

static int32_t check_version(const demos_model *given, demos_error *error) {
    if (given->size == 0 && given->major == 0) {
        return demos_fail(error, DEMOS_MODEL_FAILED,
                          "the model's size, major and minor are 0: set them to sizeof(demos_model), DEMOS_ABI_MAJOR"
                          " and DEMOS_ABI_MINOR");
    }
    if (given->major != DEMOS_ABI_MAJOR || given->minor > DEMOS_ABI_MINOR) {
        return demos_fail(error, DEMOS_BAD_VERSION,
                          "the model was built against version %d.%d of demos.h, and this library serves %d.0 to %d.%d:"
                          " build it with the header of this installation (demos-hpc config), or install the other one",
                          given->major, given->minor, DEMOS_ABI_MAJOR, DEMOS_ABI_MAJOR, DEMOS_ABI_MINOR);
    }
    if (given->size < offsetof(demos_model, log_density)) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "the model's size is %u: set it to sizeof(demos_model)",
                          (unsigned)given->size);
    }
    return DEMOS_OK;
}

int32_t demos_check_model(const demos_model *given, demos_model *model, demos_error *error) {
    int32_t status = check_version(given, error);
    if (status != DEMOS_OK) {
        return status;
    }
    demos_model known = {0}; /* what the model does not know is not offered */
    memcpy(&known, given, given->size < sizeof known ? given->size : sizeof known);
    known.size = sizeof known;
    if ((known.flags & ~(uint32_t)KNOWN_FLAGS) != 0) {
        return demos_fail(error, DEMOS_MODEL_FAILED,
                          "the model's flags are %#x: they are a sum of values of enum demos_model_flag",
                          (unsigned)known.flags);
    }
    if (known.log_density == NULL && known.log_density_gradient == NULL && known.log_density_gradient_x == NULL &&
        known.sample == NULL && known.evaluate == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED,
                          "the model offers nothing: log_density, sample, evaluate and the gradients are all NULL");
    }
    if ((known.flags & DEMOS_REENTRANT) != 0 && known.create == NULL) {
        return demos_fail(error, DEMOS_MODEL_FAILED,
                          "the model has the flag DEMOS_REENTRANT, and no create() that makes users for threads");
    }
    *model = known;
    return DEMOS_OK;
}

int32_t demos_init_model(demos_model_init_function init, const char *config, demos_model *model, demos_error *error) {
    union {
        demos_model model;
        unsigned char room[ROOM];
    } space = {.room = {0}};
    demos_error own; /* functions of models always get one */
    error = error == NULL ? &own : error;
    space.model.size = sizeof(demos_model);
    space.model.major = DEMOS_ABI_MAJOR;
    space.model.minor = DEMOS_ABI_MINOR;
    error->message[0] = '\0';
    int32_t status = demos_settle(error, init(&space.model, config, error), "demos_model_init");
    return status == DEMOS_OK ? demos_check_model(&space.model, model, error) : status;
}

void demos_end_model(demos_model *model) {
    if (model->destroy != NULL && model->user != NULL) {
        model->destroy(model->user);
    }
    *model = (demos_model){0};
}
