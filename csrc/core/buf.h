/* Growable byte buffer for writing, and reference-counted memory for what was received.
 *
 * sat_buf: owned by whoever holds the struct; sat_buf_free releases it. Its writers never fail in the
 * middle: on an allocation failure or an overflow `failed` is set, later writes do nothing, and the
 * caller checks `failed` once at the end.
 *
 * sat_block: bytes shared by several owners (frames of one message, the arrays made of them).
 * sat_block_retain adds an owner, sat_block_release takes one away and frees with the last.
 * Not thread-safe: all owners live in one Lua state. */
#ifndef SATURN_BUF_H
#define SATURN_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sat_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    bool failed;
} sat_buf;

#define SAT_BUF_INIT {NULL, 0, 0, false}

void sat_buf_init(sat_buf *buf);
void sat_buf_free(sat_buf *buf);  /* frees the memory; the buffer may be used again */
void sat_buf_clear(sat_buf *buf); /* len = 0, keeps the memory, clears `failed` */

/* Room for `extra` more bytes behind len; false (and `failed`) if there is none to be had. */
bool sat_buf_reserve(sat_buf *buf, size_t extra);

void sat_buf_append(sat_buf *buf, const void *data, size_t len);
void sat_buf_u8(sat_buf *buf, uint8_t value);
void sat_buf_le16(sat_buf *buf, uint16_t value);
void sat_buf_le32(sat_buf *buf, uint32_t value);
void sat_buf_le64(sat_buf *buf, uint64_t value);
void sat_buf_str(sat_buf *buf, const char *text); /* the characters, no terminator */

/* a + b or a * b into *out; false when it does not fit. */
bool sat_add(size_t a, size_t b, size_t *out);
bool sat_mul(size_t a, size_t b, size_t *out);

/* Unaligned little-endian reads. */
uint16_t sat_get_le16(const uint8_t *p);
uint32_t sat_get_le32(const uint8_t *p);
uint64_t sat_get_le64(const uint8_t *p);

typedef struct sat_block {
    size_t refs;
    size_t len;
    uint8_t *data;
    void (*destroy)(void *data, size_t len, void *arg); /* NULL: free(data) */
    void *arg;
} sat_block;

/* A hint that new memory be had in large pages where the system has them and the memory is large: half of the time of
 * filling it would go into page faults. Memory that is not written to is not used. */
void sat_large_pages(void *data, size_t len);

/* A new block of one owner; the memory is not cleared. NULL when out of memory. */
sat_block *sat_block_new(size_t len);
/* Takes over `data` (from malloc when destroy is NULL). On failure returns NULL and data stays the caller's. */
sat_block *sat_block_adopt(uint8_t *data, size_t len, void (*destroy)(void *, size_t, void *), void *arg);
sat_block *sat_block_retain(sat_block *block);
void sat_block_release(sat_block *block); /* NULL is fine */

/* Part of a block, or (block NULL) bytes that somebody else keeps alive. Copying the struct does not retain. */
typedef struct sat_slice {
    sat_block *block;
    const uint8_t *data;
    size_t len;
} sat_slice;

#endif
