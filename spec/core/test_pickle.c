#include "check.h"
#include "pickle.h"

static const char *hex(const sat_buf *buf)
{
    static char text[2048];
    size_t at = 0;
    for (size_t i = 0; i < buf->len && at + 3 < sizeof text; i++) at += (size_t)sprintf(text + at, "%02x", buf->data[i]);
    text[at] = '\0';
    return text;
}

static void test_numbers(void)
{
    static const struct {
        int64_t value;
        const char *bytes;
    } cases[] = {{0, "4b00"}, {255, "4bff"}, {256, "4d0001"}, {65535, "4dffff"}, {65536, "4a00000100"},
                 {-1, "4affffffff"}, {INT32_MAX, "4affffff7f"}, {INT32_MIN, "4a00000080"},
                 {INT64_C(2147483648), "8a050000008000"}, {INT64_C(-2147483649), "8a05ffffff7fff"},
                 {INT64_MAX, "8a08ffffffffffffff7f"}, {INT64_MIN, "8a080000000000000080"}};
    sat_pickler p;
    sat_pickler_init(&p);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sat_pickler_reset(&p);
        sat_pickle_int(&p, cases[i].value);
        CHECK_STR(hex(&p.out), cases[i].bytes);
    }
    sat_pickler_reset(&p);
    sat_pickle_uint(&p, UINT64_MAX);
    CHECK_STR(hex(&p.out), "8a09ffffffffffffffff00");
    sat_pickler_reset(&p);
    CHECK(sat_pickle_decimal(&p, "1208925819614629174706176", 25, NULL) == SAT_OK); /* 2 to the 80 */
    CHECK_STR(hex(&p.out), "8a0b0000000000000000000001");
    sat_pickler_reset(&p);
    sat_pickle_float(&p, 3.25);
    sat_pickle_bool(&p, true);
    sat_pickle_none(&p);
    CHECK_STR(hex(&p.out), "47400a000000000000884e");
    sat_pickler_free(&p);
}

static void test_memo(void)
{
    sat_pickler p;
    sat_pickler_init(&p);
    sat_pickle_global(&p, "operator", "add");
    size_t first = p.out.len;
    sat_pickle_global(&p, "operator", "add");
    CHECK_UINT(p.out.len - first, 2);
    sat_pickle_global(&p, "operator", "sub");
    sat_pickle_str_memo(&p, "key", 3);
    size_t before = p.out.len;
    CHECK_UINT(sat_pickle_str_memo(&p, "key", 3), 2);
    CHECK_UINT(p.out.len - before, 2);
    for (int i = 0; i < 1000; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "k%d", i);
        sat_pickle_str_memo(&p, text, (size_t)len);
    }
    before = p.out.len;
    CHECK_UINT(sat_pickle_str_memo(&p, "k999", 4), 1002);
    CHECK_UINT(p.out.len - before, 5);
    CHECK(sat_pickler_status(&p, NULL) == SAT_OK);

    sat_pickler_reset(&p);
    p.memo = false;
    sat_pickle_global(&p, "operator", "add");
    first = p.out.len;
    sat_pickle_global(&p, "operator", "add");
    CHECK_UINT(p.out.len, 2 * first);
    sat_pickler_free(&p);
}

static void test_rollback(void)
{
    sat_pickler p;
    int object;
    sat_pickler_init(&p);
    sat_pickle_str_memo(&p, "kept", 4);
    sat_pickle_point point = sat_pickle_tell(&p);
    sat_pickle_str_memo(&p, "dropped", 7);
    sat_pickle_empty_list(&p);
    sat_pickle_put(&p, &object);
    CHECK(sat_pickle_has(&p, &object));
    sat_pickle_rollback(&p, point);
    CHECK(!sat_pickle_has(&p, &object));
    CHECK_UINT(p.out.len, point.out_len);
    size_t before = p.out.len;
    CHECK_UINT(sat_pickle_str_memo(&p, "dropped", 7), 1);
    CHECK(p.out.len - before > 7);
    CHECK_UINT(sat_pickle_str_memo(&p, "kept", 4), 0);
    sat_pickler_free(&p);
}

static void test_objects(void)
{
    sat_pickler p;
    static char objects[5000];
    sat_pickler_init(&p);
    for (size_t i = 0; i < sizeof objects; i++) {
        CHECK(!sat_pickle_get(&p, &objects[i]));
        sat_pickle_empty_list(&p);
        sat_pickle_put(&p, &objects[i]);
    }
    for (size_t i = 0; i < sizeof objects; i++) CHECK(sat_pickle_get(&p, &objects[i]));
    sat_pickle_forget(&p);
    CHECK(!sat_pickle_get(&p, &objects[0]));
    sat_pickler_free(&p);
}

static void test_buffers(void)
{
    sat_pickler p;
    sat_block *block = sat_block_new(16);
    REQUIRE(block != NULL);
    sat_pickler_init(&p);
    p.protocol = 5;
    for (int i = 0; i < 20; i++) sat_pickle_buffer(&p, (sat_slice){block, block->data, 16}, i % 2 == 1);
    CHECK_UINT(p.nbuffers, 20);
    CHECK_UINT(block->refs, 21);
    sat_pickler_free(&p);
    CHECK_UINT(block->refs, 1);
    sat_block_release(block);
}

static void test_bigint(void)
{
    static const char *const cases[] = {"0", "1", "-1", "127", "128", "-128", "-129", "255", "256", "999999999",
                                        "1000000000", "-1000000000", "18446744073709551615", "18446744073709551616",
                                        "-9223372036854775808", "-9223372036854775809",
                                        "123456789012345678901234567890123456789012345678901234567890"};
    sat_buf le = SAT_BUF_INIT, text = SAT_BUF_INIT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sat_buf_clear(&le);
        sat_buf_clear(&text);
        REQUIRE(sat_bigint_parse(cases[i], strlen(cases[i]), &le, NULL) == SAT_OK);
        REQUIRE(sat_bigint_text(le.data, le.len, &text, NULL) == SAT_OK);
        sat_buf_u8(&text, 0);
        CHECK_STR((const char *)text.data, cases[i]);
    }
    CHECK(sat_bigint_parse("", 0, &le, NULL) == SAT_VALUE);
    CHECK(sat_bigint_parse("-", 1, &le, NULL) == SAT_VALUE);
    CHECK(sat_bigint_parse("1x", 2, &le, NULL) == SAT_VALUE);
    sat_buf_free(&le);
    sat_buf_free(&text);
}

/* Reads the ops of a pickle; the last status, and how many ops. */
static sat_status scan(const char *data, size_t len, const sat_limits *limits, size_t *count, sat_error *err)
{
    sat_pickle_scan s;
    sat_pickle_op op;
    sat_pickle_scan_init(&s, (const uint8_t *)data, len, limits);
    for (*count = 0;; ++*count) {
        sat_status status = sat_pickle_next(&s, &op, err);
        if (status != SAT_OK || op.kind == SAT_PK_STOP) return status;
    }
}

#define SCAN(text) scan((text), sizeof(text) - 1, NULL, &count, &err)

static void test_scan(void)
{
    size_t count;
    sat_error err;
    CHECK(SCAN("\x80\4K\1.") == SAT_OK);
    CHECK_UINT(count, 1);
    CHECK(SCAN("\x80\4\x95\3\0\0\0\0\0\0\0K\1.") == SAT_OK);
    CHECK(SCAN("") == SAT_PROTOCOL);
    CHECK(SCAN("K") == SAT_PROTOCOL);
    CHECK(SCAN("\x80\6.") == SAT_PROTOCOL);
    CHECK(SCAN("\x82\1.") == SAT_PROTOCOL);
    CHECK(SCAN("Pid\n.") == SAT_PROTOCOL);
    CHECK(SCAN("X\xff\xff\xff\xff.") == SAT_PROTOCOL);
    CHECK(SCAN("\x8d\xf7\xff\xff\xff\xff\xff\xff\xff.") == SAT_PROTOCOL);
    CHECK(SCAN("\x8d\xff\xff\xff\xff\xff\xff\xff\xff.") == SAT_PROTOCOL);
    CHECK(SCAN("\x95\xff\xff\xff\xff\xff\xff\xff\xff.") == SAT_PROTOCOL);
    CHECK(SCAN("T\xff\xff\xff\xff.") == SAT_PROTOCOL);
    sat_limits limits = SAT_LIMITS_DEFAULT;
    limits.nodes = 3;
    CHECK(scan("NNNN.", 5, &limits, &count, &err) == SAT_LIMIT);
    CHECK(strstr(err.text, "limits.nodes") != NULL);
}

static void test_text(void)
{
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {{"", true}, {"plain ascii text", true}, {"h\xc3\xa9", true}, {"\xe2\x82\xac", true},
                 {"\xf0\x9f\x98\x80", true}, {"\xed\x9f\xbf", true}, {"\xf4\x8f\xbf\xbf", true},
                 {"\xc0\x80", false}, {"\xc3", false}, {"\x80", false}, {"\xe0\x80\x80", false},
                 {"\xed\xa0\x80", false}, {"\xf4\x90\x80\x80", false}, {"\xf8\x88\x80\x80\x80", false},
                 {"eight by\xff", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(sat_utf8_valid((const uint8_t *)cases[i].text, strlen(cases[i].text)) == cases[i].valid);
    sat_buf out = SAT_BUF_INIT;
    static const char escaped[] = "a\\u20ac\\U0001f600\\ud83d\\ude00\xe9";
    CHECK(sat_pickle_unescape_unicode((const uint8_t *)escaped, sizeof escaped - 1, &out, NULL) == SAT_OK);
    CHECK_MEM(out.data, out.len, "a\xe2\x82\xac\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xc3\xa9", 14);
    sat_buf_clear(&out);
    static const char quoted[] = "\\x41\\101\\n\\'\\q";
    CHECK(sat_pickle_unescape_string((const uint8_t *)quoted, sizeof quoted - 1, &out, NULL) == SAT_OK);
    CHECK_MEM(out.data, out.len, "AA\n'\\q", 6);
    CHECK(sat_pickle_unescape_string((const uint8_t *)"\\", 1, &out, NULL) == SAT_PROTOCOL);
    CHECK(sat_pickle_unescape_unicode((const uint8_t *)"\\u12", 4, &out, NULL) == SAT_PROTOCOL);
    sat_buf_free(&out);
}

int main(void)
{
    RUN(test_numbers);
    RUN(test_memo);
    RUN(test_rollback);
    RUN(test_objects);
    RUN(test_buffers);
    RUN(test_bigint);
    RUN(test_scan);
    RUN(test_text);
    return check_done();
}
