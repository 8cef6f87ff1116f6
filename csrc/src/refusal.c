/* Failures that came as JSON (csrc/WIRE.md, 9). */
#include "refusal.h"

#include "error.h"
#include "json.h"

int32_t demos_read_refusal(const demos_frame *frame, demos_error *error) {
    const char *text;
    size_t length;
    demos_json json;
    char message[DEMOS_MESSAGE_BYTES] = {0}; /* of a longer text, its beginning */
    if (demos_frame_read_text(frame, &text, &length, NULL) == DEMOS_OK &&
        demos_json_open(&json, text, length, NULL) == DEMOS_OK) {
        size_t value = demos_json_find(&json, 0, "message");
        if (value != 0) {
            demos_json_read_text(&json, value, message, sizeof message, NULL);
        }
        demos_json_close(&json);
    }
    int32_t status = frame->header.status; /* one that only a newer minor version has is at least an error */
    return demos_fail(error, status > DEMOS_DATASET_FAILED ? DEMOS_INTERNAL : status, "%s",
                      message[0] == '\0' ? "the server gives no reason" : message);
}
