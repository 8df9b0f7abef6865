#include "buf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { FIRST_CAPACITY = 256, LARGE_PAGE = 1 << 21 };

bool sat_add(size_t a, size_t b, size_t *out)
{
    if (a > SIZE_MAX - b) return false;
    *out = a + b;
    return true;
}

bool sat_mul(size_t a, size_t b, size_t *out)
{
    if (b != 0 && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}

void sat_buf_init(sat_buf *buf)
{
    *buf = (sat_buf)SAT_BUF_INIT;
}

void sat_buf_free(sat_buf *buf)
{
    free(buf->data);
    sat_buf_init(buf);
}

void sat_buf_clear(sat_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

bool sat_buf_reserve(sat_buf *buf, size_t extra)
{
    size_t need;
    if (buf->failed) return false;
    if (!sat_add(buf->len, extra, &need)) {
        buf->failed = true;
        return false;
    }
    if (need > buf->cap) {
        size_t cap = buf->cap ? buf->cap : FIRST_CAPACITY;
        while (cap < need && cap <= SIZE_MAX / 2) cap *= 2;
        if (cap < need) cap = need;
        uint8_t *data = realloc(buf->data, cap);
        if (data == NULL) {
            buf->failed = true;
            return false;
        }
        buf->data = data;
        buf->cap = cap;
    }
    return true;
}

void sat_buf_append(sat_buf *buf, const void *data, size_t len)
{
    if (len == 0 || !sat_buf_reserve(buf, len)) return;
    memcpy(buf->data + buf->len, data, len);
    buf->len += len;
}

void sat_buf_u8(sat_buf *buf, uint8_t value)
{
    if (buf->len == buf->cap && !sat_buf_reserve(buf, 1)) return;
    if (buf->failed) return;
    buf->data[buf->len++] = value;
}

static void append_le(sat_buf *buf, uint64_t value, size_t bytes)
{
    if (!sat_buf_reserve(buf, bytes)) return;
    for (size_t i = 0; i < bytes; i++) buf->data[buf->len++] = (uint8_t)(value >> (8 * i));
}

void sat_buf_le16(sat_buf *buf, uint16_t value)
{
    append_le(buf, value, 2);
}

void sat_buf_le32(sat_buf *buf, uint32_t value)
{
    append_le(buf, value, 4);
}

void sat_buf_le64(sat_buf *buf, uint64_t value)
{
    append_le(buf, value, 8);
}

void sat_buf_str(sat_buf *buf, const char *text)
{
    sat_buf_append(buf, text, strlen(text));
}

static uint64_t get_le(const uint8_t *p, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = bytes; i > 0; i--) value = value << 8 | p[i - 1];
    return value;
}

uint16_t sat_get_le16(const uint8_t *p)
{
    return (uint16_t)get_le(p, 2);
}

uint32_t sat_get_le32(const uint8_t *p)
{
    return (uint32_t)get_le(p, 4);
}

uint64_t sat_get_le64(const uint8_t *p)
{
    return get_le(p, 8);
}

sat_block *sat_block_adopt(uint8_t *data, size_t len, void (*destroy)(void *, size_t, void *), void *arg)
{
    sat_block *block = malloc(sizeof *block);
    if (block == NULL) return NULL;
    *block = (sat_block){.refs = 1, .len = len, .data = data, .destroy = destroy, .arg = arg};
    return block;
}

void sat_large_pages(void *data, size_t len)
{
#if defined(MADV_HUGEPAGE)
    size_t before = -(uintptr_t)data % LARGE_PAGE; /* they begin at multiples of their size */
    if (data == NULL || len < before + LARGE_PAGE) return;
    (void)madvise((uint8_t *)data + before, (len - before) / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
#else
    (void)data;
    (void)len;
#endif
}

sat_block *sat_block_new(size_t len)
{
    uint8_t *data = malloc(len ? len : 1);
    sat_large_pages(data, len);
    sat_block *block = data ? sat_block_adopt(data, len, NULL, NULL) : NULL;
    if (block == NULL) free(data);
    return block;
}

sat_block *sat_block_retain(sat_block *block)
{
    if (block != NULL) block->refs++;
    return block;
}

void sat_block_release(sat_block *block)
{
    if (block == NULL || --block->refs > 0) return;
    if (block->destroy != NULL)
        block->destroy(block->data, block->len, block->arg);
    else
        free(block->data);
    free(block);
}
