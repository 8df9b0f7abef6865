/* Element types of arrays, written as NumPy writes them: "<f8", "|b1", "<U3", "<M8[ns]", "|O", or for records the list
 * of fields ("descr") "[('x', '<i4'), ('y', '<f8', (2, 3))]".
 *
 * A sat_dtype is immutable once made and shared by counting: sat_dtype_retain, sat_dtype_release. */
#ifndef SATURN_DTYPE_H
#define SATURN_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "status.h"

enum {
    SAT_ND_MAX_DIMS = 32,
    SAT_DTYPE_TEXT = 64,     /* a type string with its terminator */
    SAT_DTYPE_MAX_DEPTH = 16 /* records in records */
};

typedef struct sat_dtype sat_dtype;

typedef struct sat_field {
    char *name; /* UTF-8, ends in NUL */
    size_t name_len;
    size_t offset;  /* bytes from the start of the record */
    sat_dtype *type;
    int64_t *shape; /* of an array in the record; NULL when ndim is 0 */
    int ndim;
    size_t count;   /* elements in that array, 1 when ndim is 0 */
} sat_field;

struct sat_dtype {
    size_t refs;
    char kind;                 /* b i u f c S U M m V O; a record is V */
    bool swapped;              /* multi-byte and not in this machine's byte order */
    bool opaque;               /* long double: its bytes mean something only to the machine that wrote them */
    size_t itemsize;
    char text[SAT_DTYPE_TEXT]; /* "" for a record */
    char unit[16];             /* M and m: "ns", "25s", "" when generic */
    char *descr;               /* a record: the list of its fields, else NULL */
    sat_field *fields;
    size_t nfields;
    size_t fields_cap;
    int depth; /* of records in it */
};

/* A type string (byte order optional), a NumPy name ("float64", "datetime64[ns]"), or a descr. */
sat_status sat_dtype_parse(const char *text, size_t len, sat_dtype **out, sat_error *err);

/* A record type: begin with its size, add the fields (the type gets one more owner; shape may be NULL when ndim is 0),
 * finish. What begin gave is released by the caller whatever happens. */
sat_status sat_dtype_record_begin(size_t itemsize, sat_dtype **out, sat_error *err);
sat_status sat_dtype_record_add(sat_dtype *record, const char *name, size_t name_len, size_t offset, sat_dtype *type,
                                int ndim, const int64_t *shape, sat_error *err);
sat_status sat_dtype_record_finish(sat_dtype *record, sat_error *err);

sat_dtype *sat_dtype_retain(sat_dtype *type);
void sat_dtype_release(sat_dtype *type); /* NULL is fine */

static inline bool sat_dtype_is_record(const sat_dtype *type)
{
    return type->descr != NULL;
}

/* The type string, or the descr of a record. */
const char *sat_dtype_str(const sat_dtype *type);
/* The same layout and meaning. */
bool sat_dtype_same(const sat_dtype *a, const sat_dtype *b);
/* For people: "float64", ">f4", "S5", "datetime64[ns]", "record". */
void sat_dtype_name(const sat_dtype *type, char *out, size_t size);
/* NULL when there is none. */
const sat_field *sat_dtype_field(const sat_dtype *type, const char *name, size_t name_len);

/* ---- Python literals, as far as a descr and the header of an .npy file use them ---- */

typedef struct sat_literal {
    const char *p, *end;
    bool latin1; /* bytes above 127 are characters of Latin-1, not UTF-8 */
    int depth;
    sat_error *err;
} sat_literal;

/* Each reads one thing at the cursor and moves it. */
void sat_literal_space(sat_literal *lit);
bool sat_literal_take(sat_literal *lit, char c); /* skips white space; true and past it when c is next */
sat_status sat_literal_string(sat_literal *lit, sat_buf *out); /* appends UTF-8 */
sat_status sat_literal_int(sat_literal *lit, int64_t *out);
sat_status sat_literal_shape(sat_literal *lit, int *ndim, int64_t shape[SAT_ND_MAX_DIMS]);
sat_status sat_literal_skip(sat_literal *lit); /* any one value */
sat_status sat_literal_dtype(sat_literal *lit, sat_dtype **out);

/* A code point as one to four bytes of UTF-8 (surrogates as three), its length; 0 when there is no such character. */
size_t sat_utf8_encode(uint32_t code, char out[4]);
/* The next character of text; its length, 0 when the bytes are not UTF-8. Lone surrogates pass. */
size_t sat_utf8_decode(const uint8_t *text, size_t len, uint32_t *code);

#endif
