/* The pickle scanner on hostile bytes: both of its entries see the same ops, no op reaches outside the input, and big
 * integers survive the way to text and back. */
#include <stdlib.h>
#include <string.h>

#include "pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(const uint8_t *data, size_t size, const uint8_t *part, size_t len)
{
    if (len > 0 && (part < data || part > data + size || len > (size_t)(data + size - part))) abort();
}

static void integer(const uint8_t *le, size_t len)
{
    sat_buf text = SAT_BUF_INIT, back = SAT_BUF_INIT;
    if (len > 256) return;
    if (sat_bigint_text(le, len, &text, NULL) != SAT_OK) abort();
    if (sat_bigint_parse((const char *)text.data, text.len, &back, NULL) != SAT_OK) abort();
    if (back.len != sat_bigint_trim(le, len) || memcmp(back.data ? back.data : le, le, back.len) != 0) abort();
    sat_buf_free(&text);
    sat_buf_free(&back);
}

static void use(const uint8_t *data, size_t size, const sat_pickle_op *op)
{
    sat_buf out = SAT_BUF_INIT;
    switch (op->kind) {
    case SAT_PK_GLOBAL:
    case SAT_PK_INST:
        inside(data, size, op->data2, op->len2);
        inside(data, size, op->data, op->len);
        break;
    case SAT_PK_STR:
    case SAT_PK_BYTES:
    case SAT_PK_BYTEARRAY:
        inside(data, size, op->data, op->len);
        (void)sat_utf8_valid(op->data, op->len);
        break;
    case SAT_PK_UNICODE:
        inside(data, size, op->data, op->len);
        (void)sat_pickle_unescape_unicode(op->data, op->len, &out, NULL);
        break;
    case SAT_PK_STRING:
        inside(data, size, op->data, op->len);
        (void)sat_pickle_unescape_string(op->data, op->len, &out, NULL);
        break;
    case SAT_PK_BIGINT:
        inside(data, size, op->data, op->len);
        integer(op->data, op->len);
        break;
    case SAT_PK_DECIMAL:
        inside(data, size, op->data, op->len);
        if (op->len <= 1024 && sat_bigint_parse((const char *)op->data, op->len, &out, NULL) == SAT_OK)
            integer(out.data, out.len);
        break;
    default:
        break;
    }
    sat_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sat_pickle_scan scan;
    sat_pickle_op op, quick;
    sat_limits limits = SAT_LIMITS_DEFAULT;
    limits.nodes = 100000;
    sat_pickle_scan_init(&scan, data, size, &limits);
    for (;;) {
        sat_pickle_scan before = scan;
        bool fast = sat_pickle_quick(&before, &quick);
        if (sat_pickle_next(&scan, &op, NULL) != SAT_OK) {
            if (fast) abort();
            break;
        }
        if (scan.pos > data + size) abort();
        if (fast) {
            if (quick.kind != op.kind || before.pos != scan.pos || before.nodes != scan.nodes) abort();
            if ((op.kind == SAT_PK_INT || op.kind == SAT_PK_GET || op.kind == SAT_PK_TUPLE_N) && op.i != quick.i) abort();
            if (op.kind == SAT_PK_FLOAT && memcmp(&op.f, &quick.f, sizeof op.f) != 0) abort();
            if (op.kind == SAT_PK_STR && (op.data != quick.data || op.len != quick.len)) abort();
        }
        use(data, size, &op);
        if (op.kind == SAT_PK_STOP) break;
    }
    return 0;
}
