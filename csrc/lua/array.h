/* C side of saturn.array, for the codecs: make an array over received bytes, read one that is to be sent. */
#ifndef SATURN_LUA_ARRAY_H
#define SATURN_LUA_ARRAY_H

#include "saturn_lua.h"

enum { SAT_ARRAY_MAX_DIMS = 32 };

typedef struct satL_array_view {
    char dtype[64];        /* NumPy's type string: "<f8", "|b1", "<U3", "<M8[ns]", "|O"; "" when structured */
    const char *descr;     /* structured: the field description as an opaque text kept by the array, else NULL */
    int ndim;
    int64_t shape[SAT_ARRAY_MAX_DIMS];
    int64_t strides[SAT_ARRAY_MAX_DIMS]; /* bytes; may be 0 or negative */
    size_t itemsize;
    const uint8_t *data;   /* first element */
    sat_block *block;      /* keeps data alive; borrowed */
    int contiguous;        /* 'C', 'F' or 0 */
} satL_array_view;

/* Pushes an array over slice.data (retaining slice.block; copying when block is NULL). The bytes that shape,
 * strides and itemsize reach are checked against slice.len. On failure pushes nothing and fills err. */
sat_status satL_array_push(lua_State *L, const char *dtype, int ndim, const int64_t *shape, const int64_t *strides,
                           sat_slice bytes, sat_error *err);

/* 1 and fills *view when the value at idx is an array, else 0. Never raises. */
int satL_array_view_of(lua_State *L, int idx, satL_array_view *view);

#endif
