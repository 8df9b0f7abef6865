/* msgpack: a scanner that turns bytes into bounded tokens, and the writer (msgpack-c's packer on a sat_buf).
 *
 * The scanner never allocates: a token points into the input, and a count is checked against the bytes that are
 * left before it is given out (an array of n values needs at least n bytes). */
#ifndef SATURN_MSGPACK_H
#define SATURN_MSGPACK_H

#include <msgpack.h>

#include "buf.h"
#include "status.h"

typedef enum sat_mp_type {
    SAT_MP_NIL,
    SAT_MP_BOOL,
    SAT_MP_INT,  /* fits int64 */
    SAT_MP_UINT, /* above INT64_MAX */
    SAT_MP_FLOAT,
    SAT_MP_STR,
    SAT_MP_BIN,
    SAT_MP_ARRAY, /* count values follow */
    SAT_MP_MAP    /* count pairs follow */
} sat_mp_type;

typedef struct sat_mp_token {
    sat_mp_type type;
    union {
        bool boolean;
        int64_t integer;
        uint64_t unsigned_integer;
        double number;
        size_t count;
        struct {
            const uint8_t *data;
            size_t len;
        } bytes;
    } as;
} sat_mp_token;

typedef struct sat_mp {
    const uint8_t *pos;
    const uint8_t *end;
} sat_mp;

/* A scan of these bytes; data may be NULL when there are none. */
static inline sat_mp sat_mp_over(const uint8_t *data, size_t len)
{
    return (sat_mp){data, len > 0 ? data + len : data};
}

/* The next token; SAT_EOF at the end of the input. */
sat_status sat_mp_next(sat_mp *scan, sat_mp_token *token, sat_error *err);
/* Passes over one whole value, however deep, without recursion. */
sat_status sat_mp_skip(sat_mp *scan, sat_error *err);
/* Passes over one whole value and gives its bytes. */
sat_status sat_mp_value(sat_mp *scan, sat_slice *value, sat_error *err);

bool sat_mp_is(const sat_mp_token *token, const char *text); /* a str equal to text */

/* A packer that appends to buf; failures end up in buf->failed. */
void sat_mp_packer(msgpack_packer *packer, sat_buf *buf);
void sat_mp_pack_text(msgpack_packer *packer, const char *text);
void sat_mp_pack_str(msgpack_packer *packer, const void *data, size_t len);
void sat_mp_pack_bin(msgpack_packer *packer, const void *data, size_t len);
/* The head of a set as Dask writes one, {"__Set__": true, "as-list": [...]}; its count elements are to follow. */
void sat_mp_pack_set(msgpack_packer *packer, size_t count);

#endif
