#include <lz4.h>
#include <zstd.h>

#include "bytes.h"
#include "check.h"
#include "compress.h"

enum { LENGTH = 300000 };

static const sat_limits defaults = SAT_LIMITS_DEFAULT;

static sat_status unpack(const char *name, const uint8_t *data, size_t len, const sat_limits *limits, sat_block **out,
                         sat_error *err)
{
    uint8_t *exact = bytes_exact(data, len);
    sat_status status = exact ? sat_decompress(name, strlen(name), (sat_slice){NULL, exact, len}, limits, out, err)
                              : SAT_NOMEM;
    free(exact);
    return status;
}

static size_t pack_lz4(const uint8_t *data, size_t len, uint8_t *to, size_t room)
{
    to[0] = (uint8_t)len;
    to[1] = (uint8_t)(len >> 8);
    to[2] = (uint8_t)(len >> 16);
    to[3] = (uint8_t)(len >> 24);
    return 4 + (size_t)LZ4_compress_default((const char *)data, (char *)to + 4, (int)len, (int)room - 4);
}

/* What is whole unpacks, what is cut off or spoilt does not; nothing of it reads or writes elsewhere. */
static void exercise(const char *name, const uint8_t *packed, size_t size, const uint8_t *data, size_t len)
{
    sat_block *out;
    sat_error err;
    CHECK_INT(unpack(name, packed, size, &defaults, &out, &err), SAT_OK);
    REQUIRE(out != NULL);
    CHECK_MEM(out->data, out->len, data, len);
    sat_block_release(out);

    sat_limits small = defaults;
    small.frame = len - 1;
    CHECK_INT(unpack(name, packed, size, &small, &out, &err), SAT_LIMIT);
    CHECK(out == NULL);
    CHECK(strstr(err.text, "limits.frame") != NULL);

    for (size_t cut = 0; cut < size; cut += cut < 64 ? 1 : 997) {
        sat_status status = unpack(name, packed, cut, &defaults, &out, &err);
        CHECK(status == SAT_PROTOCOL && out == NULL);
    }
    uint8_t *spoilt = bytes_exact(packed, size);
    REQUIRE(spoilt != NULL);
    for (size_t i = 0; i < size; i += i < 64 ? 1 : 997) {
        spoilt[i] ^= 0x55;
        if (unpack(name, spoilt, size, &defaults, &out, &err) == SAT_OK) sat_block_release(out);
        spoilt[i] ^= 0x55;
    }
    free(spoilt);
}

static void test_lz4(void)
{
    /* 300000 times "a" as an old scheduler sends it */
    uint8_t *data = malloc(LENGTH), *packed = malloc(LENGTH);
    REQUIRE(data != NULL && packed != NULL);
    memset(data, 'a', LENGTH);
    size_t size = pack_lz4(data, LENGTH, packed, LENGTH);
    CHECK_MEM(packed, 8, "\xe0\x93\x04\x00\x1f\x61\x01\x00", 8);
    exercise("lz4", packed, size, data, LENGTH);
    for (size_t i = 0; i < LENGTH; i++) data[i] = (uint8_t)(i * i >> 3);
    size = pack_lz4(data, LENGTH / 2, packed, LENGTH);
    exercise("lz4", packed, size, data, LENGTH / 2);
    free(data);
    free(packed);
}

static void test_lz4_hostile(void)
{
    static const char *const cases[] = {"", "00", "000000", "ffffffff00", "ffffff7f00", "0000004000", "0500000050616263",
                                        "01000000", "00000000", "0000000010"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sat_buf bytes = SAT_BUF_INIT;
        sat_block *out;
        bytes_hex(&bytes, cases[i]);
        sat_status status = unpack("lz4", bytes.data, bytes.len, &defaults, &out, NULL);
        CHECK(status == SAT_PROTOCOL && out == NULL);
        sat_buf_free(&bytes);
    }
}

static void test_zstd(void)
{
    uint8_t *data = malloc(LENGTH), *packed = malloc(ZSTD_compressBound(LENGTH));
    REQUIRE(data != NULL && packed != NULL);
    for (size_t i = 0; i < LENGTH; i++) data[i] = (uint8_t)(i / 7);
    size_t size = ZSTD_compress(packed, ZSTD_compressBound(LENGTH), data, LENGTH, 3);
    REQUIRE(!ZSTD_isError(size));
    exercise("zstd", packed, size, data, LENGTH);

    /* several frames one behind the other, and a size that is a lie */
    sat_block *out;
    sat_buf twice = SAT_BUF_INIT;
    sat_buf_append(&twice, packed, size);
    sat_buf_append(&twice, packed, size);
    CHECK_INT(unpack("zstd", twice.data, twice.len, &defaults, &out, NULL), SAT_PROTOCOL);
    sat_buf_clear(&twice);
    bytes_hex(&twice, "28b52ffd e0 0000000001000000 01 00 00"); /* announces 4 GiB in ten bytes */
    CHECK_INT(unpack("zstd", twice.data, twice.len, &defaults, &out, NULL), SAT_PROTOCOL);
    sat_buf_free(&twice);
    free(data);
    free(packed);
}

static void test_unknown(void)
{
    sat_block *out;
    sat_error err;
    CHECK_INT(unpack("blosc", (const uint8_t *)"x", 1, &defaults, &out, &err), SAT_PROTOCOL);
    CHECK(strstr(err.text, "'blosc'") != NULL && strstr(err.text, "distributed.comm.compression") != NULL);
    CHECK(out == NULL);
}

int main(void)
{
    RUN(test_lz4);
    RUN(test_lz4_hostile);
    RUN(test_zstd);
    RUN(test_unknown);
    return check_done();
}
