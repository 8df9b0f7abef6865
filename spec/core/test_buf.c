#include "buf.h"
#include "check.h"

static void test_growth(void)
{
    sat_buf buf = SAT_BUF_INIT;
    char byte = 'x';
    for (int i = 0; i < 1000; i++) sat_buf_append(&buf, &byte, 1);
    CHECK_UINT(buf.len, 1000);
    CHECK(buf.cap >= 1000);
    CHECK(buf.data[999] == 'x');
    uint8_t *data = buf.data;
    sat_buf_clear(&buf);
    CHECK_UINT(buf.len, 0);
    CHECK(buf.data == data);
    sat_buf_append(&buf, NULL, 0);
    CHECK_UINT(buf.len, 0);
    sat_buf_free(&buf);
    CHECK(buf.data == NULL && buf.cap == 0);
    sat_buf_str(&buf, "again");
    CHECK_MEM(buf.data, buf.len, "again", 5);
    sat_buf_free(&buf);
}

static void test_numbers(void)
{
    static const uint8_t want[] = {0x01, 0x23, 0x01, 0x67, 0x45, 0x23, 0x01, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01};
    sat_buf buf = SAT_BUF_INIT;
    sat_buf_u8(&buf, 0x01);
    sat_buf_le16(&buf, 0x0123);
    sat_buf_le32(&buf, 0x01234567);
    sat_buf_le64(&buf, UINT64_C(0x0123456789abcdef));
    CHECK_MEM(buf.data, buf.len, want, sizeof want);
    CHECK_UINT(sat_get_le16(buf.data + 1), 0x0123);
    CHECK_UINT(sat_get_le32(buf.data + 3), 0x01234567);
    CHECK_UINT(sat_get_le64(buf.data + 7), UINT64_C(0x0123456789abcdef));
    sat_buf_free(&buf);
}

static void test_failure_sticks(void)
{
    sat_buf buf = SAT_BUF_INIT;
    sat_buf_str(&buf, "kept");
    CHECK(!sat_buf_reserve(&buf, SIZE_MAX));
    CHECK(buf.failed);
    sat_buf_str(&buf, "lost");
    sat_buf_u8(&buf, 1);
    CHECK(!sat_buf_reserve(&buf, 1));
    CHECK_MEM(buf.data, buf.len, "kept", 4);
    sat_buf_clear(&buf);
    CHECK(!buf.failed);
    sat_buf_str(&buf, "new");
    CHECK_MEM(buf.data, buf.len, "new", 3);
    sat_buf_free(&buf);
}

static void test_checked_arithmetic(void)
{
    size_t out = 7;
    CHECK(sat_add(SIZE_MAX - 1, 1, &out));
    CHECK_UINT(out, SIZE_MAX);
    CHECK(!sat_add(SIZE_MAX, 1, &out));
    CHECK(sat_mul(SIZE_MAX, 1, &out));
    CHECK(sat_mul(SIZE_MAX, 0, &out));
    CHECK_UINT(out, 0);
    CHECK(!sat_mul(SIZE_MAX / 2 + 1, 2, &out));
}

static int destroyed;

static void count_destroy(void *data, size_t len, void *arg)
{
    CHECK_UINT(len, 3);
    CHECK(arg == &destroyed);
    free(data);
    destroyed++;
}

/* The hint stays within the memory, however that begins, and may be given for any. */
static void test_large_pages(void)
{
    sat_large_pages(NULL, 1 << 23);
    static const size_t sizes[] = {0, 1, (1 << 21) - 1, 1 << 21, (1 << 21) + 1, (5 << 20) + 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sat_block *block = sat_block_new(sizes[i]);
        CHECK(block != NULL);
        if (block == NULL) continue;
        memset(block->data, 7, sizes[i]);
        if (sizes[i] > 0) CHECK_INT(block->data[sizes[i] - 1], 7);
        sat_block_release(block);
    }
}

static void test_blocks(void)
{
    sat_block *block = sat_block_new(0);
    REQUIRE(block != NULL);
    CHECK(sat_block_retain(block) == block);
    sat_block_release(block);
    CHECK_UINT(block->refs, 1);
    sat_block_release(block);
    sat_block_release(NULL);
    CHECK(sat_block_retain(NULL) == NULL);

    block = sat_block_adopt(malloc(3), 3, count_destroy, &destroyed);
    REQUIRE(block != NULL);
    sat_block_retain(block);
    sat_block_release(block);
    CHECK_INT(destroyed, 0);
    sat_block_release(block);
    CHECK_INT(destroyed, 1);
}

int main(void)
{
    RUN(test_growth);
    RUN(test_numbers);
    RUN(test_failure_sticks);
    RUN(test_checked_arithmetic);
    RUN(test_large_pages);
    RUN(test_blocks);
    return check_done();
}
