/* Python's pickle format: a scanner that reads bounded opcodes, and a writer.
 *
 * Scanner: sat_pickle_scan borrows the bytes it reads, and every op it hands out points into them. It knows no
 * stack, no memo and no classes; it checks that arguments are whole and well-formed, and allocates nothing.
 *
 * Writer: sat_pickler owns its output, its memo and a reference to each out-of-band buffer; sat_pickler_free releases
 * them. Writers never fail in the middle: the first failure sticks, later calls do nothing, and
 * sat_pickler_status tells at the end. */
#ifndef SATURN_PICKLE_H
#define SATURN_PICKLE_H

#include "buf.h"
#include "limits.h"
#include "status.h"

/* ---------------------------------------------------------------- scanner */

/* What an opcode means, with the spellings of one meaning folded together. */
typedef enum sat_pickle_kind {
    SAT_PK_STOP,
    SAT_PK_NONE,
    SAT_PK_FALSE,
    SAT_PK_TRUE,
    SAT_PK_INT,        /* i */
    SAT_PK_BIGINT,     /* data, len: little-endian two's complement of more than 64 bits */
    SAT_PK_DECIMAL,    /* data, len: an optional sign and decimal digits of more than 64 bits */
    SAT_PK_FLOAT,      /* f */
    SAT_PK_STR,        /* data, len: UTF-8 */
    SAT_PK_UNICODE,    /* data, len: raw-unicode-escape text, see sat_pickle_unescape_unicode */
    SAT_PK_BYTES,      /* data, len */
    SAT_PK_STRING,     /* data, len: inside of a quoted Python 2 literal, see sat_pickle_unescape_string */
    SAT_PK_BYTEARRAY,  /* data, len */
    SAT_PK_NEXT_BUFFER,
    SAT_PK_READONLY_BUFFER,
    SAT_PK_MARK,
    SAT_PK_POP,
    SAT_PK_POP_MARK,
    SAT_PK_DUP,
    SAT_PK_EMPTY_LIST,
    SAT_PK_LIST,       /* from the mark */
    SAT_PK_APPEND,
    SAT_PK_APPENDS,
    SAT_PK_EMPTY_TUPLE,
    SAT_PK_TUPLE,      /* from the mark */
    SAT_PK_TUPLE_N,    /* i items: 1, 2 or 3 */
    SAT_PK_EMPTY_DICT,
    SAT_PK_DICT,       /* from the mark */
    SAT_PK_SETITEM,
    SAT_PK_SETITEMS,
    SAT_PK_EMPTY_SET,
    SAT_PK_ADDITEMS,
    SAT_PK_FROZENSET,  /* from the mark */
    SAT_PK_GET,        /* i: memo index */
    SAT_PK_PUT,        /* i: memo index */
    SAT_PK_MEMOIZE,
    SAT_PK_GLOBAL,     /* data, len: module; data2, len2: name */
    SAT_PK_STACK_GLOBAL,
    SAT_PK_INST,       /* module and name as for GLOBAL, arguments from the mark */
    SAT_PK_OBJ,        /* class and arguments from the mark */
    SAT_PK_REDUCE,
    SAT_PK_NEWOBJ,
    SAT_PK_NEWOBJ_EX,
    SAT_PK_BUILD
} sat_pickle_kind;

typedef struct sat_pickle_op {
    sat_pickle_kind kind;
    uint8_t code; /* the opcode byte */
    int64_t i;
    double f;
    const uint8_t *data;
    size_t len;
    const uint8_t *data2;
    size_t len2;
} sat_pickle_op;

typedef struct sat_pickle_scan {
    const uint8_t *start;
    const uint8_t *pos;
    const uint8_t *end;
    uint64_t nodes; /* opcodes that may still come */
    uint64_t max_nodes;
} sat_pickle_scan;

/* limits may be NULL. */
void sat_pickle_scan_init(sat_pickle_scan *scan, const uint8_t *data, size_t len, const sat_limits *limits);

/* The next op that does something (PROTO and FRAME are checked and passed over). SAT_OK, SAT_PROTOCOL or SAT_LIMIT.
 * After SAT_PK_STOP scan->pos is the first byte behind the pickle. */
sat_status sat_pickle_next(sat_pickle_scan *scan, sat_pickle_op *op, sat_error *err);

/* The same for the opcodes that most of a pickle consists of, to be inlined in a loop: true when the next op was one of
 * them and whole, else false with nothing read. */
static inline bool sat_pickle_quick(sat_pickle_scan *scan, sat_pickle_op *op)
{
    const uint8_t *p = scan->pos;
    if (scan->end - p < 10 || scan->nodes == 0) return false;
    switch (*p) {
    case 'K':
        op->kind = SAT_PK_INT;
        op->i = p[1];
        scan->pos = p + 2;
        break;
    case 'M':
        op->kind = SAT_PK_INT;
        op->i = p[1] | p[2] << 8;
        scan->pos = p + 3;
        break;
    case 'J':
        op->kind = SAT_PK_INT;
        op->i = (int32_t)((uint32_t)p[1] | (uint32_t)p[2] << 8 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 24);
        scan->pos = p + 5;
        break;
    case 'G': {
        uint64_t bits = 0;
        for (int i = 1; i < 9; i++) bits = bits << 8 | p[i];
        union {
            uint64_t bits;
            double number;
        } as = {bits};
        op->kind = SAT_PK_FLOAT;
        op->f = as.number;
        scan->pos = p + 9;
        break;
    }
    case 0x8c:
        if (scan->end - p - 2 < p[1]) return false;
        op->kind = SAT_PK_STR;
        op->data = p + 2;
        op->len = p[1];
        scan->pos = p + 2 + p[1];
        break;
    case 'h':
        op->kind = SAT_PK_GET;
        op->i = p[1];
        scan->pos = p + 2;
        break;
    case 0x94:
        op->kind = SAT_PK_MEMOIZE;
        scan->pos = p + 1;
        break;
    case '(':
        op->kind = SAT_PK_MARK;
        scan->pos = p + 1;
        break;
    case '}':
        op->kind = SAT_PK_EMPTY_DICT;
        scan->pos = p + 1;
        break;
    case 'u':
        op->kind = SAT_PK_SETITEMS;
        scan->pos = p + 1;
        break;
    case ']':
        op->kind = SAT_PK_EMPTY_LIST;
        scan->pos = p + 1;
        break;
    case 'e':
        op->kind = SAT_PK_APPENDS;
        scan->pos = p + 1;
        break;
    case 'N':
        op->kind = SAT_PK_NONE;
        scan->pos = p + 1;
        break;
    case 0x88:
        op->kind = SAT_PK_TRUE;
        scan->pos = p + 1;
        break;
    case 0x89:
        op->kind = SAT_PK_FALSE;
        scan->pos = p + 1;
        break;
    case 0x85:
    case 0x86:
    case 0x87:
        op->kind = SAT_PK_TUPLE_N;
        op->i = *p - 0x84;
        scan->pos = p + 1;
        break;
    default:
        return false;
    }
    scan->nodes--;
    return true;
}

/* Decodes the text of SAT_PK_UNICODE to UTF-8, of SAT_PK_STRING to bytes; appends to out. */
sat_status sat_pickle_unescape_unicode(const uint8_t *data, size_t len, sat_buf *out, sat_error *err);
sat_status sat_pickle_unescape_string(const uint8_t *data, size_t len, sat_buf *out, sat_error *err);

/* Big integers: decimal text <-> minimal little-endian two's complement, appended to out. Both take time in the
 * square of the length, hence the caps: more digits than SAT_BIGINT_TEXT_DIGITS come back as a hexadecimal number. */
enum { SAT_BIGINT_MAX_DIGITS = 100000, SAT_BIGINT_TEXT_DIGITS = 100000 };
sat_status sat_bigint_parse(const char *text, size_t len, sat_buf *out, sat_error *err);
sat_status sat_bigint_text(const uint8_t *data, size_t len, sat_buf *out, sat_error *err);
/* Length of the same number without superfluous sign bytes (0 for zero). */
size_t sat_bigint_trim(const uint8_t *data, size_t len);

/* True when the bytes are UTF-8 as Python's strict decoder takes it (no surrogates, nothing over U+10FFFF). */
bool sat_utf8_valid(const uint8_t *data, size_t len);
/* The same with lone surrogates, which a Python str may have: os.fsdecode makes them. */
bool sat_utf8_lenient(const uint8_t *data, size_t len);

/* ----------------------------------------------------------------- writer */

/* A string or global in the memo; the text is found in the output itself. */
typedef struct sat_pickle_entry {
    size_t off;
    uint32_t len;
    uint32_t hash;
    uint32_t memo;
} sat_pickle_entry;

/* An object that was written, known by its address. */
typedef struct sat_pickle_seen {
    uintptr_t key;
    uint32_t generation;
    uint32_t memo;
} sat_pickle_seen;

typedef struct sat_pickler {
    sat_buf out;         /* read it, move on from it with sat_pickler_reset; do not shorten it between */
    int protocol;        /* 4, or 5 */
    bool memo;           /* share globals, strings and objects; set right after init or reset only */
    bool oob;            /* protocol 5 out-of-band buffers are allowed */
    bool oob_copy;       /* they are copies, since what they are of may change before they are sent */
    size_t oob_min;      /* smallest buffer that goes out of band */
    sat_slice *buffers;  /* in the order of their NEXT_BUFFER; each retains its block */
    size_t nbuffers;
    size_t depth;        /* nesting allowed in a value */
    /* private */
    bool failed;
    uint32_t memo_len;
    sat_pickle_entry *entries;
    size_t nentries, entries_cap;
    uint32_t *index;     /* hash table of positions in entries, plus one */
    size_t index_cap;
    sat_pickle_seen *seen;
    size_t seen_cap, nseen;
    uint32_t generation;
    size_t buffers_cap;
} sat_pickler;

/* Protocol 4, memo on, no out-of-band buffers. Allocates nothing. */
void sat_pickler_init(sat_pickler *p);
void sat_pickler_free(sat_pickler *p);  /* may be used again after sat_pickler_init */
void sat_pickler_reset(sat_pickler *p); /* starts a new pickle; keeps memory and options */

/* SAT_OK, or SAT_NOMEM with err filled. */
sat_status sat_pickler_status(const sat_pickler *p, sat_error *err);

/* What was written so far, so that a value that cannot be converted can be taken back out of a longer pickle. */
typedef struct sat_pickle_point {
    size_t out_len;
    size_t nentries;
    size_t nbuffers;
    uint32_t memo_len;
} sat_pickle_point;

sat_pickle_point sat_pickle_tell(const sat_pickler *p);
void sat_pickle_rollback(sat_pickler *p, sat_pickle_point point); /* only backwards, only since the last reset */

void sat_pickle_proto(sat_pickler *p);
void sat_pickle_stop(sat_pickler *p);
void sat_pickle_none(sat_pickler *p);
void sat_pickle_bool(sat_pickler *p, bool value);
void sat_pickle_int(sat_pickler *p, int64_t value);
void sat_pickle_uint(sat_pickler *p, uint64_t value);
void sat_pickle_long(sat_pickler *p, const void *le, size_t len); /* little-endian two's complement */
sat_status sat_pickle_decimal(sat_pickler *p, const char *text, size_t len, sat_error *err);
void sat_pickle_float(sat_pickler *p, double value);
/* The same for numbers in rows, to be inlined: where SAT_PICKLE_NUMBER bytes a number are to be had, sat_pickle_room gives
 * their place (else NULL), and sat_pickle_wrote takes the place behind the last number. */
enum { SAT_PICKLE_NUMBER = 10 };
uint8_t *sat_pickle_room(sat_pickler *p, size_t numbers);
static inline void sat_pickle_wrote(sat_pickler *p, const uint8_t *end)
{
    p->out.len = (size_t)(end - p->out.data);
}
static inline uint8_t *sat_pickle_put_float(uint8_t *at, double value)
{
    union {
        double number;
        uint64_t bits;
    } as = {value};
    at[0] = 'G';
    at[1] = (uint8_t)(as.bits >> 56);
    at[2] = (uint8_t)(as.bits >> 48);
    at[3] = (uint8_t)(as.bits >> 40);
    at[4] = (uint8_t)(as.bits >> 32);
    at[5] = (uint8_t)(as.bits >> 24);
    at[6] = (uint8_t)(as.bits >> 16);
    at[7] = (uint8_t)(as.bits >> 8);
    at[8] = (uint8_t)as.bits;
    return at + 9;
}
static inline uint8_t *sat_pickle_put_int(uint8_t *at, int64_t value)
{
    uint64_t bits = (uint64_t)value;
    at[1] = (uint8_t)bits;
    at[2] = (uint8_t)(bits >> 8);
    at[3] = (uint8_t)(bits >> 16);
    at[4] = (uint8_t)(bits >> 24);
    if (bits < 256) {
        at[0] = 'K';
        return at + 2;
    }
    if (bits < 65536) {
        at[0] = 'M';
        return at + 3;
    }
    if (value >= INT32_MIN && value <= INT32_MAX) {
        at[0] = 'J';
        return at + 5;
    }
    uint64_t magnitude = value < 0 ? ~bits : bits;
    uint8_t len = 4; /* as many as hold the sign too */
    while (len < 8 && magnitude >> (8 * len - 1) != 0) len++;
    at[0] = 0x8a;
    at[1] = len;
    at[2] = (uint8_t)bits;
    at[3] = (uint8_t)(bits >> 8);
    at[4] = (uint8_t)(bits >> 16);
    at[5] = (uint8_t)(bits >> 24);
    at[6] = (uint8_t)(bits >> 32);
    at[7] = (uint8_t)(bits >> 40);
    at[8] = (uint8_t)(bits >> 48);
    at[9] = (uint8_t)(bits >> 56);
    return at + 2 + len;
}
void sat_pickle_str(sat_pickler *p, const void *data, size_t len);  /* must be UTF-8 */
void sat_pickle_text(sat_pickler *p, const char *text);             /* a C string */
void sat_pickle_bytes(sat_pickler *p, const void *data, size_t len);
void sat_pickle_bytearray(sat_pickler *p, const void *data, size_t len);

/* A string that comes again, written in full once and by reference afterwards. Gives its place in the memo, or
 * SAT_PICKLE_NO_MEMO; sat_pickle_ref writes a reference to that place without looking for the string. */
#define SAT_PICKLE_NO_MEMO UINT32_MAX
uint32_t sat_pickle_str_memo(sat_pickler *p, const void *data, size_t len);
void sat_pickle_ref(sat_pickler *p, uint32_t memo);
/* A class or function by name; dotted names reach into classes. Shared like sat_pickle_str_memo. */
void sat_pickle_global(sat_pickler *p, const char *module, const char *name);
void sat_pickle_globaln(sat_pickler *p, const char *module, size_t module_len, const char *name, size_t name_len);

void sat_pickle_mark(sat_pickler *p);
void sat_pickle_tuple(sat_pickler *p, unsigned n); /* of the last n values, n <= 3 */
void sat_pickle_tuple_mark(sat_pickler *p);        /* of all values since the mark */
void sat_pickle_empty_list(sat_pickler *p);
void sat_pickle_append(sat_pickler *p);
void sat_pickle_appends(sat_pickler *p);
void sat_pickle_empty_dict(sat_pickler *p);
void sat_pickle_setitem(sat_pickler *p);
void sat_pickle_setitems(sat_pickler *p);
void sat_pickle_empty_set(sat_pickler *p);
void sat_pickle_additems(sat_pickler *p);
void sat_pickle_frozenset(sat_pickler *p); /* of all values since the mark */
void sat_pickle_reduce(sat_pickler *p);
void sat_pickle_build(sat_pickler *p);
void sat_pickle_newobj(sat_pickler *p);
void sat_pickle_newobj_ex(sat_pickler *p);
void sat_pickle_pop(sat_pickler *p);
void sat_pickle_pop_mark(sat_pickler *p);

/* Bytes that are opcodes already. They must not memoize, nor refer to a memo, unless the caller knows the memo. */
void sat_pickle_raw(sat_pickler *p, const void *data, size_t len);

/* Refers to a buffer that travels beside the pickle; retains slice.block, or copies it. Needs protocol 5. */
void sat_pickle_buffer(sat_pickler *p, sat_slice slice, bool readonly);

/* Memo of objects by address, for shared and cyclic structures. The addresses must stay valid until
 * sat_pickle_forget, which starts a new set. All do nothing useful while memo is off. */
bool sat_pickle_has(const sat_pickler *p, const void *object);
bool sat_pickle_get(sat_pickler *p, const void *object);  /* true: a reference to it was written */
void sat_pickle_put(sat_pickler *p, const void *object);  /* memoizes the value just written under this address */
void sat_pickle_forget(sat_pickler *p);

#endif
