#include "dtype.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NumPy keeps an item's size in a C int */
static const uint64_t MAX_ITEMSIZE = INT32_MAX;
enum { MAX_TEXT = 1 << 20 };

static bool host_is_little(void)
{
    const uint16_t probe = 1;
    uint8_t first;
    memcpy(&first, &probe, 1);
    return first == 1;
}

static bool span_is(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

/* For error texts: at most 60 characters of what was given, without control characters. */
static const char *shown(const char *text, size_t len, char out[64])
{
    size_t n = len < 60 ? len : 60;
    for (size_t i = 0; i < n; i++) out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    out[n] = '\0';
    return out;
}

/* ---- making and sharing ---- */

static sat_dtype *dtype_alloc(void)
{
    sat_dtype *type = calloc(1, sizeof *type);
    if (type != NULL) type->refs = 1;
    return type;
}

sat_dtype *sat_dtype_retain(sat_dtype *type)
{
    if (type != NULL) type->refs++;
    return type;
}

void sat_dtype_release(sat_dtype *type)
{
    if (type == NULL || --type->refs > 0) return;
    for (size_t i = 0; i < type->nfields; i++) {
        free(type->fields[i].name);
        free(type->fields[i].shape);
        sat_dtype_release(type->fields[i].type); /* as deep as SAT_DTYPE_MAX_DEPTH */
    }
    free(type->fields);
    free(type->descr);
    free(type);
}

const char *sat_dtype_str(const sat_dtype *type)
{
    return type->descr != NULL ? type->descr : type->text;
}

bool sat_dtype_same(const sat_dtype *a, const sat_dtype *b)
{
    return a == b || (a->itemsize == b->itemsize && sat_dtype_is_record(a) == sat_dtype_is_record(b) &&
                      strcmp(sat_dtype_str(a), sat_dtype_str(b)) == 0);
}

void sat_dtype_name(const sat_dtype *type, char *out, size_t size)
{
    const char *word = NULL;
    size_t bits = type->itemsize * 8;
    switch (type->kind) {
    case 'b': word = "bool"; bits = 0; break;
    case 'i': word = "int"; break;
    case 'u': word = "uint"; break;
    case 'f': word = "float"; break;
    case 'c': word = "complex"; break;
    case 'O': word = "object"; bits = 0; break;
    case 'V': if (sat_dtype_is_record(type)) word = "record"; bits = 0; break;
    case 'M':
    case 'm': {
        const char *family = type->kind == 'M' ? "datetime64" : "timedelta64";
        if (type->swapped)
            break;
        else if (type->unit[0] != '\0')
            (void)snprintf(out, size, "%s[%s]", family, type->unit);
        else
            (void)snprintf(out, size, "%s", family);
        return;
    }
    default: break;
    }
    if (type->swapped || word == NULL)
        (void)snprintf(out, size, "%s", type->text[0] == '|' || !type->swapped ? type->text + 1 : type->text);
    else if (bits == 0)
        (void)snprintf(out, size, "%s", word);
    else
        (void)snprintf(out, size, "%s%zu", word, bits);
}

const sat_field *sat_dtype_field(const sat_dtype *type, const char *name, size_t name_len)
{
    for (size_t i = 0; i < type->nfields; i++) {
        const sat_field *field = &type->fields[i];
        if (field->name_len == name_len && memcmp(field->name, name, name_len) == 0) return field;
    }
    return NULL;
}

/* ---- type strings ---- */

typedef struct named_type {
    const char *name;
    char kind;
    uint8_t size;
} named_type;

static const named_type NAMES[] = {
    {"bool", 'b', 1},       {"bool_", 'b', 1},      {"int8", 'i', 1},     {"int16", 'i', 2},     {"int32", 'i', 4},
    {"int64", 'i', 8},      {"int", 'i', 8},        {"uint8", 'u', 1},    {"uint16", 'u', 2},    {"uint32", 'u', 4},
    {"uint64", 'u', 8},     {"uint", 'u', 8},       {"float16", 'f', 2},  {"float32", 'f', 4},   {"float64", 'f', 8},
    {"float", 'f', 8},      {"double", 'f', 8},     {"single", 'f', 4},   {"half", 'f', 2},      {"float128", 'f', 16},
    {"longdouble", 'f', 16}, {"complex64", 'c', 8}, {"complex128", 'c', 16}, {"complex", 'c', 16},
    {"complex256", 'c', 32},
    {"object", 'O', 8},     {"object_", 'O', 8},    {"datetime64", 'M', 8}, {"timedelta64", 'm', 8},
};

/* Codes of one character, where int and long are those of a 64-bit Unix */
static const named_type CODES[] = {
    {"?", 'b', 1}, {"b", 'i', 1}, {"B", 'u', 1}, {"h", 'i', 2}, {"H", 'u', 2}, {"i", 'i', 4}, {"I", 'u', 4},
    {"l", 'i', 8}, {"L", 'u', 8}, {"q", 'i', 8}, {"Q", 'u', 8}, {"p", 'i', 8}, {"P", 'u', 8}, {"e", 'f', 2},
    {"f", 'f', 4}, {"d", 'f', 8}, {"g", 'f', 16}, {"F", 'c', 8}, {"D", 'c', 16}, {"G", 'c', 32}, {"O", 'O', 8},
    {"S", 'S', 0}, {"a", 'S', 0}, {"U", 'U', 0}, {"V", 'V', 0}, {"M", 'M', 8}, {"m", 'm', 8}, {"c", 'S', 1},
};

static const char *const UNITS[] = {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic"};

static bool size_is_known(char kind, uint64_t size)
{
    switch (kind) {
    case 'b': return size == 1;
    case 'i':
    case 'u': return size == 1 || size == 2 || size == 4 || size == 8;
    case 'f': return size == 2 || size == 4 || size == 8 || size == 12 || size == 16;
    case 'c': return size == 8 || size == 16 || size == 24 || size == 32;
    case 'M':
    case 'm':
    case 'O': return size == 8;
    default: return true;
    }
}

/* "[ns]", "[25s]" into unit; false when it is not one. */
static bool parse_unit(const char *text, size_t len, char unit[16])
{
    if (len < 3 || text[0] != '[' || text[len - 1] != ']') return false;
    text++;
    len -= 2;
    size_t digits = 0;
    uint64_t count = 0;
    while (digits < len && text[digits] >= '0' && text[digits] <= '9') {
        count = count * 10 + (uint64_t)(text[digits++] - '0');
        if (count > INT32_MAX) return false;
    }
    if (digits > 0 && count == 0) return false;
    for (size_t i = 0; i < sizeof UNITS / sizeof UNITS[0]; i++) {
        if (!span_is(text + digits, len - digits, UNITS[i])) continue;
        if (strcmp(UNITS[i], "generic") == 0)
            unit[0] = '\0';
        else if (count > 1)
            (void)snprintf(unit, 16, "%" PRIu64 "%s", count, UNITS[i]);
        else
            (void)snprintf(unit, 16, "%s", UNITS[i]);
        return true;
    }
    return false;
}

static sat_status parse_simple(const char *text, size_t len, sat_dtype **out, sat_error *err)
{
    char show[64];
    const char *p = text;
    size_t n = len;
    char order = '=';
    char kind = 0;
    uint64_t size = 0;
    char unit[16] = "";

    if (n > 0 && (*p == '<' || *p == '>' || *p == '|' || *p == '=')) {
        order = *p++;
        n--;
    }
    /* "[unit]" belongs to the two time types */
    size_t head = 0;
    while (head < n && p[head] != '[') head++;
    bool has_unit = head < n;
    if (has_unit && !parse_unit(p + head, n - head, unit))
        return sat_fail(err, SAT_VALUE, "array type '%s': unknown unit of time", shown(text, len, show));

    for (size_t i = 0; kind == 0 && i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (span_is(p, head, NAMES[i].name)) {
            kind = NAMES[i].kind;
            size = NAMES[i].size;
        }
    }
    for (size_t i = 0; kind == 0 && i < sizeof CODES / sizeof CODES[0]; i++) {
        if (span_is(p, head, CODES[i].name)) {
            kind = CODES[i].kind;
            size = CODES[i].size;
        }
    }
    if (kind == 0 && head >= 2 && strchr("biufcSaUVMmO", p[0]) != NULL) {
        uint64_t number = 0;
        size_t i = 1;
        while (i < head && p[i] >= '0' && p[i] <= '9' && number <= MAX_ITEMSIZE)
            number = number * 10 + (uint64_t)(p[i++] - '0');
        if (i == head) {
            kind = p[0] == 'a' ? 'S' : p[0];
            size = kind == 'U' ? number * 4 : number;
        }
    }
    if (kind == 0 || !size_is_known(kind, size) || (has_unit && kind != 'M' && kind != 'm'))
        return sat_fail(err, SAT_VALUE,
                        "'%s' is not an array type; give one like 'f8', '<i4', 'float64', 'U10', 'M8[ns]'",
                        shown(text, len, show));
    if (size > MAX_ITEMSIZE)
        return sat_fail(err, SAT_LIMIT, "array type '%s': an item of more than 2 GiB", shown(text, len, show));

    sat_dtype *type = dtype_alloc();
    if (type == NULL) return sat_fail_nomem(err);
    type->kind = kind;
    type->itemsize = (size_t)size;
    type->opaque = (kind == 'f' && size > 8) || (kind == 'c' && size > 16);
    memcpy(type->unit, unit, sizeof unit);

    bool ordered = kind == 'U' || (size > 1 && kind != 'S' && kind != 'V' && kind != 'O');
    char mark = '|';
    if (ordered) {
        if (order == '|' || order == '=') order = host_is_little() ? '<' : '>';
        mark = order;
        type->swapped = (order == '<') != host_is_little();
    }
    if (kind == 'O')
        (void)snprintf(type->text, sizeof type->text, "|O");
    else if (unit[0] != '\0')
        (void)snprintf(type->text, sizeof type->text, "%c%c8[%s]", mark, kind, unit);
    else
        (void)snprintf(type->text, sizeof type->text, "%c%c%" PRIu64, mark, kind, kind == 'U' ? size / 4 : size);
    *out = type;
    return SAT_OK;
}

sat_status sat_dtype_parse(const char *text, size_t len, sat_dtype **out, sat_error *err)
{
    sat_literal lit = {.p = text, .end = text + len, .latin1 = false, .depth = 0, .err = err};
    *out = NULL;
    sat_literal_space(&lit);
    if (lit.p == lit.end || (*lit.p != '[' && *lit.p != '{')) return parse_simple(text, len, out, err);
    sat_dtype *type;
    sat_status status = sat_literal_dtype(&lit, &type);
    if (status != SAT_OK) return status;
    sat_literal_space(&lit);
    if (lit.p != lit.end) {
        sat_dtype_release(type);
        return sat_fail(err, SAT_VALUE, "array type: unexpected text after the list of fields");
    }
    *out = type;
    return SAT_OK;
}

/* ---- records ---- */

sat_status sat_dtype_record_begin(size_t itemsize, sat_dtype **out, sat_error *err)
{
    *out = NULL;
    if (itemsize > MAX_ITEMSIZE) return sat_fail(err, SAT_LIMIT, "array type: a record of more than 2 GiB");
    sat_dtype *type = dtype_alloc();
    if (type == NULL) return sat_fail_nomem(err);
    type->kind = 'V';
    type->itemsize = itemsize;
    type->depth = 1;
    *out = type;
    return SAT_OK;
}

sat_status sat_dtype_record_add(sat_dtype *record, const char *name, size_t name_len, size_t offset, sat_dtype *type,
                                int ndim, const int64_t *shape, sat_error *err)
{
    char show[64];
    if (ndim < 0 || ndim > SAT_ND_MAX_DIMS)
        return sat_fail(err, SAT_LIMIT, "array type: field '%s' has more than %d dimensions",
                        shown(name, name_len, show),
                        (int)SAT_ND_MAX_DIMS);
    if (type->kind == 'O')
        return sat_fail(err, SAT_VALUE, "array type: field '%s' holds Python objects", shown(name, name_len, show));
    if (type->depth >= SAT_DTYPE_MAX_DEPTH)
        return sat_fail(err, SAT_LIMIT, "array type: records nested deeper than %d", (int)SAT_DTYPE_MAX_DEPTH);
    size_t count = 1;
    for (int i = 0; i < ndim; i++) {
        /* counts are bounded by the record's bytes, so an item of no bytes counts as one */
        if (shape[i] < 0 || (uint64_t)shape[i] > MAX_ITEMSIZE || !sat_mul(count, (size_t)shape[i], &count))
            return sat_fail(err, SAT_VALUE, "array type: field '%s' has a bad shape", shown(name, name_len, show));
    }
    size_t bytes = 0;
    if (offset > record->itemsize || !sat_mul(count, type->itemsize, &bytes) || bytes > record->itemsize - offset ||
        (type->itemsize == 0 && count > 1))
        return sat_fail(err, SAT_VALUE, "array type: field '%s' reaches outside its record",
                        shown(name, name_len, show));

    if (record->nfields == record->fields_cap) {
        size_t cap = record->fields_cap ? record->fields_cap * 2 : 4;
        size_t total;
        sat_field *fields = sat_mul(cap, sizeof *fields, &total) ? realloc(record->fields, total) : NULL;
        if (fields == NULL) return sat_fail_nomem(err);
        record->fields = fields;
        record->fields_cap = cap;
    }
    sat_field field = {.name_len = name_len, .offset = offset, .ndim = ndim, .count = count};
    field.name = malloc(name_len + 1);
    if (field.name == NULL) return sat_fail_nomem(err);
    if (name_len > 0) memcpy(field.name, name, name_len);
    field.name[name_len] = '\0';
    if (ndim > 0) {
        field.shape = malloc((size_t)ndim * sizeof *field.shape);
        if (field.shape == NULL) {
            free(field.name);
            return sat_fail_nomem(err);
        }
        memcpy(field.shape, shape, (size_t)ndim * sizeof *field.shape);
    }
    field.type = sat_dtype_retain(type);
    if (type->depth + 1 > record->depth) record->depth = type->depth + 1;
    record->fields[record->nfields++] = field;
    return SAT_OK;
}

/* As Python's repr: in double quotes when there are single ones in the text, and only these. */
static void write_quoted(sat_buf *out, const char *text, size_t len)
{
    static const char HEX[] = "0123456789abcdef";
    uint8_t quote = len > 0 && memchr(text, '\'', len) != NULL && memchr(text, '"', len) == NULL ? '"' : '\'';
    sat_buf_u8(out, quote);
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c == quote || c == '\\') {
            sat_buf_u8(out, '\\');
            sat_buf_u8(out, c);
        } else if (c < 0x20 || c == 0x7f) {
            sat_buf_str(out, "\\x");
            sat_buf_u8(out, (uint8_t)HEX[c >> 4]);
            sat_buf_u8(out, (uint8_t)HEX[c & 15]);
        } else {
            sat_buf_u8(out, c);
        }
    }
    sat_buf_u8(out, quote);
}

static void write_number(sat_buf *out, uint64_t number)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, number);
    sat_buf_str(out, text);
}

static void write_type(sat_buf *out, const sat_dtype *type)
{
    if (sat_dtype_is_record(type)) {
        sat_buf_str(out, type->descr);
    } else {
        sat_buf_u8(out, '\'');
        sat_buf_str(out, type->text);
        sat_buf_u8(out, '\'');
    }
}

static void write_field_shape(sat_buf *out, const sat_field *field)
{
    sat_buf_u8(out, '(');
    for (int i = 0; i < field->ndim; i++) {
        if (i > 0) sat_buf_str(out, ", ");
        write_number(out, (uint64_t)field->shape[i]);
    }
    sat_buf_str(out, field->ndim == 1 ? ",)" : ")");
}

static void write_padding(sat_buf *out, size_t bytes)
{
    sat_buf_str(out, "('', '|V");
    write_number(out, bytes);
    sat_buf_str(out, "')");
}

/* The list form says where fields are by their order, with nameless fields between; it needs them to follow each
 * other. */
static bool fields_are_in_order(const sat_dtype *record)
{
    size_t end = 0;
    for (size_t i = 0; i < record->nfields; i++) {
        const sat_field *field = &record->fields[i];
        if (field->offset < end || (field->name_len == 0 && field->type->kind == 'V')) return false;
        end = field->offset + field->count * field->type->itemsize;
    }
    return true;
}

static void write_list(sat_buf *out, const sat_dtype *record)
{
    size_t end = 0;
    bool first = true;
    sat_buf_u8(out, '[');
    for (size_t i = 0; i < record->nfields; i++) {
        const sat_field *field = &record->fields[i];
        if (!first) sat_buf_str(out, ", ");
        first = false;
        if (field->offset > end) {
            write_padding(out, field->offset - end);
            sat_buf_str(out, ", ");
        }
        sat_buf_u8(out, '(');
        write_quoted(out, field->name, field->name_len);
        sat_buf_str(out, ", ");
        write_type(out, field->type);
        if (field->ndim > 0) {
            sat_buf_str(out, ", ");
            write_field_shape(out, field);
        }
        sat_buf_u8(out, ')');
        end = field->offset + field->count * field->type->itemsize;
    }
    if (end < record->itemsize) {
        if (!first) sat_buf_str(out, ", ");
        write_padding(out, record->itemsize - end);
    }
    sat_buf_u8(out, ']');
}

static void write_dict(sat_buf *out, const sat_dtype *record)
{
    sat_buf_str(out, "{'names': [");
    for (size_t i = 0; i < record->nfields; i++) {
        if (i > 0) sat_buf_str(out, ", ");
        write_quoted(out, record->fields[i].name, record->fields[i].name_len);
    }
    sat_buf_str(out, "], 'formats': [");
    for (size_t i = 0; i < record->nfields; i++) {
        const sat_field *field = &record->fields[i];
        if (i > 0) sat_buf_str(out, ", ");
        if (field->ndim > 0) sat_buf_u8(out, '(');
        write_type(out, field->type);
        if (field->ndim > 0) {
            sat_buf_str(out, ", ");
            write_field_shape(out, field);
            sat_buf_u8(out, ')');
        }
    }
    sat_buf_str(out, "], 'offsets': [");
    for (size_t i = 0; i < record->nfields; i++) {
        if (i > 0) sat_buf_str(out, ", ");
        write_number(out, record->fields[i].offset);
    }
    sat_buf_str(out, "], 'itemsize': ");
    write_number(out, record->itemsize);
    sat_buf_u8(out, '}');
}

sat_status sat_dtype_record_finish(sat_dtype *record, sat_error *err)
{
    sat_buf text = SAT_BUF_INIT;
    if (fields_are_in_order(record))
        write_list(&text, record);
    else
        write_dict(&text, record);
    sat_buf_u8(&text, '\0');
    if (text.len > MAX_TEXT) {
        sat_buf_free(&text);
        return sat_fail(err, SAT_LIMIT, "array type: a record of more than 1 MiB of text");
    }
    if (text.failed) {
        sat_buf_free(&text);
        return sat_fail_nomem(err);
    }
    free(record->descr);
    record->descr = (char *)text.data;
    return SAT_OK;
}

/* ---- UTF-8 ---- */

size_t sat_utf8_encode(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    if (code > 0x10FFFF) return 0;
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

size_t sat_utf8_decode(const uint8_t *text, size_t len, uint32_t *code)
{
    static const uint32_t SMALLEST[] = {0, 0, 0x80, 0x800, 0x10000};
    if (len == 0) return 0;
    uint8_t first = text[0];
    size_t n = 0;
    if (first < 0x80)
        n = 1;
    else if ((first & 0xE0) == 0xC0)
        n = 2;
    else if ((first & 0xF0) == 0xE0)
        n = 3;
    else if ((first & 0xF8) == 0xF0)
        n = 4;
    if (n == 0 || n > len) return 0;
    uint32_t value = n == 1 ? first : (uint32_t)(first & (0x7F >> n));
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xC0) != 0x80) return 0;
        value = value << 6 | (uint32_t)(text[i] & 0x3F);
    }
    if (value < SMALLEST[n] || value > 0x10FFFF) return 0;
    *code = value;
    return n;
}

/* ---- Python literals ---- */

static sat_status bad(sat_literal *lit, const char *what)
{
    return sat_fail(lit->err, SAT_VALUE, "array type: %s", what);
}

void sat_literal_space(sat_literal *lit)
{
    while (lit->p < lit->end && (*lit->p == ' ' || *lit->p == '\t' || *lit->p == '\n' || *lit->p == '\r')) lit->p++;
}

bool sat_literal_take(sat_literal *lit, char c)
{
    sat_literal_space(lit);
    if (lit->p == lit->end || *lit->p != c) return false;
    lit->p++;
    return true;
}

static void append_code(sat_buf *out, uint32_t code)
{
    char bytes[4];
    size_t n = sat_utf8_encode(code, bytes);
    sat_buf_append(out, bytes, n);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static sat_status read_escape(sat_literal *lit, sat_buf *out)
{
    if (lit->p == lit->end) return bad(lit, "a string without an end");
    char c = *lit->p++;
    int digits = 0;
    switch (c) {
    case '\\':
    case '\'':
    case '"': sat_buf_u8(out, (uint8_t)c); return SAT_OK;
    case 'n': sat_buf_u8(out, '\n'); return SAT_OK;
    case 't': sat_buf_u8(out, '\t'); return SAT_OK;
    case 'r': sat_buf_u8(out, '\r'); return SAT_OK;
    case 'x': digits = 2; break;
    case 'u': digits = 4; break;
    case 'U': digits = 8; break;
    default: return bad(lit, "an unknown escape in a string");
    }
    uint32_t code = 0;
    for (int i = 0; i < digits; i++) {
        int digit = lit->p < lit->end ? hex_digit(*lit->p) : -1;
        if (digit < 0) return bad(lit, "a bad escape in a string");
        code = code << 4 | (uint32_t)digit;
        lit->p++;
    }
    if (code > 0x10FFFF) return bad(lit, "a bad escape in a string");
    append_code(out, code);
    return SAT_OK;
}

sat_status sat_literal_string(sat_literal *lit, sat_buf *out)
{
    sat_literal_space(lit);
    if (lit->p < lit->end && (*lit->p == 'u' || *lit->p == 'b')) lit->p++;
    if (lit->p == lit->end || (*lit->p != '\'' && *lit->p != '"')) return bad(lit, "a string is missing");
    char quote = *lit->p++;
    while (lit->p < lit->end) {
        char c = *lit->p++;
        if (c == quote) return out->failed ? sat_fail_nomem(lit->err) : SAT_OK;
        if (c == '\\') {
            sat_status status = read_escape(lit, out);
            if (status != SAT_OK) return status;
        } else if (lit->latin1) {
            append_code(out, (uint8_t)c);
        } else {
            sat_buf_u8(out, (uint8_t)c);
        }
    }
    return bad(lit, "a string without an end");
}

sat_status sat_literal_int(sat_literal *lit, int64_t *out)
{
    sat_literal_space(lit);
    int64_t value = 0;
    bool any = false;
    bool negative = lit->p < lit->end && *lit->p == '-';
    if (negative) lit->p++;
    while (lit->p < lit->end && *lit->p >= '0' && *lit->p <= '9') {
        int digit = *lit->p++ - '0';
        if (value > (INT64_MAX - digit) / 10) return bad(lit, "a number is too large");
        value = value * 10 + digit;
        any = true;
    }
    if (!any) return bad(lit, "a number is missing");
    if (lit->p < lit->end && *lit->p == 'L') lit->p++; /* written by Python 2 */
    *out = negative ? -value : value;
    return SAT_OK;
}

sat_status sat_literal_shape(sat_literal *lit, int *ndim, int64_t shape[SAT_ND_MAX_DIMS])
{
    *ndim = 0;
    if (!sat_literal_take(lit, '(')) { /* a plain number is one dimension */
        *ndim = 1;
        return sat_literal_int(lit, &shape[0]);
    }
    while (!sat_literal_take(lit, ')')) {
        if (*ndim == SAT_ND_MAX_DIMS)
            return sat_fail(lit->err, SAT_LIMIT, "array: more than %d dimensions", (int)SAT_ND_MAX_DIMS);
        sat_status status = sat_literal_int(lit, &shape[*ndim]);
        if (status != SAT_OK) return status;
        ++*ndim;
        if (sat_literal_take(lit, ',')) continue;
        if (!sat_literal_take(lit, ')')) return bad(lit, "a shape without an end");
        break;
    }
    return SAT_OK;
}

sat_status sat_literal_skip(sat_literal *lit)
{
    sat_literal_space(lit);
    if (lit->p == lit->end) return bad(lit, "a value is missing");
    char c = *lit->p;
    if (c == '(' || c == '[' || c == '{') {
        char close = (char)(c == '(' ? ')' : c == '[' ? ']' : '}');
        if (lit->depth >= 4 * SAT_DTYPE_MAX_DEPTH) return bad(lit, "nested too deep");
        lit->depth++;
        lit->p++;
        while (!sat_literal_take(lit, close)) {
            sat_status status = sat_literal_skip(lit);
            if (status == SAT_OK && c == '{') {
                if (!sat_literal_take(lit, ':')) return bad(lit, "a ':' is missing");
                status = sat_literal_skip(lit);
            }
            if (status != SAT_OK) return status;
            if (sat_literal_take(lit, ',')) continue;
            if (!sat_literal_take(lit, close)) return bad(lit, "a ',' or an end is missing");
            break;
        }
        lit->depth--;
        return SAT_OK;
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        int64_t ignored;
        return sat_literal_int(lit, &ignored);
    }
    static const char *const WORDS[] = {"True", "False", "None"};
    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0]; i++) {
        size_t n = strlen(WORDS[i]);
        if ((size_t)(lit->end - lit->p) >= n && memcmp(lit->p, WORDS[i], n) == 0) {
            lit->p += n;
            return SAT_OK;
        }
    }
    sat_buf ignored = SAT_BUF_INIT;
    sat_status status = sat_literal_string(lit, &ignored);
    sat_buf_free(&ignored);
    return status;
}

/* 'name' or ('title', 'name') */
static sat_status read_field_name(sat_literal *lit, sat_buf *name)
{
    bool titled = sat_literal_take(lit, '(');
    sat_buf_clear(name);
    sat_status status = sat_literal_string(lit, name);
    if (status != SAT_OK || !titled) return status;
    if (!sat_literal_take(lit, ',')) return bad(lit, "a field's name is missing");
    sat_buf_clear(name);
    status = sat_literal_string(lit, name);
    if (status != SAT_OK) return status;
    (void)sat_literal_take(lit, ',');
    return sat_literal_take(lit, ')') ? SAT_OK : bad(lit, "a field's name without an end");
}

static sat_status add_read_field(sat_literal *lit, sat_dtype *record, const sat_buf *name, size_t offset,
                                 sat_dtype *type, int ndim, const int64_t *shape)
{
    return sat_dtype_record_add(record, name->data != NULL ? (const char *)name->data : "", name->len, offset, type,
                                ndim, shape, lit->err);
}

/* [('x', '<i4'), ('', '|V4'), ('y', '<f8', (2, 3))], the cursor behind the bracket */
static sat_status read_list(sat_literal *lit, sat_dtype *record, sat_buf *name)
{
    size_t at = 0;
    while (!sat_literal_take(lit, ']')) {
        sat_dtype *type = NULL;
        int ndim = 0;
        int64_t shape[SAT_ND_MAX_DIMS];
        if (!sat_literal_take(lit, '(')) return bad(lit, "a field must be a tuple");
        sat_status status = read_field_name(lit, name);
        if (status != SAT_OK) return status;
        if (!sat_literal_take(lit, ',')) return bad(lit, "a field's type is missing");
        status = sat_literal_dtype(lit, &type);
        if (status != SAT_OK) return status;
        bool closed = false;
        if (sat_literal_take(lit, ',')) {
            closed = sat_literal_take(lit, ')');
            if (!closed) {
                status = sat_literal_shape(lit, &ndim, shape);
                (void)sat_literal_take(lit, ',');
            }
        }
        if (status == SAT_OK && !closed && !sat_literal_take(lit, ')')) status = bad(lit, "a field without an end");
        size_t count = type->itemsize;
        for (int i = 0; status == SAT_OK && i < ndim; i++) {
            if (shape[i] < 0 || (uint64_t)shape[i] > MAX_ITEMSIZE || !sat_mul(count, (size_t)shape[i], &count))
                status = bad(lit, "a field has a bad shape");
        }
        if (status == SAT_OK && (!sat_add(at, count, &record->itemsize) || record->itemsize > MAX_ITEMSIZE))
            status = sat_fail(lit->err, SAT_LIMIT, "array type: a record of more than 2 GiB");
        if (status == SAT_OK && !(name->len == 0 && type->kind == 'V' && !sat_dtype_is_record(type)))
            status = add_read_field(lit, record, name, at, type, ndim, shape);
        at = record->itemsize;
        sat_dtype_release(type);
        if (status != SAT_OK) return status;
        if (sat_literal_take(lit, ',')) continue;
        if (!sat_literal_take(lit, ']')) return bad(lit, "a list of fields without an end");
        break;
    }
    return SAT_OK;
}

/* {'names': [...], 'formats': [...], 'offsets': [...], 'itemsize': n}, the cursor behind the brace */
static sat_status read_dict(sat_literal *lit, sat_dtype *record, sat_buf *name)
{
    sat_literal names = *lit, formats = *lit, offsets = *lit;
    bool has_names = false, has_formats = false, has_offsets = false, has_size = false;
    while (!sat_literal_take(lit, '}')) {
        sat_buf_clear(name);
        sat_status status = sat_literal_string(lit, name);
        if (status != SAT_OK) return status;
        if (!sat_literal_take(lit, ':')) return bad(lit, "a ':' is missing");
        const char *key = name->data != NULL ? (const char *)name->data : "";
        sat_literal_space(lit);
        if (span_is(key, name->len, "itemsize")) {
            int64_t size;
            status = sat_literal_int(lit, &size);
            if (status != SAT_OK) return status;
            if (size < 0 || (uint64_t)size > MAX_ITEMSIZE) return bad(lit, "a record of a bad size");
            record->itemsize = (size_t)size;
            has_size = true;
        } else {
            if (span_is(key, name->len, "names")) {
                names = *lit;
                has_names = true;
            } else if (span_is(key, name->len, "formats")) {
                formats = *lit;
                has_formats = true;
            } else if (span_is(key, name->len, "offsets")) {
                offsets = *lit;
                has_offsets = true;
            }
            status = sat_literal_skip(lit);
            if (status != SAT_OK) return status;
        }
        if (sat_literal_take(lit, ',')) continue;
        if (!sat_literal_take(lit, '}')) return bad(lit, "a dict without an end");
        break;
    }
    if (!has_names || !has_formats || !has_offsets || !has_size)
        return bad(lit, "a dict of fields must have names, formats, offsets and itemsize");
    if (!sat_literal_take(&names, '[') || !sat_literal_take(&formats, '[') || !sat_literal_take(&offsets, '['))
        return bad(lit, "names, formats and offsets must be lists");
    while (!sat_literal_take(&names, ']')) {
        sat_dtype *type = NULL;
        int ndim = 0;
        int64_t shape[SAT_ND_MAX_DIMS];
        int64_t offset = 0;
        sat_status status = read_field_name(&names, name);
        if (status != SAT_OK) return status;
        bool sub = sat_literal_take(&formats, '(');
        status = sat_literal_dtype(&formats, &type);
        if (status != SAT_OK) return status;
        if (sub) {
            if (sat_literal_take(&formats, ','))
                status = sat_literal_shape(&formats, &ndim, shape);
            else
                status = bad(lit, "a shape is missing");
            if (status == SAT_OK && !sat_literal_take(&formats, ')')) status = bad(lit, "a field without an end");
        }
        if (status == SAT_OK) status = sat_literal_int(&offsets, &offset);
        if (status == SAT_OK && offset < 0) status = bad(lit, "a field of a negative offset");
        if (status == SAT_OK) status = add_read_field(lit, record, name, (size_t)offset, type, ndim, shape);
        sat_dtype_release(type);
        if (status != SAT_OK) return status;
        (void)sat_literal_take(&names, ',');
        (void)sat_literal_take(&formats, ',');
        (void)sat_literal_take(&offsets, ',');
    }
    return SAT_OK;
}

sat_status sat_literal_dtype(sat_literal *lit, sat_dtype **out)
{
    sat_buf text = SAT_BUF_INIT;
    sat_dtype *record = NULL;
    sat_status status;
    *out = NULL;
    sat_literal_space(lit);
    bool list = lit->p < lit->end && *lit->p == '[';
    bool dict = lit->p < lit->end && *lit->p == '{';
    if (!list && !dict) {
        status = sat_literal_string(lit, &text);
        if (status == SAT_OK)
            status = parse_simple(text.data != NULL ? (const char *)text.data : "", text.len, out, lit->err);
        sat_buf_free(&text);
        return status;
    }
    if (lit->depth >= SAT_DTYPE_MAX_DEPTH)
        return sat_fail(lit->err, SAT_LIMIT, "array type: records nested deeper than %d", (int)SAT_DTYPE_MAX_DEPTH);
    lit->depth++;
    lit->p++;
    status = sat_dtype_record_begin(0, &record, lit->err);
    if (status == SAT_OK) status = list ? read_list(lit, record, &text) : read_dict(lit, record, &text);
    if (status == SAT_OK) status = sat_dtype_record_finish(record, lit->err);
    lit->depth--;
    sat_buf_free(&text);
    if (status == SAT_OK)
        *out = record;
    else
        sat_dtype_release(record);
    return status;
}
