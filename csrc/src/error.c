/* Status and text of what went wrong, in memory of the caller. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof((demos_error *)0)->message == DEMOS_MESSAGE_BYTES, "demos.h says how long a message is, twice");

static const char *const names[] = {
    [DEMOS_OK] = "OK",
    [DEMOS_INVALID_INPUT] = "INVALID_INPUT",
    [DEMOS_NOT_OFFERED] = "NOT_OFFERED",
    [DEMOS_MODEL_FAILED] = "MODEL_FAILED",
    [DEMOS_MODEL_CRASHED] = "MODEL_CRASHED",
    [DEMOS_BUSY] = "BUSY",
    [DEMOS_DRAINING] = "DRAINING",
    [DEMOS_CANCELLED] = "CANCELLED",
    [DEMOS_DEADLINE] = "DEADLINE",
    [DEMOS_TOO_LARGE] = "TOO_LARGE",
    [DEMOS_STALE_REVISION] = "STALE_REVISION",
    [DEMOS_BAD_FRAME] = "BAD_FRAME",
    [DEMOS_BAD_VERSION] = "BAD_VERSION",
    [DEMOS_SERVER_LOST] = "SERVER_LOST",
    [DEMOS_INTERNAL] = "INTERNAL",
    [DEMOS_MODEL_NOT_FOUND] = "MODEL_NOT_FOUND",
    [DEMOS_REFUSED] = "REFUSED",
    [DEMOS_DATASET_FAILED] = "DATASET_FAILED",
};
enum { N_NAMES = sizeof names / sizeof names[0] };

int32_t demos_fail(demos_error *error, int32_t status, const char *format, ...) {
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        /* The arguments may be parts of error->message. */
        char message[DEMOS_MESSAGE_BYTES];
        vsnprintf(message, sizeof message, format, arguments);
        va_end(arguments);
        memcpy(error->message, message, sizeof message);
        error->status = status;
    }
    return status;
}

const char *demos_status_name(int32_t status) { return status >= 0 && status < N_NAMES ? names[status] : "UNKNOWN"; }

const char *demos_version(void) { return DEMOS_VERSION; }

uint32_t demos_abi_version(void) { return DEMOS_ABI_MAJOR * 65536U + DEMOS_ABI_MINOR; }

void demos_prefix(demos_error *error, const char *text) {
    if (error != NULL) {
        demos_fail(error, error->status, "%s: %s", text, error->message);
    }
}

int32_t demos_settle(demos_error *error, int32_t status, const char *function) {
    if (status == DEMOS_OK) {
        return DEMOS_OK;
    }
    error->message[DEMOS_MESSAGE_BYTES - 1] = '\0';
    if (status != DEMOS_MODEL_FAILED && status != DEMOS_INVALID_INPUT && status != DEMOS_NOT_OFFERED &&
        status != DEMOS_TOO_LARGE && status != DEMOS_DATASET_FAILED) {
        return demos_fail(error, DEMOS_MODEL_FAILED, "%s() returned %d, %s, which no model does%s%s", function,
                          (int)status, demos_status_name(status), error->message[0] == '\0' ? "" : ": ",
                          error->message);
    }
    if (error->message[0] == '\0') {
        return demos_fail(error, status, "%s() returned %s and no message", function, demos_status_name(status));
    }
    error->status = status; /* what is returned counts */
    return status;
}
