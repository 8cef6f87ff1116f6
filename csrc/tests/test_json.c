/* JSON: what is read and what is refused, and that what is written is read again. */
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "json.h"

static int32_t try_text(const char *text, size_t length) {
    demos_json json;
    demos_error error;
    int32_t status = demos_json_open(&json, text, length, &error);
    demos_json_close(&json);
    return status;
}

static void check_what_is_refused(void) {
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:2}",
        "[1 2]",
        "[1}",
        "{\"a\":1]",
        "nul",
        "truely",
        "NaN",
        "Infinity",
        "-Infinity",
        "+1",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "1e400",
        "-1e999",
        "0x10",
        "1 2",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\t\"",
        "\"\x01\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xe2\x82\"",
        "\"\xc3\"",
        "\xef\xbb\xbf{}",
        "'a'",
        "[1]x",
        "/* */ 1",
        "\"a\" \"b\"",
        "\\u0041",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (!CHECK(try_text(bad[i], strlen(bad[i])) == DEMOS_INVALID_INPUT)) {
            fprintf(stderr, "    %s\n", bad[i]);
        }
    }
    CHECK(try_text("1\0", 2) == DEMOS_INVALID_INPUT);
    CHECK(try_text("[1]]", 3) == DEMOS_OK); /* as long as it was said to be */
}

static void check_limits(void) {
    char deep[2 * DEMOS_JSON_DEPTH + 2];
    memset(deep, '[', sizeof deep);
    memset(deep + DEMOS_JSON_DEPTH, ']', DEMOS_JSON_DEPTH);
    CHECK(try_text(deep, 2 * DEMOS_JSON_DEPTH) == DEMOS_OK);
    memset(deep, '[', sizeof deep);
    memset(deep + DEMOS_JSON_DEPTH + 1, ']', DEMOS_JSON_DEPTH + 1);
    CHECK(try_text(deep, sizeof deep) == DEMOS_INVALID_INPUT);

    size_t size = DEMOS_JSON_BYTES + 1;
    char *large = malloc(size);
    memset(large, ' ', size);
    large[0] = '0';
    CHECK(try_text(large, size - 1) == DEMOS_OK);
    CHECK(try_text(large, size) == DEMOS_INVALID_INPUT);
    memset(large, '1', 600);
    CHECK(try_text(large, 300) == DEMOS_OK);
    CHECK(try_text(large, 310) == DEMOS_INVALID_INPUT); /* more than a double holds */
    large[1] = '.';
    CHECK(try_text(large, 511) == DEMOS_OK);
    CHECK(try_text(large, 512) == DEMOS_INVALID_INPUT);
    free(large);
}

static void check_values(void) {
    static const char text[] =
        " {\"a\": [1, -2.5e-3, {\"b\": []}, \"x\"], \"n\": 18446744073709551615, \"t\": true,"
        "\"f\" :false, \"z\":null, \"\\u0061\\u00e4\\ud83d\\ude00\": \"\\\"\\\\\\/\\b\\n\\u20ac\","
        " \"t\": \"last\", \"zero\": \"a\\u0000b\"} ";
    demos_json json;
    demos_error error;
    if (!CHECK(demos_json_open(&json, text, sizeof text - 1, &error) == DEMOS_OK)) {
        return;
    }
    CHECK_EQUAL(json.values[0].count, 8);
    CHECK_EQUAL(demos_json_end(&json, 0), json.n_values);
    size_t array = demos_json_find(&json, 0, "a");
    CHECK_EQUAL(json.values[array].count, 4);
    double number = 0;
    size_t item = demos_json_next(&json, demos_json_first(&json, array));
    CHECK(demos_json_read_number(&json, item, &number, &error) == DEMOS_OK);
    CHECK_EQUAL(number, -2.5e-3);
    item = demos_json_next(&json, demos_json_next(&json, item));
    CHECK(demos_json_is(&json, item, "x"));
    CHECK(!demos_json_is(&json, item, "xy"));
    CHECK(!demos_json_is(&json, item, ""));
    CHECK(demos_json_next(&json, item) == demos_json_end(&json, array));

    uint64_t whole = 0;
    size_t n = demos_json_find(&json, 0, "n");
    CHECK(demos_json_read_unsigned(&json, n, UINT64_MAX, &whole, &error) == DEMOS_OK);
    CHECK(whole == UINT64_MAX);
    CHECK(demos_json_read_unsigned(&json, n, UINT64_MAX - 1, &whole, &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, "18446744073709551615 is not a whole number of at most 18446744073709551614");
    CHECK(demos_json_read_unsigned(&json, array + 2, 9, &whole, &error) == DEMOS_INVALID_INPUT);
    int32_t is_true = -1;
    CHECK(demos_json_read_bool(&json, demos_json_find(&json, 0, "f"), &is_true, &error) == DEMOS_OK);
    CHECK_EQUAL(is_true, 0);
    CHECK(demos_json_read_bool(&json, n, &is_true, &error) == DEMOS_INVALID_INPUT);

    char small[9], large[64];
    size_t escaped = demos_json_find(&json, 0, "a\xc3\xa4\xf0\x9f\x98\x80");
    CHECK(demos_json_read_text(&json, escaped, small, 8, &error) == DEMOS_INVALID_INPUT);
    CHECK(demos_json_read_text(&json, escaped, small, 9, &error) == DEMOS_OK);
    CHECK(strcmp(small, "\"\\/\b\n\xe2\x82\xac") == 0);
    CHECK(demos_json_read_text(&json, demos_json_find(&json, 0, "zero"), large, sizeof large, &error) != DEMOS_OK);
    CHECK(demos_json_read_text(&json, n, large, sizeof large, &error) == DEMOS_INVALID_INPUT);
    CHECK(demos_json_is(&json, demos_json_find(&json, 0, "t"), "last"));
    CHECK_EQUAL(demos_json_find(&json, 0, "absent"), 0);
    CHECK_EQUAL(demos_json_find(&json, n, "a"), 0);
    CHECK(demos_json_read_number(&json, 0, &number, &error) == DEMOS_INVALID_INPUT);
    CHECK_TEXT(error.message, "... is not a number");
    demos_json_close(&json);
}

static void check_written(void) {
    char text[1024];
    size_t length = 0;
    demos_error error;
    demos_json_writer w;
    demos_json_begin(&w, text, sizeof text);
    demos_json_open_object(&w);
    demos_json_name(&w, "text \"\\\n\x7f");
    demos_json_put_text(&w, "Gr\xf6\xdf"
                            "e \xc3\xa4"); /* Latin-1, then UTF-8 */
    demos_json_name(&w, "numbers");
    demos_json_open_array(&w);
    demos_json_put_number(&w, 0.1);
    demos_json_put_number(&w, (double)NAN);
    demos_json_put_number(&w, (double)-INFINITY);
    demos_json_put_unsigned(&w, UINT64_MAX);
    demos_json_open_array(&w);
    demos_json_close_last(&w);
    demos_json_close_last(&w);
    demos_json_name(&w, "rest");
    demos_json_open_object(&w);
    demos_json_name(&w, "yes");
    demos_json_put_bool(&w, 1);
    demos_json_name(&w, "raw");
    demos_json_put_raw(&w, "[1,2]", 5);
    CHECK(demos_json_finish(&w, &length, &error) == DEMOS_OK);
    static const char wanted[] =
        "{\"text \\\"\\\\\\u000a\\u007f\": \"Gr\\ufffd\\ufffde \xc3\xa4\", \"numbers\": [0.10000000000000001, null,"
        " null, 18446744073709551615, []], \"rest\": {\"yes\": true, \"raw\": [1,2]}}";
    CHECK(strcmp(text, wanted) == 0);
    CHECK_EQUAL(length, strlen(wanted));
    CHECK(try_text(text, length) == DEMOS_OK);

    memset(text, '#', sizeof text);
    demos_json_begin(&w, text, 5);
    demos_json_put_text(&w, "abcdef");
    CHECK(demos_json_finish(&w, &length, &error) == DEMOS_TOO_LARGE);
    CHECK_EQUAL(length, 8);
    CHECK(text[5] == '#');
}

int main(void) {
    check_what_is_refused();
    check_limits();
    check_values();
    check_written();
    if (setlocale(LC_ALL, "de_DE.UTF-8") != NULL) { /* where decimals have a comma */
        check_values();
        check_written();
    }
    return check_failures != 0;
}
