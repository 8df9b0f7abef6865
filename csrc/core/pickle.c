#include "pickle.h"

#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Opcode bytes, by the names of Python's pickletools. */
enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_POP = '0',
    OP_POP_MARK = '1',
    OP_DUP = '2',
    OP_FLOAT = 'F',
    OP_INT = 'I',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_LONG = 'L',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_PERSID = 'P',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_STRING = 'S',
    OP_BINSTRING = 'T',
    OP_SHORT_BINSTRING = 'U',
    OP_UNICODE = 'V',
    OP_BINUNICODE = 'X',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_DICT = 'd',
    OP_EMPTY_DICT = '}',
    OP_APPENDS = 'e',
    OP_GET = 'g',
    OP_BINGET = 'h',
    OP_INST = 'i',
    OP_LONG_BINGET = 'j',
    OP_LIST = 'l',
    OP_EMPTY_LIST = ']',
    OP_OBJ = 'o',
    OP_PUT = 'p',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_EMPTY_TUPLE = ')',
    OP_SETITEMS = 'u',
    OP_BINFLOAT = 'G',
    OP_PROTO = 0x80,
    OP_NEWOBJ = 0x81,
    OP_EXT1 = 0x82,
    OP_EXT2 = 0x83,
    OP_EXT4 = 0x84,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_LONG4 = 0x8b,
    OP_BINBYTES = 'B',
    OP_SHORT_BINBYTES = 'C',
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE8 = 0x8d,
    OP_BINBYTES8 = 0x8e,
    OP_EMPTY_SET = 0x8f,
    OP_ADDITEMS = 0x90,
    OP_FROZENSET = 0x91,
    OP_NEWOBJ_EX = 0x92,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
    OP_BYTEARRAY8 = 0x96,
    OP_NEXT_BUFFER = 0x97,
    OP_READONLY_BUFFER = 0x98
};

enum { MAX_PROTOCOL = 5 };

/* ------------------------------------------------------- numbers and text */

size_t sat_bigint_trim(const uint8_t *data, size_t len)
{
    while (len > 0) {
        uint8_t top = data[len - 1];
        bool negative_below = len > 1 && (data[len - 2] & 0x80);
        if (top == 0 && !negative_below)
            len--;
        else if (top == 0xff && negative_below)
            len--;
        else
            break;
    }
    return len;
}

static int64_t long_to_int64(const uint8_t *data, size_t len)
{
    uint64_t value = len > 0 && (data[len - 1] & 0x80) ? UINT64_MAX : 0;
    for (size_t i = len; i > 0; i--) value = value << 8 | data[i - 1];
    int64_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}

/* The decimal digits in text as an int64; false when they are too many. */
static bool parse_int64(const uint8_t *text, size_t len, int64_t *out)
{
    size_t i = 0;
    bool negative = false;
    uint64_t value = 0, max = (uint64_t)INT64_MAX;
    if (len > 0 && (text[0] == '-' || text[0] == '+')) {
        negative = text[0] == '-';
        i = 1;
    }
    if (negative) max++;
    for (; i < len; i++) {
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (value > (max - digit) / 10) return false;
        value = value * 10 + digit;
    }
    if (!negative)
        *out = (int64_t)value;
    else
        *out = value == max ? INT64_MIN : -(int64_t)value;
    return true;
}

static bool is_decimal(const uint8_t *text, size_t len)
{
    size_t i = len > 0 && (text[0] == '-' || text[0] == '+') ? 1 : 0;
    if (i == len) return false;
    for (; i < len; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return true;
}

sat_status sat_bigint_parse(const char *text, size_t len, sat_buf *out, sat_error *err)
{
    const uint8_t *digits = (const uint8_t *)text;
    if (!is_decimal(digits, len))
        return sat_fail(err, SAT_VALUE, "an integer is an optional sign and decimal digits, not \"%.*s\"",
                        (int)(len < 40 ? len : 40), text);
    bool negative = digits[0] == '-';
    if (digits[0] == '-' || digits[0] == '+') {
        digits++;
        len--;
    }
    if (len > SAT_BIGINT_MAX_DIGITS)
        return sat_fail(err, SAT_LIMIT, "an integer in decimal has more than %d digits", SAT_BIGINT_MAX_DIGITS);
    /* Nine digits fit 32 bits; ten digits take less than 34 bits, so this many limbs are enough. */
    size_t cap = len / 9 + 2, n = 0;
    uint32_t *limbs = malloc(cap * sizeof *limbs);
    if (limbs == NULL) return sat_fail_nomem(err);
    for (size_t i = 0; i < len;) {
        uint64_t carry = 0, scale = 1;
        size_t take = (len - i) % 9 ? (len - i) % 9 : 9;
        for (size_t k = 0; k < take; k++, i++) {
            carry = carry * 10 + (uint64_t)(digits[i] - '0');
            scale *= 10;
        }
        for (size_t k = 0; k < n; k++) {
            uint64_t v = limbs[k] * scale + carry;
            limbs[k] = (uint32_t)v;
            carry = v >> 32;
        }
        if (carry) limbs[n++] = (uint32_t)carry;
    }
    limbs[n++] = 0; /* room for the sign */
    if (negative) {
        uint64_t carry = 1;
        for (size_t k = 0; k < n; k++) {
            uint64_t v = (uint64_t)(uint32_t)~limbs[k] + carry;
            limbs[k] = (uint32_t)v;
            carry = v >> 32;
        }
    }
    size_t start = out->len;
    if (sat_buf_reserve(out, n * 4)) {
        for (size_t k = 0; k < n; k++) sat_buf_le32(out, limbs[k]);
        out->len = start + sat_bigint_trim(out->data + start, n * 4);
    }
    free(limbs);
    return out->failed ? sat_fail_nomem(err) : SAT_OK;
}

sat_status sat_bigint_text(const uint8_t *data, size_t len, sat_buf *out, sat_error *err)
{
    len = sat_bigint_trim(data, len);
    bool negative = len > 0 && (data[len - 1] & 0x80);
    size_t n = len / 4 + 1;
    uint32_t *limbs = malloc(n * sizeof *limbs);
    if (limbs == NULL) return sat_fail_nomem(err);
    uint64_t carry = negative ? 1 : 0;
    for (size_t k = 0; k < n; k++) {
        uint32_t limb = 0;
        for (size_t b = 0; b < 4; b++) {
            size_t at = k * 4 + b;
            uint32_t byte = at < len ? data[at] : (negative ? 0xff : 0);
            limb |= byte << (8 * b);
        }
        uint64_t v = (uint64_t)(negative ? (uint32_t)~limb : limb) + carry;
        limbs[k] = (uint32_t)v;
        carry = v >> 32;
    }
    while (n > 0 && limbs[n - 1] == 0) n--;
    if (negative) sat_buf_u8(out, '-');
    if (n > SAT_BIGINT_TEXT_DIGITS / 9) {
        char chunk[9];
        sat_buf_str(out, "0x");
        for (size_t k = n; k > 0; k--) {
            size_t used = 0;
            for (int shift = 28; shift >= 0; shift -= 4) {
                uint32_t nibble = limbs[k - 1] >> shift & 15;
                if (k < n || used > 0 || nibble != 0) chunk[used++] = "0123456789abcdef"[nibble];
            }
            sat_buf_append(out, chunk, used);
        }
    } else {
        size_t start = out->len, digits = n * 10 + 1;
        if (sat_buf_reserve(out, digits)) {
            uint8_t *at = out->data + start + digits; /* written from the end */
            uint8_t *stop = at;
            while (n > 0) {
                uint64_t rest = 0;
                for (size_t k = n; k > 0; k--) {
                    uint64_t v = rest << 32 | limbs[k - 1];
                    limbs[k - 1] = (uint32_t)(v / 1000000000U);
                    rest = v % 1000000000U;
                }
                while (n > 0 && limbs[n - 1] == 0) n--;
                for (int k = 0; k < 9 && (n > 0 || rest > 0); k++) {
                    *--at = (uint8_t)('0' + rest % 10);
                    rest /= 10;
                }
            }
            if (at == stop) *--at = '0';
            memmove(out->data + start, at, (size_t)(stop - at));
            out->len = start + (size_t)(stop - at);
        }
    }
    free(limbs);
    return out->failed ? sat_fail_nomem(err) : SAT_OK;
}

static inline bool is_utf8(const uint8_t *s, size_t len, bool surrogates)
{
    const uint8_t *end = s + len;
    while (s < end) {
        if (end - s >= 8) {
            uint64_t word;
            memcpy(&word, s, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                s += 8;
                continue;
            }
        }
        uint8_t c = *s;
        if (c < 0x80) {
            s++;
        } else if (c < 0xc2) {
            return false;
        } else if (c < 0xe0) {
            if (end - s < 2 || (s[1] & 0xc0) != 0x80) return false;
            s += 2;
        } else if (c < 0xf0) {
            if (end - s < 3 || (s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80) return false;
            if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] >= 0xa0 && !surrogates)) return false;
            s += 3;
        } else if (c < 0xf5) {
            if (end - s < 4 || (s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 || (s[3] & 0xc0) != 0x80) return false;
            if ((c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] >= 0x90)) return false;
            s += 4;
        } else {
            return false;
        }
    }
    return true;
}

bool sat_utf8_valid(const uint8_t *s, size_t len)
{
    return is_utf8(s, len, false);
}

bool sat_utf8_lenient(const uint8_t *s, size_t len)
{
    return is_utf8(s, len, true);
}

static void append_utf8(sat_buf *out, uint32_t c)
{
    if (c < 0x80) {
        sat_buf_u8(out, (uint8_t)c);
    } else if (c < 0x800) {
        sat_buf_u8(out, (uint8_t)(0xc0 | c >> 6));
        sat_buf_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        sat_buf_u8(out, (uint8_t)(0xe0 | c >> 12));
        sat_buf_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        sat_buf_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else {
        sat_buf_u8(out, (uint8_t)(0xf0 | c >> 18));
        sat_buf_u8(out, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
        sat_buf_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        sat_buf_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
    }
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* `n` hexadecimal digits at text, or UINT32_MAX. */
static uint32_t hex_number(const uint8_t *text, size_t len, size_t n)
{
    uint32_t value = 0;
    if (len < n) return UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0) return UINT32_MAX;
        value = value << 4 | (uint32_t)digit;
    }
    return value;
}

sat_status sat_pickle_unescape_unicode(const uint8_t *data, size_t len, sat_buf *out, sat_error *err)
{
    for (size_t i = 0; i < len;) {
        /* an escape is an odd number of backslashes, of which the last counts */
        size_t run = 0;
        while (i + run < len && data[i + run] == '\\') run++;
        bool escape = run % 2 == 1 && i + run < len && (data[i + run] == 'u' || data[i + run] == 'U');
        for (size_t k = escape ? 1 : 0; k < run; k++) append_utf8(out, data[i++]);
        if (escape) {
            size_t n = data[i + 1] == 'u' ? 4 : 8;
            uint32_t c = hex_number(data + i + 2, len - i - 2, n);
            if (c > 0x10ffff) return sat_fail(err, SAT_PROTOCOL, "a broken \\u escape in a pickled string");
            i += 2 + n;
            /* Python 2 on narrow builds wrote astral characters as a pair of surrogates. */
            if (c >= 0xd800 && c < 0xdc00 && n == 4 && len - i >= 6 && data[i] == '\\' && data[i + 1] == 'u') {
                uint32_t low = hex_number(data + i + 2, len - i - 2, 4);
                if (low >= 0xdc00 && low < 0xe000) {
                    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                    i += 6;
                }
            }
            append_utf8(out, c);
        } else if (i < len) {
            append_utf8(out, data[i++]);
        }
    }
    return out->failed ? sat_fail_nomem(err) : SAT_OK;
}

sat_status sat_pickle_unescape_string(const uint8_t *data, size_t len, sat_buf *out, sat_error *err)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    for (size_t i = 0; i < len;) {
        uint8_t c = data[i++];
        if (c != '\\') {
            sat_buf_u8(out, c);
            continue;
        }
        if (i == len) return sat_fail(err, SAT_PROTOCOL, "a pickled string ends in a backslash");
        c = data[i++];
        const char *found = c ? strchr(from, c) : NULL;
        if (found != NULL) {
            sat_buf_u8(out, (uint8_t)to[found - from]);
        } else if (c == '\n') {
            continue;
        } else if (c >= '0' && c <= '7') {
            unsigned value = (unsigned)(c - '0');
            for (int k = 0; k < 2 && i < len && data[i] >= '0' && data[i] <= '7'; k++)
                value = value * 8 + (unsigned)(data[i++] - '0');
            sat_buf_u8(out, (uint8_t)value);
        } else if (c == 'x') {
            uint32_t value = hex_number(data + i, len - i, 2);
            if (value > 255) return sat_fail(err, SAT_PROTOCOL, "a broken \\x escape in a pickled string");
            sat_buf_u8(out, (uint8_t)value);
            i += 2;
        } else {
            sat_buf_u8(out, '\\');
            sat_buf_u8(out, c);
        }
    }
    return out->failed ? sat_fail_nomem(err) : SAT_OK;
}

/* ---------------------------------------------------------------- scanner */

void sat_pickle_scan_init(sat_pickle_scan *scan, const uint8_t *data, size_t len, const sat_limits *limits)
{
    static const sat_limits defaults = SAT_LIMITS_DEFAULT;
    if (limits == NULL) limits = &defaults;
    static const uint8_t nothing[1];
    if (data == NULL) data = nothing;
    *scan = (sat_pickle_scan){
        .start = data, .pos = data, .end = data + len, .nodes = limits->nodes, .max_nodes = limits->nodes};
}

static sat_status broken(const sat_pickle_scan *scan, sat_error *err, const char *what)
{
    return sat_fail(err, SAT_PROTOCOL, "broken pickle: %s (at byte %zu)", what, (size_t)(scan->pos - scan->start));
}

static sat_status truncated(const sat_pickle_scan *scan, sat_error *err)
{
    return sat_fail(err, SAT_PROTOCOL, "broken pickle: it is cut short (at byte %zu of %zu)",
                    (size_t)(scan->pos - scan->start), (size_t)(scan->end - scan->start));
}

static bool have(const sat_pickle_scan *scan, uint64_t n)
{
    return (uint64_t)(scan->end - scan->pos) >= n;
}

/* The bytes up to the next newline. */
static bool read_line(sat_pickle_scan *scan, const uint8_t **data, size_t *len)
{
    const uint8_t *end = memchr(scan->pos, '\n', (size_t)(scan->end - scan->pos));
    if (end == NULL) return false;
    *data = scan->pos;
    *len = (size_t)(end - scan->pos);
    scan->pos = end + 1;
    return true;
}

/* `width` bytes of length and as many bytes of data. */
static sat_status read_counted(sat_pickle_scan *scan, sat_pickle_op *op, size_t width, sat_error *err)
{
    uint64_t n = 0;
    if (!have(scan, width)) return truncated(scan, err);
    for (size_t i = width; i > 0; i--) n = n << 8 | scan->pos[i - 1];
    if ((uint64_t)(scan->end - scan->pos) - width < n) return truncated(scan, err);
    op->data = scan->pos + width;
    op->len = (size_t)n;
    scan->pos += width + (size_t)n;
    return SAT_OK;
}

/* A memo index or the like in decimal on a line of its own. */
static sat_status read_index(sat_pickle_scan *scan, sat_pickle_op *op, sat_error *err)
{
    const uint8_t *text;
    size_t len;
    if (!read_line(scan, &text, &len)) return truncated(scan, err);
    if (!is_decimal(text, len) || !parse_int64(text, len, &op->i))
        return broken(scan, err, "a memo index is no number");
    if (op->i < 0) return broken(scan, err, "a memo index is negative");
    return SAT_OK;
}

static sat_status read_decimal(sat_pickle_scan *scan, sat_pickle_op *op, const uint8_t *text, size_t len,
                               sat_error *err)
{
    if (len > 0 && text[len - 1] == '\r') len--;
    if (!is_decimal(text, len)) return broken(scan, err, "an integer is no decimal number");
    if (parse_int64(text, len, &op->i)) {
        op->kind = SAT_PK_INT;
        return SAT_OK;
    }
    if (len > SAT_BIGINT_MAX_DIGITS)
        return sat_fail(err, SAT_LIMIT, "an integer in a pickle has more than %d decimal digits",
                        SAT_BIGINT_MAX_DIGITS);
    op->kind = SAT_PK_DECIMAL;
    op->data = text;
    op->len = len;
    return SAT_OK;
}

static sat_status read_float_line(sat_pickle_scan *scan, sat_pickle_op *op, sat_error *err)
{
    const uint8_t *text;
    size_t len;
    char copy[400], *end; /* longer than any repr of a double */
    if (!read_line(scan, &text, &len)) return truncated(scan, err);
    if (len > 0 && text[len - 1] == '\r') len--;
    if (len == 0 || len >= sizeof copy) return broken(scan, err, "a float is no number");
    for (size_t i = 0; i < len; i++) {
        char c = (char)text[i];
        if (strchr("0123456789+-.eEinfatyINFATY", c) == NULL || c == '\0')
            return broken(scan, err, "a float is no number");
        if (c == '.') {
            /* strtod reads the decimal point of the host's locale */
            const struct lconv *conv = localeconv();
            if (conv != NULL && conv->decimal_point != NULL && conv->decimal_point[0] != '\0')
                c = conv->decimal_point[0];
        }
        copy[i] = c;
    }
    copy[len] = '\0';
    op->f = strtod(copy, &end);
    if (end != copy + len) return broken(scan, err, "a float is no number");
    op->kind = SAT_PK_FLOAT;
    return SAT_OK;
}

static sat_status read_long(sat_pickle_scan *scan, sat_pickle_op *op, size_t width, sat_error *err)
{
    sat_status status = read_counted(scan, op, width, err);
    if (status != SAT_OK) return status;
    op->len = sat_bigint_trim(op->data, op->len);
    if (op->len > 8) {
        op->kind = SAT_PK_BIGINT;
    } else {
        op->kind = SAT_PK_INT;
        op->i = long_to_int64(op->data, op->len);
    }
    return SAT_OK;
}

/* For the lengths that are signed on the wire. */
static sat_status check_sign(sat_pickle_scan *scan, sat_error *err)
{
    if (!have(scan, 4)) return truncated(scan, err);
    if (scan->pos[3] & 0x80) return broken(scan, err, "a length is negative");
    return SAT_OK;
}

sat_status sat_pickle_next(sat_pickle_scan *scan, sat_pickle_op *op, sat_error *err)
{
    sat_status status = SAT_OK;
    const uint8_t *text;
    size_t len;

    for (;;) {
        if (scan->pos >= scan->end) return truncated(scan, err);
        if (scan->nodes-- == 0) {
            scan->nodes = 0;
            return sat_fail(err, SAT_LIMIT, "the pickle has more than %llu values and opcodes (limits.nodes)",
                            (unsigned long long)scan->max_nodes);
        }
        uint8_t code = *scan->pos++;
        op->code = code;
        switch (code) {
        case OP_PROTO:
            if (!have(scan, 1)) return truncated(scan, err);
            if (*scan->pos > MAX_PROTOCOL)
                return sat_fail(err, SAT_PROTOCOL, "the pickle is of protocol %u; this library reads 0 to %d",
                                (unsigned)*scan->pos, MAX_PROTOCOL);
            scan->pos++;
            continue;
        case OP_FRAME: {
            if (!have(scan, 8)) return truncated(scan, err);
            uint64_t n = sat_get_le64(scan->pos);
            scan->pos += 8;
            if (!have(scan, n)) return truncated(scan, err);
            continue;
        }

        case OP_BININT:
            if (!have(scan, 4)) return truncated(scan, err);
            op->i = (int32_t)sat_get_le32(scan->pos);
            scan->pos += 4;
            op->kind = SAT_PK_INT;
            return SAT_OK;
        case OP_BININT1:
            if (!have(scan, 1)) return truncated(scan, err);
            op->i = *scan->pos++;
            op->kind = SAT_PK_INT;
            return SAT_OK;
        case OP_BININT2:
            if (!have(scan, 2)) return truncated(scan, err);
            op->i = sat_get_le16(scan->pos);
            scan->pos += 2;
            op->kind = SAT_PK_INT;
            return SAT_OK;
        case OP_INT:
            if (!read_line(scan, &text, &len)) return truncated(scan, err);
            if (len == 2 && text[0] == '0' && (text[1] == '0' || text[1] == '1')) {
                op->kind = text[1] == '1' ? SAT_PK_TRUE : SAT_PK_FALSE;
                return SAT_OK;
            }
            return read_decimal(scan, op, text, len, err);
        case OP_LONG:
            if (!read_line(scan, &text, &len)) return truncated(scan, err);
            if (len > 0 && text[len - 1] == 'L') len--;
            return read_decimal(scan, op, text, len, err);
        case OP_LONG1:
            return read_long(scan, op, 1, err);
        case OP_LONG4:
            status = check_sign(scan, err);
            return status == SAT_OK ? read_long(scan, op, 4, err) : status;
        case OP_BINFLOAT: {
            if (!have(scan, 8)) return truncated(scan, err);
            uint64_t bits = 0;
            for (int i = 0; i < 8; i++) bits = bits << 8 | scan->pos[i];
            memcpy(&op->f, &bits, sizeof bits);
            scan->pos += 8;
            op->kind = SAT_PK_FLOAT;
            return SAT_OK;
        }
        case OP_FLOAT:
            return read_float_line(scan, op, err);

        case OP_SHORT_BINUNICODE:
            op->kind = SAT_PK_STR;
            return read_counted(scan, op, 1, err);
        case OP_BINUNICODE:
            op->kind = SAT_PK_STR;
            return read_counted(scan, op, 4, err);
        case OP_BINUNICODE8:
            op->kind = SAT_PK_STR;
            return read_counted(scan, op, 8, err);
        case OP_UNICODE:
            op->kind = SAT_PK_UNICODE;
            return read_line(scan, &op->data, &op->len) ? SAT_OK : truncated(scan, err);
        case OP_SHORT_BINBYTES:
        case OP_SHORT_BINSTRING:
            op->kind = SAT_PK_BYTES;
            return read_counted(scan, op, 1, err);
        case OP_BINBYTES:
            op->kind = SAT_PK_BYTES;
            return read_counted(scan, op, 4, err);
        case OP_BINSTRING:
            op->kind = SAT_PK_BYTES;
            status = check_sign(scan, err);
            return status == SAT_OK ? read_counted(scan, op, 4, err) : status;
        case OP_BINBYTES8:
            op->kind = SAT_PK_BYTES;
            return read_counted(scan, op, 8, err);
        case OP_BYTEARRAY8:
            op->kind = SAT_PK_BYTEARRAY;
            return read_counted(scan, op, 8, err);
        case OP_STRING:
            if (!read_line(scan, &text, &len)) return truncated(scan, err);
            if (len < 2 || (text[0] != '\'' && text[0] != '"') || text[len - 1] != text[0])
                return broken(scan, err, "a string is not in quotes");
            op->kind = SAT_PK_STRING;
            op->data = text + 1;
            op->len = len - 2;
            return SAT_OK;

        case OP_GET:
            op->kind = SAT_PK_GET;
            return read_index(scan, op, err);
        case OP_PUT:
            op->kind = SAT_PK_PUT;
            return read_index(scan, op, err);
        case OP_BINGET:
        case OP_BINPUT:
            if (!have(scan, 1)) return truncated(scan, err);
            op->kind = code == OP_BINGET ? SAT_PK_GET : SAT_PK_PUT;
            op->i = *scan->pos++;
            return SAT_OK;
        case OP_LONG_BINGET:
        case OP_LONG_BINPUT:
            if (!have(scan, 4)) return truncated(scan, err);
            op->kind = code == OP_LONG_BINGET ? SAT_PK_GET : SAT_PK_PUT;
            op->i = sat_get_le32(scan->pos);
            scan->pos += 4;
            return SAT_OK;

        case OP_GLOBAL:
        case OP_INST:
            op->kind = code == OP_GLOBAL ? SAT_PK_GLOBAL : SAT_PK_INST;
            if (!read_line(scan, &op->data, &op->len) || !read_line(scan, &op->data2, &op->len2))
                return truncated(scan, err);
            return SAT_OK;

        case OP_TUPLE1:
        case OP_TUPLE2:
        case OP_TUPLE3:
            op->kind = SAT_PK_TUPLE_N;
            op->i = code - OP_TUPLE1 + 1;
            return SAT_OK;

#define PLAIN(name)                \
    case OP_##name:                \
        op->kind = SAT_PK_##name;  \
        return SAT_OK
            PLAIN(STOP);
            PLAIN(NONE);
            PLAIN(MARK);
            PLAIN(POP);
            PLAIN(POP_MARK);
            PLAIN(DUP);
            PLAIN(EMPTY_LIST);
            PLAIN(LIST);
            PLAIN(APPEND);
            PLAIN(APPENDS);
            PLAIN(EMPTY_TUPLE);
            PLAIN(TUPLE);
            PLAIN(EMPTY_DICT);
            PLAIN(DICT);
            PLAIN(SETITEM);
            PLAIN(SETITEMS);
            PLAIN(EMPTY_SET);
            PLAIN(ADDITEMS);
            PLAIN(FROZENSET);
            PLAIN(MEMOIZE);
            PLAIN(STACK_GLOBAL);
            PLAIN(OBJ);
            PLAIN(REDUCE);
            PLAIN(NEWOBJ);
            PLAIN(NEWOBJ_EX);
            PLAIN(BUILD);
            PLAIN(NEXT_BUFFER);
            PLAIN(READONLY_BUFFER);
#undef PLAIN
        case OP_NEWTRUE:
            op->kind = SAT_PK_TRUE;
            return SAT_OK;
        case OP_NEWFALSE:
            op->kind = SAT_PK_FALSE;
            return SAT_OK;

        case OP_EXT1:
        case OP_EXT2:
        case OP_EXT4:
            return broken(scan, err, "it uses the copyreg extension registry (EXT), which only its writer knows");
        case OP_PERSID:
        case OP_BINPERSID:
            return broken(scan, err, "it uses a persistent id (PERSID), which only its writer can resolve");
        default:
            return sat_fail(err, SAT_PROTOCOL, "broken pickle: unknown opcode 0x%02x (at byte %zu)", (unsigned)code,
                            (size_t)(scan->pos - scan->start - 1));
        }
    }
}

/* ----------------------------------------------------------------- writer */

enum { FIRST_INDEX = 64 };

/* Set in the length of an entry that is a global. */
static const uint32_t GLOBAL_FLAG = UINT32_C(1) << 31;

void sat_pickler_init(sat_pickler *p)
{
    static const sat_limits defaults = SAT_LIMITS_DEFAULT;
    *p = (sat_pickler){.protocol = 4, .memo = true, .oob_min = 4096, .depth = (size_t)defaults.depth, .generation = 1};
    sat_buf_init(&p->out);
}

static void drop_buffers(sat_pickler *p, size_t keep)
{
    while (p->nbuffers > keep) sat_block_release(p->buffers[--p->nbuffers].block);
}

void sat_pickler_free(sat_pickler *p)
{
    drop_buffers(p, 0);
    sat_buf_free(&p->out);
    free(p->buffers);
    free(p->entries);
    free(p->index);
    free(p->seen);
    sat_pickler_init(p);
}

void sat_pickle_forget(sat_pickler *p)
{
    p->nseen = 0;
    if (++p->generation == 0) {
        /* wrapped: an old entry could look like a new one */
        if (p->seen != NULL) memset(p->seen, 0, p->seen_cap * sizeof *p->seen);
        p->generation = 1;
    }
}

void sat_pickler_reset(sat_pickler *p)
{
    drop_buffers(p, 0);
    sat_buf_clear(&p->out);
    if (p->index != NULL && p->nentries > 0) memset(p->index, 0, p->index_cap * sizeof *p->index);
    p->nentries = 0;
    p->memo_len = 0;
    p->failed = false;
    sat_pickle_forget(p);
}

sat_status sat_pickler_status(const sat_pickler *p, sat_error *err)
{
    return p->failed || p->out.failed ? sat_fail_nomem(err) : SAT_OK;
}

sat_pickle_point sat_pickle_tell(const sat_pickler *p)
{
    return (sat_pickle_point){
        .out_len = p->out.len, .nentries = p->nentries, .nbuffers = p->nbuffers, .memo_len = p->memo_len};
}

static void index_entry(sat_pickler *p, size_t n)
{
    size_t mask = p->index_cap - 1, at = p->entries[n].hash & mask;
    while (p->index[at] != 0) at = (at + 1) & mask;
    p->index[at] = (uint32_t)(n + 1);
}

void sat_pickle_rollback(sat_pickler *p, sat_pickle_point point)
{
    p->out.len = point.out_len;
    p->memo_len = point.memo_len;
    drop_buffers(p, point.nbuffers);
    if (p->nentries > point.nentries) {
        p->nentries = point.nentries;
        memset(p->index, 0, p->index_cap * sizeof *p->index);
        for (size_t i = 0; i < p->nentries; i++) index_entry(p, i);
    }
    sat_pickle_forget(p);
}

static uint32_t hash_bytes(uint32_t seed, const uint8_t *data, size_t len)
{
    const uint64_t prime = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t h = seed ^ len * prime, word = 0;
    while (len >= 8) {
        memcpy(&word, data, 8);
        h = (h ^ word) * prime;
        h ^= h >> 32;
        data += 8;
        len -= 8;
    }
    word = 0;
    memcpy(&word, data, len);
    h = (h ^ word) * prime;
    return (uint32_t)(h >> 32);
}

/* The text of a global in the output: module, then the header of name, then name. */
static bool same_global(const uint8_t *at, const char *module, size_t module_len, const char *name, size_t name_len)
{
    return memcmp(at, module, module_len) == 0 && at[module_len] == OP_SHORT_BINUNICODE &&
           at[module_len + 1] == name_len && memcmp(at + module_len + 2, name, name_len) == 0;
}

/* Where to write up to `n` bytes; NULL when there is no memory. */
static inline uint8_t *space(sat_buf *out, size_t n)
{
    if (out->cap - out->len < n && !sat_buf_reserve(out, n)) return NULL;
    return out->data + out->len;
}

static void write_get(sat_pickler *p, uint32_t memo)
{
    uint8_t *at = space(&p->out, 5);
    if (at == NULL) return;
    if (memo < 256) {
        at[0] = OP_BINGET;
        at[1] = (uint8_t)memo;
        p->out.len += 2;
    } else {
        at[0] = OP_LONG_BINGET;
        for (int i = 0; i < 4; i++) at[1 + i] = (uint8_t)(memo >> (8 * i));
        p->out.len += 5;
    }
}

void sat_pickle_ref(sat_pickler *p, uint32_t memo)
{
    write_get(p, memo);
}

/* Doubles an array of `size`-byte elements; false and failed when there is no memory. */
static void *grow(sat_pickler *p, void *array, size_t *cap, size_t first, size_t size)
{
    size_t bytes, n = *cap ? *cap : first / 2;
    if (n > SIZE_MAX / 2 || !sat_mul(n * 2, size, &bytes)) {
        p->failed = true;
        return NULL;
    }
    void *bigger = realloc(array, bytes);
    if (bigger == NULL) {
        p->failed = true;
        return NULL;
    }
    *cap = n * 2;
    return bigger;
}

/* Memoizes the value just written whose text lies at `off` of the output. */
static uint32_t remember(sat_pickler *p, size_t off, size_t len, uint32_t flag, uint32_t hash)
{
    if (p->failed || p->out.failed || p->memo_len >= UINT32_MAX - 1) return SAT_PICKLE_NO_MEMO;
    if (p->nentries == p->entries_cap) {
        void *bigger = grow(p, p->entries, &p->entries_cap, FIRST_INDEX, sizeof *p->entries);
        if (bigger == NULL) return SAT_PICKLE_NO_MEMO;
        p->entries = bigger;
    }
    if ((p->nentries + 1) * 2 > p->index_cap) {
        size_t cap = p->index_cap ? p->index_cap * 2 : FIRST_INDEX;
        uint32_t *index = calloc(cap, sizeof *index);
        if (index == NULL) {
            p->failed = true;
            return SAT_PICKLE_NO_MEMO;
        }
        free(p->index);
        p->index = index;
        p->index_cap = cap;
        for (size_t i = 0; i < p->nentries; i++) index_entry(p, i);
    }
    p->entries[p->nentries] =
        (sat_pickle_entry){.off = off, .len = (uint32_t)len | flag, .hash = hash, .memo = p->memo_len++};
    index_entry(p, p->nentries++);
    sat_buf_u8(&p->out, OP_MEMOIZE);
    return p->memo_len - 1;
}

void sat_pickle_proto(sat_pickler *p)
{
    uint8_t op[2] = {OP_PROTO, (uint8_t)p->protocol};
    sat_buf_append(&p->out, op, sizeof op);
}

#define WRITE_OP(function, code)          \
    void function(sat_pickler *p)         \
    {                                     \
        sat_buf_u8(&p->out, (code));      \
    }
WRITE_OP(sat_pickle_stop, OP_STOP)
WRITE_OP(sat_pickle_none, OP_NONE)
WRITE_OP(sat_pickle_mark, OP_MARK)
WRITE_OP(sat_pickle_tuple_mark, OP_TUPLE)
WRITE_OP(sat_pickle_empty_list, OP_EMPTY_LIST)
WRITE_OP(sat_pickle_append, OP_APPEND)
WRITE_OP(sat_pickle_appends, OP_APPENDS)
WRITE_OP(sat_pickle_empty_dict, OP_EMPTY_DICT)
WRITE_OP(sat_pickle_setitem, OP_SETITEM)
WRITE_OP(sat_pickle_setitems, OP_SETITEMS)
WRITE_OP(sat_pickle_empty_set, OP_EMPTY_SET)
WRITE_OP(sat_pickle_additems, OP_ADDITEMS)
WRITE_OP(sat_pickle_frozenset, OP_FROZENSET)
WRITE_OP(sat_pickle_reduce, OP_REDUCE)
WRITE_OP(sat_pickle_build, OP_BUILD)
WRITE_OP(sat_pickle_newobj, OP_NEWOBJ)
WRITE_OP(sat_pickle_newobj_ex, OP_NEWOBJ_EX)
WRITE_OP(sat_pickle_pop, OP_POP)
WRITE_OP(sat_pickle_pop_mark, OP_POP_MARK)
#undef WRITE_OP

void sat_pickle_bool(sat_pickler *p, bool value)
{
    sat_buf_u8(&p->out, value ? OP_NEWTRUE : OP_NEWFALSE);
}

void sat_pickle_tuple(sat_pickler *p, unsigned n)
{
    sat_buf_u8(&p->out, n == 0 ? OP_EMPTY_TUPLE : (uint8_t)(OP_TUPLE1 + n - 1));
}

uint8_t *sat_pickle_room(sat_pickler *p, size_t numbers)
{
    size_t bytes;
    if (!sat_mul(numbers, SAT_PICKLE_NUMBER, &bytes)) p->failed = true;
    return p->failed ? NULL : space(&p->out, bytes);
}

void sat_pickle_int(sat_pickler *p, int64_t value)
{
    uint8_t *at = sat_pickle_room(p, 1);
    if (at != NULL) sat_pickle_wrote(p, sat_pickle_put_int(at, value));
}

void sat_pickle_uint(sat_pickler *p, uint64_t value)
{
    if (value <= (uint64_t)INT64_MAX) {
        sat_pickle_int(p, (int64_t)value);
    } else {
        uint8_t le[9] = {0};
        for (size_t i = 0; i < 8; i++) le[i] = (uint8_t)(value >> (8 * i));
        sat_pickle_long(p, le, sizeof le);
    }
}

void sat_pickle_long(sat_pickler *p, const void *le, size_t len)
{
    len = sat_bigint_trim(le, len);
    if (len <= 8) {
        sat_pickle_int(p, long_to_int64(le, len));
        return;
    }
    if (len < 256) {
        sat_buf_u8(&p->out, OP_LONG1);
        sat_buf_u8(&p->out, (uint8_t)len);
    } else if (len <= INT32_MAX) {
        sat_buf_u8(&p->out, OP_LONG4);
        sat_buf_le32(&p->out, (uint32_t)len);
    } else {
        p->failed = true;
        return;
    }
    sat_buf_append(&p->out, le, len);
}

sat_status sat_pickle_decimal(sat_pickler *p, const char *text, size_t len, sat_error *err)
{
    sat_buf le = SAT_BUF_INIT;
    sat_status status = sat_bigint_parse(text, len, &le, err);
    if (status == SAT_OK) sat_pickle_long(p, le.data, le.len);
    sat_buf_free(&le);
    return status;
}

void sat_pickle_float(sat_pickler *p, double value)
{
    uint8_t *at = sat_pickle_room(p, 1);
    if (at != NULL) sat_pickle_wrote(p, sat_pickle_put_float(at, value));
}

/* Writes the header of a counted value and its bytes at once. */
static void write_counted(sat_pickler *p, uint8_t op1, uint8_t op4, uint8_t op8, const void *data, size_t len)
{
    uint8_t *at;
    if (len > SIZE_MAX - 9 || !sat_buf_reserve(&p->out, len + 9)) {
        p->failed = true;
        return;
    }
    at = p->out.data + p->out.len;
    if (len < 256 && op1 != 0) {
        at[0] = op1;
        at[1] = (uint8_t)len;
        at += 2;
    } else {
        size_t width = (uint64_t)len <= UINT32_MAX && op4 != 0 ? 4 : 8;
        uint64_t n = len;
        *at++ = width == 4 ? op4 : op8;
        for (size_t i = 0; i < width; i++, n >>= 8) *at++ = (uint8_t)n;
    }
    if (len > 0) memcpy(at, data, len);
    p->out.len = (size_t)(at - p->out.data) + len;
}

void sat_pickle_str(sat_pickler *p, const void *data, size_t len)
{
    write_counted(p, OP_SHORT_BINUNICODE, OP_BINUNICODE, OP_BINUNICODE8, data, len);
}

void sat_pickle_text(sat_pickler *p, const char *text)
{
    sat_pickle_str(p, text, strlen(text));
}

void sat_pickle_bytes(sat_pickler *p, const void *data, size_t len)
{
    write_counted(p, OP_SHORT_BINBYTES, OP_BINBYTES, OP_BINBYTES8, data, len);
}

void sat_pickle_bytearray(sat_pickler *p, const void *data, size_t len)
{
    if (p->protocol >= 5) {
        write_counted(p, 0, 0, OP_BYTEARRAY8, data, len);
    } else {
        sat_pickle_global(p, "builtins", "bytearray");
        sat_pickle_bytes(p, data, len);
        sat_pickle_tuple(p, 1);
        sat_pickle_reduce(p);
    }
}

uint32_t sat_pickle_str_memo(sat_pickler *p, const void *data, size_t len)
{
    if (!p->memo || len > INT32_MAX || len == 0) {
        sat_pickle_str(p, data, len);
        return SAT_PICKLE_NO_MEMO;
    }
    uint32_t hash = hash_bytes(1, data, len);
    if (p->nentries > 0) {
        size_t mask = p->index_cap - 1;
        for (size_t at = hash & mask; p->index[at] != 0; at = (at + 1) & mask) {
            const sat_pickle_entry *entry = &p->entries[p->index[at] - 1];
            if (entry->hash == hash && entry->len == len && memcmp(p->out.data + entry->off, data, len) == 0) {
                write_get(p, entry->memo);
                return entry->memo;
            }
        }
    }
    sat_pickle_str(p, data, len);
    return remember(p, p->out.len - len, len, 0, hash);
}

void sat_pickle_global(sat_pickler *p, const char *module, const char *name)
{
    sat_pickle_globaln(p, module, strlen(module), name, strlen(name));
}

void sat_pickle_globaln(sat_pickler *p, const char *module, size_t module_len, const char *name, size_t name_len)
{
    bool share = p->memo && module_len < 256 && name_len < 256;
    uint32_t hash = 0;
    if (share) {
        hash = hash_bytes(2, (const uint8_t *)module, module_len);
        hash = hash_bytes(hash, (const uint8_t *)name, name_len);
    }
    size_t total = module_len + 2 + name_len;
    if (share && p->nentries > 0) {
        size_t mask = p->index_cap - 1;
        for (size_t at = hash & mask; p->index[at] != 0; at = (at + 1) & mask) {
            const sat_pickle_entry *entry = &p->entries[p->index[at] - 1];
            if (entry->hash == hash && entry->len == ((uint32_t)total | GLOBAL_FLAG) &&
                same_global(p->out.data + entry->off, module, module_len, name, name_len)) {
                write_get(p, entry->memo);
                return;
            }
        }
    }
    sat_pickle_str(p, module, module_len);
    sat_pickle_str(p, name, name_len);
    sat_buf_u8(&p->out, OP_STACK_GLOBAL);
    if (share) (void)remember(p, p->out.len - 1 - total, total, GLOBAL_FLAG, hash);
}

void sat_pickle_raw(sat_pickler *p, const void *data, size_t len)
{
    sat_buf_append(&p->out, data, len);
}

void sat_pickle_buffer(sat_pickler *p, sat_slice slice, bool readonly)
{
    if (p->nbuffers == p->buffers_cap) {
        void *bigger = grow(p, p->buffers, &p->buffers_cap, 8, sizeof *p->buffers);
        if (bigger == NULL) return;
        p->buffers = bigger;
    }
    if (p->oob_copy) {
        sat_block *copy = sat_block_new(slice.len);
        if (copy == NULL) {
            p->failed = true;
            return;
        }
        if (slice.len > 0) memcpy(copy->data, slice.data, slice.len);
        slice = (sat_slice){copy, copy->data, slice.len};
    } else {
        sat_block_retain(slice.block);
    }
    p->buffers[p->nbuffers++] = slice;
    sat_buf_u8(&p->out, OP_NEXT_BUFFER);
    if (readonly) sat_buf_u8(&p->out, OP_READONLY_BUFFER);
}

/* Neighbours in memory stay neighbours in the table: what was allocated in a row is written in a row, and a table
 * spread at random would miss the cache each time. Windows of 16 KiB begin at random places. */
static size_t hash_pointer(const void *object)
{
    uint64_t at = (uint64_t)(uintptr_t)object;
    return (size_t)((((at >> 14) * UINT64_C(0x9e3779b97f4a7c15)) >> 24) + (at >> 5 & 511));
}

/* The entry of object, or the free one where it would go. */
static sat_pickle_seen *find_seen(const sat_pickler *p, const void *object)
{
    size_t mask = p->seen_cap - 1, at = hash_pointer(object) & mask;
    while (p->seen[at].generation == p->generation && p->seen[at].key != (uintptr_t)object) at = (at + 1) & mask;
    return &p->seen[at];
}

bool sat_pickle_has(const sat_pickler *p, const void *object)
{
    return p->nseen > 0 && find_seen(p, object)->generation == p->generation;
}

bool sat_pickle_get(sat_pickler *p, const void *object)
{
    if (p->nseen == 0) return false;
    const sat_pickle_seen *seen = find_seen(p, object);
    if (seen->generation != p->generation) return false;
    write_get(p, seen->memo);
    return true;
}

void sat_pickle_put(sat_pickler *p, const void *object)
{
    if (!p->memo || p->failed || p->memo_len >= UINT32_MAX - 1) return;
    if ((p->nseen + 1) * 2 > p->seen_cap) {
        size_t old_cap = p->seen_cap, cap = old_cap ? old_cap * 2 : FIRST_INDEX;
        sat_pickle_seen *old = p->seen, *bigger = calloc(cap, sizeof *bigger);
        if (bigger == NULL) {
            p->failed = true;
            return;
        }
        p->seen = bigger;
        p->seen_cap = cap;
        for (size_t i = 0; i < old_cap; i++)
            if (old[i].generation == p->generation) *find_seen(p, (const void *)old[i].key) = old[i];
        free(old);
    }
    sat_pickle_seen *seen = find_seen(p, object);
    if (seen->generation != p->generation) p->nseen++;
    *seen = (sat_pickle_seen){.key = (uintptr_t)object, .generation = p->generation, .memo = p->memo_len++};
    sat_buf_u8(&p->out, OP_MEMOIZE);
}
