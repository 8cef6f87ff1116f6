/*
 * Frames: every file of tests/golden means what frames.json says, written again it is the same bytes, and what is bad
 * is refused with the status that stands there. Called with that directory.
 */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "json.h"
#include "wire.h"

typedef struct golden {
    const char *directory;
    demos_json json;
} golden;

static unsigned char *read_file(const char *directory, const char *name, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t size = 1 << 20;
    unsigned char *bytes = malloc(size);
    *length = fread(bytes, 1, size, file);
    fclose(file);
    /* Exactly as long as the file, so that reading on is noticed; and not NULL. */
    unsigned char *exact = malloc(*length + (*length == 0));
    memcpy(exact, bytes, *length);
    free(bytes);
    return exact;
}

static uint64_t number_of(const demos_json *json, size_t object, const char *name) {
    uint64_t number = 0;
    demos_error error;
    CHECK(demos_json_read_unsigned(json, demos_json_find(json, object, name), UINT64_MAX, &number, &error) == DEMOS_OK);
    return number;
}

static int is_header(const demos_json *json, size_t object, const demos_header *h) {
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"magic", h->magic},     {"major", h->major},         {"minor", h->minor},
        {"kind", h->kind},       {"operation", h->operation}, {"status", h->status},
        {"flags", h->flags},     {"model", h->model},         {"n_arrays", h->n_arrays},
        {"id", h->id},           {"first_row", h->first_row}, {"n_rows", h->n_rows},
        {"payload", h->payload}, {"revision", h->revision},   {"deadline_ms", h->deadline_ms},
        {"seed", h->seed},
    };
    int is_so = json->values[object].count == sizeof fields / sizeof fields[0];
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        is_so &= number_of(json, object, fields[i].name) == fields[i].value;
    }
    return CHECK(is_so);
}

static double read_float(const demos_json *json, size_t value) {
    demos_error error;
    double number = 0;
    if (json->values[value].kind == DEMOS_JSON_TEXT) {
        return demos_json_is(json, value, "nan")   ? (double)NAN
               : demos_json_is(json, value, "inf") ? (double)INFINITY
                                                   : (double)-INFINITY;
    }
    if (json->values[value].kind == DEMOS_JSON_TRUE || json->values[value].kind == DEMOS_JSON_FALSE) {
        return json->values[value].kind == DEMOS_JSON_TRUE;
    }
    CHECK(demos_json_read_number(json, value, &number, &error) == DEMOS_OK);
    return number;
}

static double take_element(const unsigned char *at, uint8_t dtype) {
    double f8;
    float f4;
    int64_t i8;
    int32_t i4;
    uint64_t u8;
    uint32_t u4;
    switch (dtype) {
    case DEMOS_FLOAT32:
        return memcpy(&f4, at, 4), (double)f4;
    case DEMOS_INT64:
        return memcpy(&i8, at, 8), (double)i8;
    case DEMOS_INT32:
        return memcpy(&i4, at, 4), (double)i4;
    case DEMOS_UINT64:
        return memcpy(&u8, at, 8), (double)u8;
    case DEMOS_UINT32:
        return memcpy(&u4, at, 4), (double)u4;
    case DEMOS_UINT8:
    case DEMOS_BOOL:
        return *at;
    default:
        return memcpy(&f8, at, 8), f8;
    }
}

/* Compares nested lists of numbers with the bytes of an array, and returns how many there were. */
static size_t compare(const demos_json *json, size_t value, const unsigned char *bytes, uint8_t dtype) {
    size_t step = dtype == DEMOS_COMPLEX128 ? 8 : demos_measure_dtype(dtype);
    if (json->values[value].kind != DEMOS_JSON_ARRAY) {
        CHECK_EQUAL(take_element(bytes, dtype), read_float(json, value));
        return 1;
    }
    size_t count = 0;
    for (size_t at = demos_json_first(json, value); at < demos_json_end(json, value); at = demos_json_next(json, at)) {
        count += compare(json, at, bytes + count * step, dtype);
    }
    return count;
}

static void check_arrays(const demos_json *json, size_t arrays, const unsigned char *frame, const demos_header *header,
                         const demos_layout *layout) {
    static const char *const dtypes[] = {"",       "float64", "float32", "int64", "int32",
                                         "uint64", "uint32",  "uint8",   "bool",  "complex128"};
    size_t nth = 0;
    CHECK_EQUAL(json->values[arrays].count, layout->n_arrays);
    for (size_t at = demos_json_first(json, arrays); at < demos_json_end(json, arrays);
         at = demos_json_next(json, at)) {
        const demos_array *array = &layout->arrays[nth];
        CHECK(demos_json_is(json, demos_json_find(json, at, "dtype"), dtypes[array->dtype]));
        size_t shape = demos_json_find(json, at, "shape"), data = demos_json_find(json, at, "data");
        CHECK_EQUAL(compare(json, shape, (const unsigned char *)array->shape, DEMOS_UINT64), array->n_dims);
        if (demos_is_inline(header) && json->values[data].kind != DEMOS_JSON_NULL) {
            size_t count = compare(json, data, frame + layout->offsets[nth], array->dtype);
            CHECK_EQUAL(count * (array->dtype == DEMOS_COMPLEX128 ? 8 : demos_measure_dtype(array->dtype)),
                        layout->sizes[nth]);
        }
        nth++;
    }
}

/* Packs a frame that was read, and compares the bytes. */
static void check_packed(const unsigned char *frame, const demos_header *header, const demos_layout *layout) {
    unsigned char packed[DEMOS_INLINE_BYTES];
    const void *data[DEMOS_MAX_ARRAYS] = {NULL};
    demos_header again = *header;
    demos_error error;
    size_t length = 0;
    again.magic = again.payload = again.n_arrays = again.major = 0;
    for (uint32_t i = 0; i < layout->n_arrays; i++) {
        data[i] = frame + layout->offsets[i];
    }
    memset(packed, 0xaa, sizeof packed);
    CHECK(demos_pack(&again, layout->arrays, data, layout->n_arrays, packed, sizeof packed, &length, &error) ==
          DEMOS_OK);
    CHECK_EQUAL(length, demos_is_inline(header) ? layout->end : layout->head);
    packed[5] = header->minor; /* ours would be 0 */
    CHECK(memcmp(packed, frame, length) == 0);
    CHECK(demos_pack(&again, layout->arrays, data, layout->n_arrays, packed, length - 1, &length, &error) ==
          DEMOS_TOO_LARGE);
}

static void check_good(const golden *g, size_t entry) {
    char name[256];
    demos_error error;
    size_t length, next = 0;
    demos_json_read_text(&g->json, demos_json_find(&g->json, entry, "file"), name, sizeof name, &error);
    unsigned char *message = read_file(g->directory, name, &length);
    int failures = check_failures;
    size_t frames = demos_json_find(&g->json, entry, "frames");
    size_t at = demos_json_first(&g->json, frames);
    for (size_t start = 0; start < length; start = next, at = demos_json_next(&g->json, at)) {
        demos_header header;
        demos_layout layout;
        if (!CHECK(at < demos_json_end(&g->json, frames)) ||
            !CHECK(demos_split(message, length, start, &header, &next, &error) == DEMOS_OK)) {
            break;
        }
        CHECK_EQUAL(number_of(&g->json, at, "start"), start);
        is_header(&g->json, demos_json_find(&g->json, at, "header"), &header);
        const unsigned char *frame = message + start;
        if (CHECK(demos_read_layout(&header, frame, length - start, &layout, &error) == DEMOS_OK)) {
            CHECK_EQUAL(demos_find_head_bytes(&header, frame, length - start), layout.head);
            check_arrays(&g->json, demos_json_find(&g->json, at, "arrays"), frame, &header, &layout);
            check_packed(frame, &header, &layout);
        }
    }
    CHECK(at == demos_json_end(&g->json, frames));
    if (check_failures > failures) {
        fprintf(stderr, "    in %s\n", name);
    }
    free(message);
}

static void check_bad(const golden *g, size_t entry) {
    char name[256], wanted[64];
    demos_error error;
    size_t length, next = 0;
    demos_json_read_text(&g->json, demos_json_find(&g->json, entry, "file"), name, sizeof name, &error);
    demos_json_read_text(&g->json, demos_json_find(&g->json, entry, "status"), wanted, sizeof wanted, &error);
    unsigned char *message = read_file(g->directory, name, &length);
    int32_t status = DEMOS_OK;
    for (size_t start = 0; status == DEMOS_OK && (start == 0 || start < length); start = next) {
        demos_header header;
        demos_layout layout;
        status = demos_split(message, length, start, &header, &next, &error);
        if (status == DEMOS_OK) {
            status = demos_read_layout(&header, message + start, length - start, &layout, &error);
        }
    }
    if (!CHECK(strcmp(demos_status_name(status), wanted) == 0) || !CHECK(error.message[0] != '\0')) {
        fprintf(stderr, "    in %s: %s\n", name, demos_status_name(status));
    }
    free(message);
}

/* What cannot be sent. */
static void check_unsendable(void) {
    demos_array arrays[9] = {demos_describe_matrix(DEMOS_FLOAT64, 1, 1)};
    demos_header header = {0};
    demos_layout layout;
    demos_error error;
    CHECK(demos_lay_out(&header, arrays, 9, &layout, &error) == DEMOS_INVALID_INPUT);
    arrays[0].n_dims = 9;
    CHECK(demos_lay_out(&header, arrays, 1, &layout, &error) == DEMOS_INVALID_INPUT);
    arrays[0] = demos_describe_vector(0, 3);
    CHECK(demos_lay_out(&header, arrays, 1, &layout, &error) == DEMOS_INVALID_INPUT);
    arrays[0] = demos_describe_matrix(DEMOS_FLOAT64, (uint64_t)1 << 32, (uint64_t)1 << 32);
    CHECK(demos_lay_out(&header, arrays, 1, &layout, NULL) == DEMOS_INVALID_INPUT);
    CHECK(demos_read_header("DMOS", 4, &header, &error) == DEMOS_BAD_FRAME);
    CHECK_TEXT(error.message, "4 bytes");
}

int main(int argc, char **argv) {
    golden g = {.directory = argc > 1 ? argv[1] : "tests/golden"};
    size_t length;
    demos_error error;
    unsigned char *text = read_file(g.directory, "frames.json", &length);
    if (demos_json_open(&g.json, (const char *)text, length, &error) != DEMOS_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    size_t good = demos_json_find(&g.json, 0, "good"), bad = demos_json_find(&g.json, 0, "bad");
    CHECK(g.json.values[good].count > 40 && g.json.values[bad].count > 20);
    for (size_t at = demos_json_first(&g.json, good); at < demos_json_end(&g.json, good);
         at = demos_json_next(&g.json, at)) {
        check_good(&g, at);
    }
    for (size_t at = demos_json_first(&g.json, bad); at < demos_json_end(&g.json, bad);
         at = demos_json_next(&g.json, at)) {
        check_bad(&g, at);
    }
    check_unsendable();
    demos_json_close(&g.json);
    free(text);
    return check_failures != 0;
}
