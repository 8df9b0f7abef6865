#include "msgpack.h"

#include <string.h>

static sat_status truncated(sat_error *err)
{
    return sat_fail(err, SAT_PROTOCOL, "a msgpack text ends in the middle of a value");
}

static uint64_t read_be(const uint8_t *p, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) value = value << 8 | p[i];
    return value;
}

static void set_integer(sat_mp_token *token, int64_t value)
{
    token->type = SAT_MP_INT;
    token->as.integer = value;
}

static int64_t sign_extend(uint64_t value, size_t bytes)
{
    unsigned shift = (unsigned)(64 - 8 * bytes);
    uint64_t sign = UINT64_C(1) << 63;
    uint64_t high = value << shift;
    /* arithmetic shift without relying on the compiler's: extend the sign by hand */
    return (int64_t)(high & sign ? ~(~high >> shift) : high >> shift);
}

static sat_status take_bytes(sat_mp *scan, sat_mp_token *token, sat_mp_type type, uint64_t len, sat_error *err)
{
    if (len > (uint64_t)(scan->end - scan->pos)) return truncated(err);
    token->type = type;
    token->as.bytes.data = scan->pos;
    token->as.bytes.len = (size_t)len;
    scan->pos += len;
    return SAT_OK;
}

static sat_status take_count(sat_mp *scan, sat_mp_token *token, sat_mp_type type, uint64_t count, sat_error *err)
{
    uint64_t left = (uint64_t)(scan->end - scan->pos);
    if (count > (type == SAT_MP_MAP ? left / 2 : left)) return truncated(err);
    token->type = type;
    token->as.count = (size_t)count;
    return SAT_OK;
}

static double to_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double to_float(uint64_t bits)
{
    uint32_t narrow = (uint32_t)bits;
    float value;
    memcpy(&value, &narrow, sizeof value);
    return (double)value;
}

/* How many bytes stand between the first byte and the payload, for 0xc4 .. 0xdf. */
static size_t extra_bytes(uint8_t byte)
{
    static const uint8_t sizes[] = {1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
    return sizes[byte - 0xc4];
}

static sat_status wide_token(sat_mp *scan, uint8_t byte, sat_mp_token *token, sat_error *err)
{
    size_t size = extra_bytes(byte);
    if (size > (size_t)(scan->end - scan->pos)) return truncated(err);
    uint64_t value = read_be(scan->pos, size);
    scan->pos += size;
    switch (byte) {
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return take_bytes(scan, token, SAT_MP_BIN, value, err);
    case 0xd9:
    case 0xda:
    case 0xdb:
        return take_bytes(scan, token, SAT_MP_STR, value, err);
    case 0xdc:
    case 0xdd:
        return take_count(scan, token, SAT_MP_ARRAY, value, err);
    case 0xde:
    case 0xdf:
        return take_count(scan, token, SAT_MP_MAP, value, err);
    case 0xca:
    case 0xcb:
        token->type = SAT_MP_FLOAT;
        token->as.number = size == 8 ? to_double(value) : to_float(value);
        return SAT_OK;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        set_integer(token, (int64_t)value);
        if (value > INT64_MAX) {
            token->type = SAT_MP_UINT;
            token->as.unsigned_integer = value;
        }
        return SAT_OK;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        set_integer(token, sign_extend(value, size));
        return SAT_OK;
    default:
        return sat_fail(err, SAT_PROTOCOL, "msgpack extension types are not part of Dask's protocol (byte 0x%02x)", byte);
    }
}

sat_status sat_mp_next(sat_mp *scan, sat_mp_token *token, sat_error *err)
{
    if (scan->pos >= scan->end) return SAT_EOF;
    uint8_t byte = *scan->pos++;
    if (byte < 0x80 || byte >= 0xe0) {
        set_integer(token, byte < 0x80 ? byte : (int64_t)byte - 256);
        return SAT_OK;
    }
    if (byte < 0x90) return take_count(scan, token, SAT_MP_MAP, byte & 0x0fU, err);
    if (byte < 0xa0) return take_count(scan, token, SAT_MP_ARRAY, byte & 0x0fU, err);
    if (byte < 0xc0) return take_bytes(scan, token, SAT_MP_STR, byte & 0x1fU, err);
    if (byte >= 0xc4) return wide_token(scan, byte, token, err);
    if (byte == 0xc1) return sat_fail(err, SAT_PROTOCOL, "a msgpack text holds the reserved byte 0xc1");
    token->type = byte == 0xc0 ? SAT_MP_NIL : SAT_MP_BOOL;
    token->as.boolean = byte == 0xc3;
    return SAT_OK;
}

sat_status sat_mp_skip(sat_mp *scan, sat_error *err)
{
    /* every count was checked against the bytes that are left, so `open` cannot overflow before the input ends */
    size_t open = 1;
    while (open > 0) {
        sat_mp_token token;
        sat_status status = sat_mp_next(scan, &token, err);
        if (status == SAT_EOF) return truncated(err);
        if (status != SAT_OK) return status;
        open--;
        if (token.type == SAT_MP_ARRAY) open += token.as.count;
        if (token.type == SAT_MP_MAP) open += 2 * token.as.count;
        if (open > (size_t)(scan->end - scan->pos)) return truncated(err);
    }
    return SAT_OK;
}

sat_status sat_mp_value(sat_mp *scan, sat_slice *value, sat_error *err)
{
    const uint8_t *start = scan->pos;
    sat_status status = sat_mp_skip(scan, err);
    if (status == SAT_OK) *value = (sat_slice){NULL, start, (size_t)(scan->pos - start)};
    return status;
}

bool sat_mp_is(const sat_mp_token *token, const char *text)
{
    size_t len = strlen(text);
    return token->type == SAT_MP_STR && token->as.bytes.len == len && memcmp(token->as.bytes.data, text, len) == 0;
}

static int write_buf(void *arg, const char *data, size_t len)
{
    sat_buf_append(arg, data, len);
    return 0;
}

void sat_mp_packer(msgpack_packer *packer, sat_buf *buf)
{
    msgpack_packer_init(packer, buf, write_buf);
}

void sat_mp_pack_text(msgpack_packer *packer, const char *text)
{
    sat_mp_pack_str(packer, text, strlen(text));
}

void sat_mp_pack_str(msgpack_packer *packer, const void *data, size_t len)
{
    if (len > UINT32_MAX) {
        ((sat_buf *)packer->data)->failed = true;
        return;
    }
    msgpack_pack_str(packer, len);
    if (len > 0) msgpack_pack_str_body(packer, data, len);
}

void sat_mp_pack_bin(msgpack_packer *packer, const void *data, size_t len)
{
    if (len > UINT32_MAX) {
        ((sat_buf *)packer->data)->failed = true;
        return;
    }
    msgpack_pack_bin(packer, len);
    if (len > 0) msgpack_pack_bin_body(packer, data, len);
}

void sat_mp_pack_set(msgpack_packer *packer, size_t count)
{
    msgpack_pack_map(packer, 2);
    sat_mp_pack_text(packer, "__Set__");
    msgpack_pack_true(packer);
    sat_mp_pack_text(packer, "as-list");
    msgpack_pack_array(packer, count);
}
