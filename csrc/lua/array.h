/* C side of saturn.array, for the codecs: make an array over received bytes, read one that is to be sent.
 *
 * Wherever a dtype is a text, a record's list of fields ("[('x', '<i4'), ('y', '<f8', (2,))]") will do as well.
 * Functions that give a status push nothing when it is not SAT_OK; they raise no Lua error but out-of-memory. */
#ifndef SATURN_LUA_ARRAY_H
#define SATURN_LUA_ARRAY_H

#include "../core/ndarray.h"
#include "saturn_lua.h"

#define SATL_ARRAY "saturn.array"

enum { SAT_ARRAY_MAX_DIMS = SAT_ND_MAX_DIMS };

typedef struct satL_array_view {
    char dtype[64];        /* NumPy's type string: "<f8", "|b1", "<U3", "<M8[ns]", "|O"; "" when structured */
    const char *descr;     /* structured: the field description as an opaque text kept by the array, else NULL */
    int ndim;
    int64_t shape[SAT_ARRAY_MAX_DIMS];
    int64_t strides[SAT_ARRAY_MAX_DIMS]; /* bytes; may be 0 or negative */
    size_t itemsize;
    const uint8_t *data;   /* first element; NULL for objects */
    sat_block *block;      /* keeps data alive; borrowed */
    int contiguous;        /* 'C', 'F' or 0 */
    const sat_dtype *type; /* the same type with its fields; borrowed */
    int64_t size;          /* elements */
    size_t nbytes;         /* size * itemsize: what follows data when contiguous */
    bool writable;
} satL_array_view;

/* Pushes an array over slice.data (retaining slice.block; copying when block is NULL). The bytes that shape,
 * strides and itemsize reach are checked against slice.len. On failure pushes nothing and fills err.
 * strides NULL means C order. The array is writable unless its elements overlap, as those of a broadcast array do. */
sat_status satL_array_push(lua_State *L, const char *dtype, int ndim, const int64_t *shape, const int64_t *strides,
                           sat_slice bytes, sat_error *err);

/* The same with a type that was made before (it gets one more owner), its first element `offset` bytes into the
 * slice. */
sat_status satL_array_push_typed(lua_State *L, sat_dtype *type, size_t offset, int ndim, const int64_t *shape,
                                 const int64_t *strides, sat_slice bytes, sat_error *err);

/* A field of a record; dtype may itself be a list of fields. */
typedef struct satL_array_field {
    const char *name; /* UTF-8 */
    size_t name_len;
    size_t offset;
    const char *dtype;
    int ndim; /* of an array within the record, else 0 */
    const int64_t *shape;
} satL_array_field;

/* The same with records of itemsize bytes. */
sat_status satL_array_push_structured(lua_State *L, const satL_array_field *fields, size_t nfields, size_t itemsize,
                                      int ndim, const int64_t *shape, const int64_t *strides, sat_slice bytes,
                                      sat_error *err);

/* An array of objects over the Lua list at idx, which the array keeps and shares. strides count 8 bytes an element. */
sat_status satL_array_push_objects(lua_State *L, int idx, int ndim, const int64_t *shape, const int64_t *strides,
                                   sat_error *err);

/* An array of its own memory, all zeros, in C order; *data (may be NULL) is where to fill it. Not for objects. */
sat_status satL_array_push_new(lua_State *L, const char *dtype, int ndim, const int64_t *shape, uint8_t **data,
                               sat_error *err);

void satL_array_set_readonly(lua_State *L, int idx);

/* 1 and fills *view when the value at idx is an array, else 0. Never raises. */
int satL_array_view_of(lua_State *L, int idx, satL_array_view *view);

/* Pushes the array at idx when it is contiguous ('C' or 'F'), else a copy in C order. May raise. */
void satL_array_push_contiguous(lua_State *L, int idx);

/* Pushes a flat Lua list of the elements in C order. May raise. */
void satL_array_push_list(lua_State *L, int idx);

#endif
