/* What a message says, as text that a test can compare: a pickle reads like the Python expression that it stands for,
 * msgpack like a literal. Frames that frame 0 refers to stand where it does. */
#ifndef SATURN_TEST_SPELL_H
#define SATURN_TEST_SPELL_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "msgpack.h"
#include "pickle.h"

enum { SPELL_DEEP = 4096, SPELL_LONG = 65536 };

typedef struct spell_machine {
    char *stack[SPELL_DEEP]; /* NULL: a mark */
    size_t height;
    char *memo[SPELL_DEEP];
    size_t memos;
} spell_machine;

static inline char *spell_join(const char *a, const char *b, const char *c, const char *d)
{
    size_t len = strlen(a) + strlen(b) + strlen(c) + strlen(d) + 1;
    char *text = malloc(len);
    if (text) snprintf(text, len, "%s%s%s%s", a, b, c, d);
    return text;
}

static inline void spell_push(spell_machine *m, char *text)
{
    if (m->height < SPELL_DEEP)
        m->stack[m->height++] = text;
    else
        free(text);
}

/* The topmost value, "?" where there is none; the caller frees it. */
static inline char *spell_pop(spell_machine *m)
{
    if (m->height == 0 || m->stack[m->height - 1] == NULL) return spell_join("?", "", "", "");
    return m->stack[--m->height];
}

static inline char *spell_quote(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 3);
    if (text) snprintf(text, len + 3, "'%.*s'", (int)len, (const char *)data);
    return text;
}

/* Puts a value behind the last item of a container, before its closing bracket. */
static inline void spell_insert(spell_machine *m, const char *between, const char *item)
{
    char *container = spell_pop(m);
    size_t len = strlen(container);
    char close[2] = {len ? container[len - 1] : '?', '\0'};
    if (len) container[len - 1] = '\0';
    char *longer = spell_join(container, len > 2 ? between : "", item, close);
    free(container);
    spell_push(m, longer);
}

/* All values above the mark in brackets: open "[" and close "]", or pairs when `pairs`. */
static inline char *spell_marked(spell_machine *m, const char *open, const char *close, int pairs)
{
    size_t first = m->height;
    while (first > 0 && m->stack[first - 1] != NULL) first--;
    char *text = spell_join(open, "", "", "");
    for (size_t i = first; i < m->height; i++) {
        const char *between = i == first ? "" : pairs && (i - first) % 2 ? ": " : ", ";
        char *longer = spell_join(text, between, m->stack[i], "");
        free(text);
        text = longer;
        free(m->stack[i]);
    }
    m->height = first > 0 ? first - 1 : 0;
    char *closed = spell_join(text, close, "", "");
    free(text);
    return closed;
}

static inline void spell_insert_marked(spell_machine *m, int pairs)
{
    char *items = spell_marked(m, "", "", pairs);
    if (*items) spell_insert(m, ", ", items);
    free(items);
}

static inline void spell_global(spell_machine *m)
{
    char *name = spell_pop(m), *module = spell_pop(m);
    size_t nlen = strlen(name), mlen = strlen(module);
    if (nlen > 1) name[nlen - 1] = '\0';
    if (mlen > 1) module[mlen - 1] = '\0';
    spell_push(m, spell_join(module + (mlen > 1), ".", name + (nlen > 1), ""));
    free(name);
    free(module);
}

/* f(args), or object.word(args) */
static inline void spell_call(spell_machine *m, const char *word)
{
    char *args = spell_pop(m), *f = spell_pop(m);
    size_t len = strlen(args);
    if (*word) {
        spell_push(m, spell_join(f, word, args, ")"));
    } else {
        if (len > 2 && args[len - 2] == ',') memmove(args + len - 2, args + len - 1, 2); /* (x,) */
        spell_push(m, spell_join(f, args, "", ""));
    }
    free(args);
    free(f);
}

static inline void spell_tuple(spell_machine *m, int64_t n)
{
    char *text = spell_join("", n == 1 ? ",)" : ")", "", "");
    for (int64_t i = 0; i < n; i++) {
        char *item = spell_pop(m), *longer = spell_join(i == n - 1 ? "(" : ", ", item, text, "");
        free(item);
        free(text);
        text = longer;
    }
    spell_push(m, text);
}

static inline void spell_op(spell_machine *m, const sat_pickle_op *op)
{
    char text[64];
    char *key, *value, *pair;
    switch (op->kind) {
    case SAT_PK_NONE: spell_push(m, spell_join("None", "", "", "")); break;
    case SAT_PK_TRUE: spell_push(m, spell_join("True", "", "", "")); break;
    case SAT_PK_FALSE: spell_push(m, spell_join("False", "", "", "")); break;
    case SAT_PK_INT:
        snprintf(text, sizeof text, "%" PRId64, op->i);
        spell_push(m, spell_join(text, "", "", ""));
        break;
    case SAT_PK_FLOAT:
        snprintf(text, sizeof text, "%.17g", op->f);
        spell_push(m, spell_join(text, "", "", ""));
        break;
    case SAT_PK_STR:
    case SAT_PK_BYTES: spell_push(m, spell_quote(op->data, op->len)); break;
    case SAT_PK_MARK: spell_push(m, NULL); break;
    case SAT_PK_EMPTY_LIST: spell_push(m, spell_join("[]", "", "", "")); break;
    case SAT_PK_EMPTY_DICT: spell_push(m, spell_join("{}", "", "", "")); break;
    case SAT_PK_EMPTY_TUPLE: spell_push(m, spell_join("()", "", "", "")); break;
    case SAT_PK_TUPLE_N: spell_tuple(m, op->i); break;
    case SAT_PK_TUPLE: spell_push(m, spell_marked(m, "(", ")", 0)); break;
    case SAT_PK_APPEND:
        value = spell_pop(m);
        spell_insert(m, ", ", value);
        free(value);
        break;
    case SAT_PK_APPENDS: spell_insert_marked(m, 0); break;
    case SAT_PK_SETITEMS: spell_insert_marked(m, 1); break;
    case SAT_PK_SETITEM:
        value = spell_pop(m);
        key = spell_pop(m);
        pair = spell_join(key, ": ", value, "");
        spell_insert(m, ", ", pair);
        free(value);
        free(key);
        free(pair);
        break;
    case SAT_PK_STACK_GLOBAL: spell_global(m); break;
    case SAT_PK_REDUCE: spell_call(m, ""); break;
    case SAT_PK_BUILD: spell_call(m, ".build("); break;
    case SAT_PK_MEMOIZE:
        if (m->memos < SPELL_DEEP && m->height > 0 && m->stack[m->height - 1])
            m->memo[m->memos++] = spell_join(m->stack[m->height - 1], "", "", "");
        break;
    case SAT_PK_GET:
        spell_push(m, spell_join(op->i >= 0 && (size_t)op->i < m->memos ? m->memo[op->i] : "?memo", "", "", ""));
        break;
    default:
        snprintf(text, sizeof text, "?op %02x", op->code);
        spell_push(m, spell_join(text, "", "", ""));
    }
}

/* Appends the expression that a pickle stands for. */
static inline void spell_pickle(sat_buf *out, const uint8_t *data, size_t len)
{
    spell_machine *m = calloc(1, sizeof *m);
    sat_pickle_scan scan;
    sat_pickle_op op = {.kind = SAT_PK_NONE};
    sat_error err = {SAT_OK, ""};
    if (m == NULL) return;
    sat_pickle_scan_init(&scan, data, len, NULL);
    while (sat_pickle_next(&scan, &op, &err) == SAT_OK && op.kind != SAT_PK_STOP) spell_op(m, &op);
    if (op.kind != SAT_PK_STOP || scan.pos != data + len || m->height != 1) sat_buf_str(out, "?damaged ");
    sat_buf_str(out, err.text);
    for (size_t i = 0; i < m->height; i++) {
        if (m->stack[i]) sat_buf_str(out, m->stack[i]);
        free(m->stack[i]);
    }
    for (size_t i = 0; i < m->memos; i++) free(m->memo[i]);
    free(m);
}

static inline void spell_value(sat_buf *out, sat_mp *scan, const sat_slice *frames, size_t count);

static inline int spell_frame(sat_buf *out, const sat_slice *frames, size_t count, int64_t index, int64_t follow)
{
    if (index < 1 || (uint64_t)(index + follow) >= count) return 0;
    sat_slice frame = frames[index];
    sat_mp scan = {frame.data, frame.data + frame.len};
    spell_value(out, &scan, NULL, 0);
    for (int64_t i = 1; i <= follow; i++) {
        sat_buf_str(out, " <- ");
        spell_pickle(out, frames[index + i].data, frames[index + i].len);
    }
    return 1;
}

static inline void spell_map(sat_buf *out, sat_mp *scan, size_t pairs, const sat_slice *frames, size_t count)
{
    sat_buf_str(out, "{");
    for (size_t i = 0; i < pairs; i++) {
        sat_mp_token name = {.type = SAT_MP_NIL}, value = {.type = SAT_MP_NIL};
        sat_mp peek = *scan;
        (void)sat_mp_next(&peek, &name, NULL);
        int special = sat_mp_is(&name, "__Pickled__") ? 1 : sat_mp_is(&name, "__Serialized__") ? 2 : 0;
        if (i > 0) sat_buf_str(out, ", ");
        spell_value(out, scan, frames, count);
        sat_buf_str(out, ": ");
        peek = *scan;
        if (special && sat_mp_next(&peek, &value, NULL) == SAT_OK && value.type == SAT_MP_INT &&
            spell_frame(out, frames, count, value.as.integer, special == 2)) {
            *scan = peek;
            continue;
        }
        spell_value(out, scan, frames, count);
    }
    sat_buf_str(out, "}");
}

static inline void spell_value(sat_buf *out, sat_mp *scan, const sat_slice *frames, size_t count)
{
    sat_mp_token token;
    char text[64];
    if (sat_mp_next(scan, &token, NULL) != SAT_OK) {
        sat_buf_str(out, "?end");
        return;
    }
    switch (token.type) {
    case SAT_MP_NIL: sat_buf_str(out, "nil"); break;
    case SAT_MP_BOOL: sat_buf_str(out, token.as.boolean ? "true" : "false"); break;
    case SAT_MP_INT:
        snprintf(text, sizeof text, "%" PRId64, token.as.integer);
        sat_buf_str(out, text);
        break;
    case SAT_MP_UINT:
    case SAT_MP_FLOAT: sat_buf_str(out, "?number"); break;
    case SAT_MP_STR: sat_buf_append(out, token.as.bytes.data, token.as.bytes.len); break;
    case SAT_MP_BIN:
        sat_buf_str(out, "pickle ");
        spell_pickle(out, token.as.bytes.data, token.as.bytes.len);
        break;
    case SAT_MP_ARRAY:
        sat_buf_str(out, "[");
        for (size_t i = 0; i < token.as.count; i++) {
            if (i > 0) sat_buf_str(out, ", ");
            spell_value(out, scan, frames, count);
        }
        sat_buf_str(out, "]");
        break;
    case SAT_MP_MAP: spell_map(out, scan, token.as.count, frames, count); break;
    }
}

/* All of a message being made, as a C string in `out`. */
static inline const char *spell_outgoing(sat_buf *out, const sat_outgoing *message)
{
    sat_slice *frames = calloc(message->count + 1, sizeof *frames);
    if (frames == NULL) return "";
    for (size_t i = 0; i < message->count; i++) frames[i + 1] = message->frames[i];
    sat_mp scan = {message->head.data, message->head.data + message->head.len};
    sat_buf_clear(out);
    spell_value(out, &scan, frames, message->count + 1);
    if (scan.pos != scan.end) sat_buf_str(out, " ?more");
    sat_buf_u8(out, 0);
    free(frames);
    return (const char *)out->data;
}

#endif
