#include "bytes.h"
#include "check.h"
#include "msgpack.h"

typedef struct text {
    sat_buf bytes;
    uint8_t *copy;
    sat_mp scan;
} text;

/* A scan of exactly the bytes that the digits say. */
static text open_text(const char *hex)
{
    text t = {.bytes = SAT_BUF_INIT};
    bytes_hex(&t.bytes, hex);
    t.copy = bytes_exact(t.bytes.data, t.bytes.len);
    t.scan = (sat_mp){t.copy, t.copy + t.bytes.len};
    return t;
}

static void close_text(text *t)
{
    free(t->copy);
    sat_buf_free(&t->bytes);
}

static sat_mp_token one(const char *hex)
{
    text t = open_text(hex);
    sat_mp_token token = {.type = SAT_MP_NIL};
    sat_error err;
    CHECK_INT(sat_mp_next(&t.scan, &token, &err), SAT_OK);
    if (token.type == SAT_MP_STR || token.type == SAT_MP_BIN) token.as.bytes.data = NULL; /* it goes with the text */
    if (token.type != SAT_MP_ARRAY && token.type != SAT_MP_MAP) CHECK(t.scan.pos == t.scan.end);
    close_text(&t);
    return token;
}

static void test_integers(void)
{
    static const struct {
        const char *hex;
        int64_t value;
    } cases[] = {{"00", 0}, {"7f", 127}, {"e0", -32}, {"ff", -1}, {"cc80", 128}, {"ccff", 255}, {"cd0100", 256},
                 {"ceffffffff", INT64_C(4294967295)}, {"cf7fffffffffffffff", INT64_MAX}, {"d080", -128}, {"d07f", 127},
                 {"d18000", -32768}, {"d280000000", INT32_MIN}, {"d27fffffff", INT32_MAX},
                 {"d38000000000000000", INT64_MIN}, {"d3ffffffffffffffff", -1}, {"d30000000000000001", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sat_mp_token token = one(cases[i].hex);
        CHECK_INT(token.type, SAT_MP_INT);
        CHECK_INT(token.as.integer, cases[i].value);
    }
    sat_mp_token token = one("cf8000000000000000");
    CHECK_INT(token.type, SAT_MP_UINT);
    CHECK_UINT(token.as.unsigned_integer, UINT64_C(1) << 63);
}

static void test_others(void)
{
    CHECK_INT(one("c0").type, SAT_MP_NIL);
    sat_mp_token token = one("c2");
    CHECK(token.type == SAT_MP_BOOL && !token.as.boolean);
    token = one("c3");
    CHECK(token.type == SAT_MP_BOOL && token.as.boolean);
    token = one("ca3fc00000");
    CHECK(token.type == SAT_MP_FLOAT && token.as.number > 1.49 && token.as.number < 1.51);
    token = one("cbc000000000000000");
    CHECK(token.type == SAT_MP_FLOAT && token.as.number < -1.99 && token.as.number > -2.01);
    token = one("a0");
    CHECK(token.type == SAT_MP_STR && token.as.bytes.len == 0);
    CHECK_UINT(one("a3616263").as.bytes.len, 3);
    CHECK_UINT(one("d903616263").as.bytes.len, 3);
    CHECK_UINT(one("da0003616263").as.bytes.len, 3);
    CHECK_UINT(one("db00000003616263").as.bytes.len, 3);
    CHECK_INT(one("c403616263").type, SAT_MP_BIN);
    CHECK_UINT(one("c50003616263").as.bytes.len, 3);
    CHECK_UINT(one("c600000003616263").as.bytes.len, 3);
    CHECK(one("90").type == SAT_MP_ARRAY);
    CHECK_UINT(one("920102").as.count, 2);
    CHECK_UINT(one("dc00020102").as.count, 2);
    CHECK_UINT(one("dd000000020102").as.count, 2);
    CHECK(one("80").type == SAT_MP_MAP);
    CHECK_UINT(one("8101020304").as.count, 1);
    CHECK_UINT(one("de00010102").as.count, 1);
    CHECK_UINT(one("df000000010102").as.count, 1);
}

static void refused(const char *hex)
{
    text t = open_text(hex);
    sat_mp_token token;
    sat_error err = {SAT_OK, ""};
    CHECK_INT(sat_mp_next(&t.scan, &token, &err), SAT_PROTOCOL);
    CHECK_INT(err.status, SAT_PROTOCOL);
    close_text(&t);
}

static void test_hostile(void)
{
    static const char *const cases[] = {
        "c1",                 /* reserved */
        "c70100aa",           /* extension types */
        "c8000100aa", "d400aa", "d8000102030405060708090a0b0c0d0e0f10",
        "a3", "a36162",       /* text that is not there */
        "d9", "d9ff61", "dbffffffff", "c6ffffffff00",
        "91", "dc0002c0",     /* more values than bytes */
        "ddffffffff00", "dfffffffff0000", "8101", "de0002010203", "df80000000",
        "cc", "cd00", "ce000000", "cf00000000000000", "ca000000", "cb00000000000000", "d3",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) refused(cases[i]);
    text t = open_text("");
    sat_mp_token token;
    CHECK_INT(sat_mp_next(&t.scan, &token, NULL), SAT_EOF);
    CHECK_INT(sat_mp_skip(&t.scan, NULL), SAT_PROTOCOL);
    close_text(&t);
}

static void test_skip(void)
{
    text t = open_text("82 a26f70 93 01 92 c0c3 81a16100 a16b dd00000002 c40101 cb0000000000000000 07");
    sat_slice value;
    CHECK_INT(sat_mp_value(&t.scan, &value, NULL), SAT_OK);
    CHECK_UINT(value.len, t.bytes.len - 1);
    CHECK_INT(sat_mp_skip(&t.scan, NULL), SAT_OK);
    CHECK(t.scan.pos == t.scan.end);
    for (size_t len = 1; len < value.len; len++) {
        uint8_t *part = bytes_exact(t.bytes.data, len);
        REQUIRE(part != NULL);
        sat_mp cut = {part, part + len};
        CHECK_INT(sat_mp_skip(&cut, NULL), SAT_PROTOCOL);
        free(part);
    }
    close_text(&t);
}

static void test_skip_is_not_recursive(void)
{
    size_t depth = 1 << 20;
    uint8_t *nested = malloc(depth + 1);
    REQUIRE(nested != NULL);
    memset(nested, 0x91, depth);
    nested[depth] = 0xc0;
    sat_mp scan = {nested, nested + depth + 1};
    CHECK_INT(sat_mp_skip(&scan, NULL), SAT_OK);
    CHECK(scan.pos == scan.end);
    free(nested);
}

static void test_is(void)
{
    text t = open_text("a26f70");
    sat_mp_token token;
    CHECK_INT(sat_mp_next(&t.scan, &token, NULL), SAT_OK);
    CHECK(sat_mp_is(&token, "op"));
    CHECK(!sat_mp_is(&token, "o"));
    CHECK(!sat_mp_is(&token, "opp"));
    close_text(&t);
    t = open_text("c4026f70");
    CHECK_INT(sat_mp_next(&t.scan, &token, NULL), SAT_OK);
    CHECK(!sat_mp_is(&token, "op"));
    close_text(&t);
}

static void test_writing(void)
{
    sat_buf buf = SAT_BUF_INIT, want = SAT_BUF_INIT;
    msgpack_packer packer;
    sat_mp_packer(&packer, &buf);
    msgpack_pack_map(&packer, 2);
    sat_mp_pack_text(&packer, "op");
    sat_mp_pack_bin(&packer, "\x80", 1);
    sat_mp_pack_str(&packer, NULL, 0);
    sat_mp_pack_bin(&packer, NULL, 0);
    bytes_hex(&want, "82 a26f70 c40180 a0 c400");
    CHECK_MEM(buf.data, buf.len, want.data, want.len);
    CHECK(!buf.failed);
#if SIZE_MAX > UINT32_MAX
    sat_mp_pack_str(&packer, buf.data, (size_t)UINT32_MAX + 1);
    CHECK(buf.failed);
    sat_buf_clear(&buf);
    sat_mp_pack_bin(&packer, buf.data, (size_t)UINT32_MAX + 1);
    CHECK(buf.failed);
#endif
    sat_buf_free(&buf);
    sat_buf_free(&want);
}

int main(void)
{
    RUN(test_integers);
    RUN(test_others);
    RUN(test_hostile);
    RUN(test_skip);
    RUN(test_skip_is_not_recursive);
    RUN(test_is);
    RUN(test_writing);
    return check_done();
}
