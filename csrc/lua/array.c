/* saturn.array: typed n-dimensional arrays over shared memory. */
#include "array.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/npy.h"

enum {
    OBJECT_SIZE = 8,       /* what an element of an array of objects counts, as in NumPy */
    SHOWN_ELEMENTS = 6,    /* by tostring */
    SHOWN_TEXT = 32,       /* bytes of a string by tostring */
    PRESSURE_BYTES = 4096, /* smaller memory does not concern the collector */
    TABLE_HINT = 1 << 20   /* larger tables grow as they fill */
};

typedef struct satL_array {
    sat_ndarray nd;   /* nd.type NULL: closed. Objects: no base, the list is the user value */
    sat_block *block;
    bool writable;
} satL_array;

static bool holds_objects(const satL_array *a)
{
    return a->nd.type->kind == 'O';
}

/* ---- making ---- */

static satL_array *new_array(lua_State *L)
{
    satL_array *a = lua_newuserdatauv(L, sizeof *a, 1);
    a->nd.type = NULL;
    a->nd.base = NULL;
    a->nd.base_len = 0;
    a->nd.offset = 0;
    a->nd.ndim = 0;
    a->nd.size = 0;
    a->block = NULL;
    a->writable = true;
    luaL_setmetatable(L, SATL_ARRAY);
    return a;
}

/* The collector sees a few hundred bytes of an array, so it is told of the memory behind it. */
static void tell_collector(lua_State *L, size_t bytes)
{
    if (bytes < PRESSURE_BYTES || lua_gc(L, LUA_GCISRUNNING) != 1) return;
    size_t kib = bytes / 1024;
    (void)lua_gc(L, LUA_GCSTEP, kib > INT_MAX / 2048 ? INT_MAX / 2048 : (int)kib);
}

/* Takes the array off the stack again after a failure. */
static sat_status give_up(lua_State *L, sat_status status)
{
    lua_pop(L, 1);
    return status;
}

/* The array is on the stack with its type set. */
static sat_status place(lua_State *L, satL_array *a, size_t offset, int ndim, const int64_t *shape,
                        const int64_t *strides, sat_slice bytes, sat_error *err)
{
    if (a->nd.type->kind == 'O') {
        sat_status status = sat_fail(err, SAT_PROTOCOL, "array: the elements of an array of objects cannot be bytes");
        return give_up(L, status);
    }
    a->nd.base = (uint8_t *)(uintptr_t)bytes.data;
    a->nd.base_len = bytes.len;
    a->nd.offset = offset;
    sat_status status = sat_nd_layout(&a->nd, ndim, shape, strides, err);
    if (status != SAT_OK) return give_up(L, status);
    if (bytes.block != NULL) {
        a->block = sat_block_retain(bytes.block);
    } else {
        a->block = sat_block_new(bytes.len);
        if (a->block == NULL) return give_up(L, sat_fail_nomem(err));
        if (bytes.len > 0) memcpy(a->block->data, bytes.data, bytes.len);
        a->nd.base = a->block->data;
    }
    a->writable = !sat_nd_overlaps(&a->nd);
    tell_collector(L, bytes.len);
    return SAT_OK;
}

sat_status satL_array_push_typed(lua_State *L, sat_dtype *type, size_t offset, int ndim, const int64_t *shape,
                                 const int64_t *strides, sat_slice bytes, sat_error *err)
{
    luaL_checkstack(L, 4, NULL);
    satL_array *a = new_array(L);
    a->nd.type = sat_dtype_retain(type);
    return place(L, a, offset, ndim, shape, strides, bytes, err);
}

sat_status satL_array_push(lua_State *L, const char *dtype, int ndim, const int64_t *shape, const int64_t *strides,
                           sat_slice bytes, sat_error *err)
{
    luaL_checkstack(L, 4, NULL);
    satL_array *a = new_array(L);
    sat_status status = sat_dtype_parse(dtype, strlen(dtype), &a->nd.type, err);
    if (status != SAT_OK) return give_up(L, status);
    return place(L, a, 0, ndim, shape, strides, bytes, err);
}

sat_status satL_array_push_structured(lua_State *L, const satL_array_field *fields, size_t nfields, size_t itemsize,
                                      int ndim, const int64_t *shape, const int64_t *strides, sat_slice bytes,
                                      sat_error *err)
{
    luaL_checkstack(L, 4, NULL);
    satL_array *a = new_array(L);
    sat_status status = sat_dtype_record_begin(itemsize, &a->nd.type, err);
    for (size_t i = 0; status == SAT_OK && i < nfields; i++) {
        sat_dtype *type = NULL;
        status = sat_dtype_parse(fields[i].dtype, strlen(fields[i].dtype), &type, err);
        if (status == SAT_OK)
            status = sat_dtype_record_add(a->nd.type, fields[i].name, fields[i].name_len, fields[i].offset, type,
                                          fields[i].ndim, fields[i].shape, err);
        sat_dtype_release(type);
    }
    if (status == SAT_OK) status = sat_dtype_record_finish(a->nd.type, err);
    if (status != SAT_OK) return give_up(L, status);
    return place(L, a, 0, ndim, shape, strides, bytes, err);
}

sat_status satL_array_push_objects(lua_State *L, int idx, int ndim, const int64_t *shape, const int64_t *strides,
                                   sat_error *err)
{
    luaL_checkstack(L, 4, NULL);
    idx = lua_absindex(L, idx);
    satL_array *a = new_array(L);
    sat_status status = sat_dtype_parse("|O", 2, &a->nd.type, err);
    if (status != SAT_OK) return give_up(L, status);
    if (!lua_istable(L, idx) || !sat_mul((size_t)lua_rawlen(L, idx), OBJECT_SIZE, &a->nd.base_len))
        return give_up(L, sat_fail(err, SAT_MISUSE, "array: objects come as a list"));
    status = sat_nd_layout(&a->nd, ndim, shape, strides, err);
    for (int i = 0; status == SAT_OK && i < ndim; i++) {
        if (a->nd.strides[i] % OBJECT_SIZE != 0) status = sat_fail(err, SAT_PROTOCOL, "array: strides between objects");
    }
    if (status != SAT_OK) return give_up(L, status);
    a->writable = !sat_nd_overlaps(&a->nd);
    lua_pushvalue(L, idx);
    lua_setiuservalue(L, -2, 1);
    return SAT_OK;
}

/* The array is on the stack with its type set: gives it zeroed memory of its own. */
static sat_status allocate(lua_State *L, satL_array *a, int ndim, const int64_t *shape, sat_error *err)
{
    size_t bytes;
    int64_t size;
    sat_status status = sat_nd_measure(a->nd.type, ndim, shape, &size, &bytes, err);
    if (status != SAT_OK) return status;
    uint8_t *data = calloc(bytes > 0 ? bytes : 1, 1);
    if (data == NULL) return sat_fail_nomem(err);
    sat_large_pages(data, bytes);
    a->block = sat_block_adopt(data, bytes, NULL, NULL);
    if (a->block == NULL) {
        free(data);
        return sat_fail_nomem(err);
    }
    a->nd.base = data;
    a->nd.base_len = bytes;
    status = sat_nd_layout(&a->nd, ndim, shape, NULL, err);
    if (status == SAT_OK) tell_collector(L, bytes);
    return status;
}

sat_status satL_array_push_new(lua_State *L, const char *dtype, int ndim, const int64_t *shape, uint8_t **data,
                               sat_error *err)
{
    luaL_checkstack(L, 4, NULL);
    satL_array *a = new_array(L);
    sat_status status = sat_dtype_parse(dtype, strlen(dtype), &a->nd.type, err);
    if (status == SAT_OK && holds_objects(a)) status = sat_fail(err, SAT_MISUSE, "array: objects have no memory");
    if (status == SAT_OK) status = allocate(L, a, ndim, shape, err);
    if (status != SAT_OK) return give_up(L, status);
    if (data != NULL) *data = a->nd.base;
    return SAT_OK;
}

/* ---- from the stack ---- */

static satL_array *to_array(lua_State *L, int idx)
{
    satL_array *a = luaL_testudata(L, idx, SATL_ARRAY);
    return a != NULL && a->nd.type != NULL ? a : NULL;
}

static satL_array *check_array(lua_State *L, int idx)
{
    satL_array *a = luaL_checkudata(L, idx, SATL_ARRAY);
    if (a->nd.type == NULL) luaL_argerror(L, idx, "the array is closed");
    return a;
}

static int raise(lua_State *L, const sat_error *err)
{
    return luaL_error(L, "%s", err->text);
}

void satL_array_set_readonly(lua_State *L, int idx)
{
    satL_array *a = to_array(L, idx);
    if (a != NULL) a->writable = false;
}

int satL_array_view_of(lua_State *L, int idx, satL_array_view *view)
{
    if (!lua_checkstack(L, 2)) return 0;
    satL_array *a = to_array(L, idx);
    if (a == NULL) return 0;
    memcpy(view->dtype, a->nd.type->text, sizeof view->dtype);
    view->descr = a->nd.type->descr;
    view->ndim = a->nd.ndim;
    memcpy(view->shape, a->nd.shape, (size_t)a->nd.ndim * sizeof *view->shape);
    memcpy(view->strides, a->nd.strides, (size_t)a->nd.ndim * sizeof *view->strides);
    view->itemsize = a->nd.type->itemsize;
    view->data = holds_objects(a) ? NULL : a->nd.base + a->nd.offset;
    view->block = a->block;
    view->contiguous = sat_nd_contiguous(&a->nd);
    view->type = a->nd.type;
    view->size = a->nd.size;
    view->nbytes = (size_t)a->nd.size * view->itemsize;
    view->writable = a->writable;
    return 1;
}

/* Pushes the list of an array of objects, nil for others. */
static void push_list_of(lua_State *L, int idx)
{
    lua_getiuservalue(L, idx, 1);
}

/* Pushes a second array over the same memory. */
static satL_array *push_view(lua_State *L, int idx)
{
    idx = lua_absindex(L, idx);
    satL_array *a = lua_touserdata(L, idx);
    satL_array *view = new_array(L);
    view->nd = a->nd;
    sat_dtype_retain(view->nd.type);
    view->block = sat_block_retain(a->block);
    view->writable = a->writable;
    if (holds_objects(a)) {
        push_list_of(L, idx);
        lua_setiuservalue(L, -2, 1);
    }
    return view;
}

/* A type in an argument: a type string, a NumPy name or a list of fields. Parsed into *out, which must lie in a
 * userdata, so that nothing is lost when this raises. */
static void check_dtype(lua_State *L, int idx, sat_dtype **out)
{
    size_t len;
    sat_error err;
    const char *text = luaL_checklstring(L, idx, &len);
    if (sat_dtype_parse(text, len, out, &err) != SAT_OK) luaL_argerror(L, idx, err.text);
}

/* A shape in an argument: an integer or a list of them. */
static int check_shape(lua_State *L, int idx, int64_t shape[SAT_ND_MAX_DIMS])
{
    if (lua_isinteger(L, idx) || lua_type(L, idx) == LUA_TNUMBER) {
        shape[0] = luaL_checkinteger(L, idx);
        return 1;
    }
    luaL_checktype(L, idx, LUA_TTABLE);
    lua_Unsigned n = lua_rawlen(L, idx);
    luaL_argcheck(L, n <= SAT_ND_MAX_DIMS, idx, "too many dimensions");
    for (int i = 0; i < (int)n; i++) {
        int whole;
        lua_rawgeti(L, idx, i + 1);
        shape[i] = lua_tointegerx(L, -1, &whole);
        luaL_argcheck(L, whole && lua_type(L, -1) == LUA_TNUMBER, idx, "a shape is a list of integers");
        lua_pop(L, 1);
    }
    return (int)n;
}

/* ---- elements to Lua ---- */

static void push_item(lua_State *L, const sat_ndarray *nd, size_t offset, int list);

static int table_hint(uint64_t n)
{
    return n > TABLE_HINT ? TABLE_HINT : (int)n;
}

static void push_text(lua_State *L, const sat_dtype *type, const uint8_t *p)
{
    size_t n = sat_text_len(type, p);
    if (type->kind == 'S') {
        lua_pushlstring(L, (const char *)p, n);
        return;
    }
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        size_t len = sat_utf8_encode(sat_text_at(type, p, i), bytes);
        if (len == 0) luaL_error(L, "an element of a %s array is not Unicode text", type->text + 1);
        luaL_addlstring(&out, bytes, len);
    }
    luaL_pushresult(&out);
}

/* Nested tables of the dimensions from dim on. */
static void push_nested(lua_State *L, const sat_ndarray *nd, int dim, size_t offset, int list)
{
    if (dim == nd->ndim) {
        push_item(L, nd, offset, list);
        return;
    }
    luaL_checkstack(L, 8, "array of too many dimensions");
    lua_createtable(L, table_hint((uint64_t)nd->shape[dim]), 0);
    for (int64_t i = 0; i < nd->shape[dim]; i++) {
        push_nested(L, nd, dim + 1, offset, list);
        lua_rawseti(L, -2, i + 1);
        offset += (size_t)nd->strides[dim];
    }
}

static void push_record(lua_State *L, const sat_ndarray *nd, size_t offset)
{
    const sat_dtype *type = nd->type;
    luaL_checkstack(L, 8, "record nested too deep");
    lua_createtable(L, 0, table_hint(type->nfields));
    for (size_t i = 0; i < type->nfields; i++) {
        const sat_field *field = &type->fields[i];
        sat_ndarray part = {.type = field->type, .base = nd->base, .ndim = field->ndim};
        if (field->ndim > 0) {
            memcpy(part.shape, field->shape, (size_t)field->ndim * sizeof *part.shape);
            sat_nd_dense_strides(field->ndim, field->shape, field->type->itemsize, false, part.strides);
        }
        lua_pushlstring(L, field->name, field->name_len);
        push_nested(L, &part, 0, offset + field->offset, 0);
        lua_rawset(L, -3);
    }
}

static void push_cell(lua_State *L, const sat_cell *cell)
{
    switch (cell->kind) {
    case 'b': lua_pushboolean(L, cell->i != 0); break;
    case 'i': lua_pushinteger(L, (lua_Integer)cell->i); break;
    case 'u': lua_pushinteger(L, (lua_Integer)cell->u); break; /* the same 64 bits */
    case 'f': lua_pushnumber(L, (lua_Number)cell->f); break;
    default:
        lua_createtable(L, 0, 2);
        lua_pushnumber(L, (lua_Number)cell->f);
        lua_setfield(L, -2, "re");
        lua_pushnumber(L, (lua_Number)cell->im);
        lua_setfield(L, -2, "im");
        luaL_setmetatable(L, "saturn.py.complex"); /* a value as the pickle codec makes it */
    }
}

/* list: stack index of an array of objects' list. */
static void push_item(lua_State *L, const sat_ndarray *nd, size_t offset, int list)
{
    const sat_dtype *type = nd->type;
    const uint8_t *p = nd->base != NULL ? nd->base + offset : NULL; /* objects have none */
    sat_cell cell;
    sat_error err;
    switch (type->kind) {
    case 'O': lua_rawgeti(L, list, (lua_Integer)(offset / OBJECT_SIZE) + 1); return;
    case 'S':
    case 'U': push_text(L, type, p); return;
    case 'V':
        if (sat_dtype_is_record(type))
            push_record(L, nd, offset);
        else
            lua_pushlstring(L, (const char *)p, type->itemsize);
        return;
    default: break;
    }
    if (sat_cell_load(type, p, &cell, &err) != SAT_OK) raise(L, &err);
    push_cell(L, &cell);
}

/* ---- elements from Lua ---- */

static void set_item(lua_State *L, const sat_ndarray *nd, size_t offset, int list, int value);

static int wrong_type(lua_State *L, const sat_dtype *type, int value)
{
    char name[SAT_DTYPE_TEXT];
    sat_dtype_name(type, name, sizeof name);
    return luaL_error(L, "%s does not go into an array of %s", luaL_typename(L, value), name);
}

static double complex_part(lua_State *L, int value, const char *name, const sat_dtype *type)
{
    lua_pushstring(L, name);
    lua_rawget(L, value);
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "a complex number for %s is {re=, im=}", type->text + 1);
    double part = (double)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return part;
}

static void to_cell(lua_State *L, const sat_dtype *type, int value, sat_cell *cell)
{
    *cell = (sat_cell){.kind = 'i'};
    switch (lua_type(L, value)) {
    case LUA_TBOOLEAN:
        cell->kind = 'b';
        cell->i = lua_toboolean(L, value);
        return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, value)) {
            cell->i = (int64_t)lua_tointeger(L, value);
        } else {
            cell->kind = 'f';
            cell->f = (double)lua_tonumber(L, value);
        }
        return;
    case LUA_TTABLE:
        if (type->kind == 'c') {
            cell->kind = 'c';
            cell->f = complex_part(L, value, "re", type);
            cell->im = complex_part(L, value, "im", type);
            return;
        }
        break;
    default: break;
    }
    wrong_type(L, type, value);
}

/* A nested table of exactly the shape of nd's dimensions from dim on. */
static void set_nested(lua_State *L, const sat_ndarray *nd, int dim, size_t offset, int list, int value)
{
    if (dim == nd->ndim) {
        set_item(L, nd, offset, list, value);
        return;
    }
    luaL_checkstack(L, 8, "table nested too deep");
    if (lua_type(L, value) != LUA_TTABLE || lua_rawlen(L, value) != (lua_Unsigned)nd->shape[dim])
        luaL_error(L, "the table is not regular: a list of %I elements is needed at level %d",
                   (LUAI_UACINT)nd->shape[dim], dim + 1);
    for (int64_t i = 0; i < nd->shape[dim]; i++) {
        lua_rawgeti(L, value, i + 1);
        set_nested(L, nd, dim + 1, offset, list, lua_gettop(L));
        lua_pop(L, 1);
        offset += (size_t)nd->strides[dim];
    }
}

/* Sets the fields that the table names. */
static void set_record(lua_State *L, const sat_ndarray *nd, size_t offset, int value)
{
    luaL_checkstack(L, 8, "record nested too deep");
    if (lua_type(L, value) != LUA_TTABLE)
        luaL_error(L, "a record is a table of its fields, not %s", luaL_typename(L, value));
    for (lua_pushnil(L); lua_next(L, value); lua_pop(L, 1)) {
        size_t len = 0;
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &len) : NULL;
        const sat_field *field = name != NULL ? sat_dtype_field(nd->type, name, len) : NULL;
        if (field == NULL) {
            luaL_error(L, "the record has no field '%s'", name != NULL ? name : luaL_typename(L, -2));
            return;
        }
        sat_ndarray part = {.type = field->type, .base = nd->base, .ndim = field->ndim};
        if (field->ndim > 0) {
            memcpy(part.shape, field->shape, (size_t)field->ndim * sizeof *part.shape);
            sat_nd_dense_strides(field->ndim, field->shape, field->type->itemsize, false, part.strides);
        }
        set_nested(L, &part, 0, offset + field->offset, 0, lua_gettop(L));
    }
}

static void set_item(lua_State *L, const sat_ndarray *nd, size_t offset, int list, int value)
{
    const sat_dtype *type = nd->type;
    uint8_t *p = nd->base != NULL ? nd->base + offset : NULL; /* objects have none */
    sat_status status = SAT_OK;
    sat_error err;
    sat_cell cell;
    size_t len;
    const char *text;
    switch (type->kind) {
    case 'O':
        if (lua_isnil(L, value)) luaL_error(L, "nil does not go into an array of objects; saturn.null does");
        lua_pushvalue(L, value);
        lua_rawseti(L, list, (lua_Integer)(offset / OBJECT_SIZE) + 1);
        return;
    case 'S':
    case 'U':
        if (lua_type(L, value) != LUA_TSTRING) wrong_type(L, type, value);
        text = lua_tolstring(L, value, &len);
        status = sat_text_store(type, p, text, len, &err);
        break;
    case 'V':
        if (sat_dtype_is_record(type)) {
            set_record(L, nd, offset, value);
            return;
        }
        if (lua_type(L, value) != LUA_TSTRING) wrong_type(L, type, value);
        text = lua_tolstring(L, value, &len);
        if (len != type->itemsize) luaL_error(L, "a string of exactly %d bytes is needed", (int)type->itemsize);
        memcpy(p, text, len);
        break;
    default:
        to_cell(L, type, value, &cell);
        status = sat_cell_store(type, p, &cell, false, &err);
    }
    if (status != SAT_OK) raise(L, &err);
}

/* ---- constructors ---- */

/* What the leaves of a table are, to choose a type for them. */
typedef struct leaves {
    bool booleans, integers, floats, complexes, strings, not_utf8;
    size_t bytes, chars; /* of the longest string */
} leaves;

/* True for a table that is a dimension, not an element. */
static bool is_list(lua_State *L, int idx)
{
    if (lua_type(L, idx) != LUA_TTABLE) return false;
    if (lua_rawlen(L, idx) > 0) return true;
    lua_pushnil(L);
    if (lua_next(L, idx) == 0) return true; /* {} */
    lua_pop(L, 2);
    return false;
}

/* The shape by the first element of each level; pushes nothing. */
static int find_shape(lua_State *L, int idx, int most, int64_t shape[SAT_ND_MAX_DIMS])
{
    int ndim = 0;
    int top = lua_gettop(L);
    lua_pushvalue(L, idx);
    while (is_list(L, lua_gettop(L)) && ndim < most) {
        if (ndim == SAT_ND_MAX_DIMS) luaL_error(L, "a table nested deeper than %d levels", (int)SAT_ND_MAX_DIMS);
        luaL_checkstack(L, 4, NULL);
        shape[ndim] = (int64_t)lua_rawlen(L, -1);
        if (shape[ndim++] == 0) break;
        lua_rawgeti(L, -1, 1);
    }
    lua_settop(L, top);
    return ndim;
}

static void look_at(lua_State *L, int value, int depth, leaves *seen)
{
    size_t len;
    switch (lua_type(L, value)) {
    case LUA_TBOOLEAN: seen->booleans = true; return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, value))
            seen->integers = true;
        else
            seen->floats = true;
        return;
    case LUA_TSTRING: {
        const char *text = lua_tolstring(L, value, &len);
        size_t chars = 0;
        seen->strings = true;
        if (len > seen->bytes) seen->bytes = len;
        for (size_t at = 0; at < len && !seen->not_utf8; chars++) {
            uint32_t code;
            size_t n = sat_utf8_decode((const uint8_t *)text + at, len - at, &code);
            if (n == 0) seen->not_utf8 = true;
            at += n;
        }
        if (chars > seen->chars) seen->chars = chars;
        return;
    }
    case LUA_TTABLE:
        lua_pushliteral(L, "re");
        lua_rawget(L, value);
        if (!lua_isnil(L, -1)) {
            lua_pop(L, 1);
            seen->complexes = true;
            return;
        }
        lua_pop(L, 1);
        luaL_checkstack(L, 6, "table nested too deep");
        if (depth >= SAT_ND_MAX_DIMS) luaL_error(L, "a table nested deeper than %d levels", (int)SAT_ND_MAX_DIMS);
        if (lua_rawlen(L, value) > 0 || is_list(L, value)) {
            for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, value); i <= n; i++) {
                lua_rawgeti(L, value, i);
                look_at(L, lua_gettop(L), depth + 1, seen);
                lua_pop(L, 1);
            }
            return;
        }
        break;
    default: break;
    }
    luaL_error(L, "no array type for %s; give one with {dtype=}", luaL_typename(L, value));
}

static void text_dtype(lua_State *L, char kind, const leaves *seen, char out[32])
{
    size_t n = kind == 'U' ? seen->chars : seen->bytes;
    if (kind == 'U' && seen->not_utf8) luaL_error(L, "a string is not UTF-8; use dtype 'S'");
    (void)snprintf(out, 32, "%c%zu", kind, n > 0 ? n : 1);
}

static void choose_dtype(lua_State *L, const leaves *seen, char out[32])
{
    bool numbers = seen->integers || seen->floats || seen->complexes;
    if (seen->strings && !numbers && !seen->booleans)
        text_dtype(L, seen->not_utf8 ? 'S' : 'U', seen, out);
    else if (seen->strings || (seen->booleans && numbers))
        luaL_error(L, "the elements are of several types; give the one to use with {dtype=}");
    else
        (void)snprintf(out, 32, "%s",
                       seen->complexes  ? "c16"
                       : seen->floats   ? "f8"
                       : seen->booleans ? "b1"
                       : seen->integers ? "i8"
                                        : "f8");
}

/* Pushes an array of objects over a new list of `size` slots holding the value on top of the stack, which it
 * replaces. */
static void push_object_array(lua_State *L, int ndim, const int64_t *shape, int64_t size)
{
    sat_error err;
    int value = lua_gettop(L);
    lua_createtable(L, table_hint((uint64_t)size), 0);
    for (int64_t i = 1; i <= size; i++) {
        lua_pushvalue(L, value);
        lua_rawseti(L, -2, i);
    }
    if (satL_array_push_objects(L, -1, ndim, shape, NULL, &err) != SAT_OK) raise(L, &err);
    lua_replace(L, value);
    lua_settop(L, value);
}

static int array_astype(lua_State *L);

/* array(source, dtype or {dtype=, shape=}): a table, a number, a string, a boolean, or an array to copy. */
static int make(lua_State *L, int source, int options)
{
    int64_t shape[SAT_ND_MAX_DIMS];
    int64_t wanted[SAT_ND_MAX_DIMS];
    int wanted_ndim = -1;
    const char *dtype = NULL;
    size_t dtype_len = 0;
    leaves seen = {0};
    char chosen[32];
    sat_error err;

    luaL_checkany(L, source);
    lua_settop(L, options);
    if (lua_type(L, options) == LUA_TSTRING) {
        dtype = lua_tolstring(L, options, &dtype_len);
    } else if (!lua_isnil(L, options)) {
        luaL_checktype(L, options, LUA_TTABLE);
        for (lua_pushnil(L); lua_next(L, options); lua_pop(L, 1)) {
            const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
            if (strcmp(name, "dtype") == 0) {
                if (lua_type(L, -1) != LUA_TSTRING)
                    luaL_error(L, "option 'dtype' must be string, not %s", luaL_typename(L, -1));
                dtype = lua_tolstring(L, -1, &dtype_len); /* the options keep it */
            } else if (strcmp(name, "shape") == 0) {
                wanted_ndim = check_shape(L, lua_gettop(L), wanted);
            } else {
                luaL_error(L, "unknown option '%s': did you mean '%s'?", name, name[0] == 's' ? "shape" : "dtype");
            }
        }
    }
    if (luaL_testudata(L, source, SATL_ARRAY) != NULL) {
        lua_pushcfunction(L, array_astype);
        lua_pushvalue(L, source);
        if (dtype != NULL)
            lua_pushlstring(L, dtype, dtype_len);
        else
            lua_pushstring(L, sat_dtype_str(check_array(L, source)->nd.type));
        lua_call(L, 2, 1);
    } else {
        satL_array *a = new_array(L);
        int self = lua_gettop(L);
        if (dtype != NULL && sat_dtype_parse(dtype, dtype_len, &a->nd.type, &err) != SAT_OK) return raise(L, &err);
        bool texts = a->nd.type != NULL && (a->nd.type->kind == 'S' || a->nd.type->kind == 'U') &&
            a->nd.type->itemsize == 0;
        if (a->nd.type == NULL || texts) {
            look_at(L, source, 0, &seen);
            if (texts)
                text_dtype(L, a->nd.type->kind, &seen, chosen);
            else
                choose_dtype(L, &seen, chosen);
            sat_dtype_release(a->nd.type);
            a->nd.type = NULL;
            if (sat_dtype_parse(chosen, strlen(chosen), &a->nd.type, &err) != SAT_OK) return raise(L, &err);
        }
        int ndim = find_shape(L, source, holds_objects(a) ? 1 : SAT_ND_MAX_DIMS + 1, shape);
        if (holds_objects(a)) {
            int64_t size = ndim == 0 ? 1 : shape[0];
            lua_pushboolean(L, 0);
            push_object_array(L, ndim, shape, size);
            a = lua_touserdata(L, -1);
            self = lua_gettop(L);
        } else if (allocate(L, a, ndim, shape, &err) != SAT_OK) {
            return raise(L, &err);
        }
        push_list_of(L, self);
        set_nested(L, &a->nd, 0, 0, lua_gettop(L), source);
        lua_settop(L, self);
    }
    if (wanted_ndim >= 0) {
        satL_array *a = lua_touserdata(L, -1);
        int64_t size;
        size_t bytes;
        if (sat_nd_measure(a->nd.type, wanted_ndim, wanted, &size, &bytes, &err) != SAT_OK) return raise(L, &err);
        if (size != a->nd.size)
            return luaL_error(L, "%I elements do not fill the shape, which has %I", (LUAI_UACINT)a->nd.size,
                              (LUAI_UACINT)size);
        if (sat_nd_layout(&a->nd, wanted_ndim, wanted, NULL, &err) != SAT_OK) return raise(L, &err);
    }
    return 1;
}

static int array_new(lua_State *L)
{
    return make(L, 1, 2);
}

/* __call of the module's table */
static int array_call(lua_State *L)
{
    return make(L, 2, 3);
}

/* zeros(shape, dtype?) */
static int array_zeros(lua_State *L)
{
    int64_t shape[SAT_ND_MAX_DIMS];
    sat_error err;
    int ndim = check_shape(L, 1, shape);
    if (lua_isnoneornil(L, 2)) {
        lua_settop(L, 1);
        lua_pushliteral(L, "<f8");
    }
    satL_array *a = new_array(L);
    check_dtype(L, 2, &a->nd.type);
    if (holds_objects(a)) {
        int64_t size;
        size_t bytes;
        if (sat_nd_measure(a->nd.type, ndim, shape, &size, &bytes, &err) != SAT_OK) return raise(L, &err);
        lua_pushinteger(L, 0);
        push_object_array(L, ndim, shape, size);
    } else if (allocate(L, a, ndim, shape, &err) != SAT_OK) {
        return raise(L, &err);
    }
    return 1;
}

/* from_string(bytes, dtype, shape?) */
static int array_from_string(lua_State *L)
{
    int64_t shape[SAT_ND_MAX_DIMS];
    int ndim = 1;
    size_t len;
    sat_error err;
    const char *bytes = luaL_checklstring(L, 1, &len);
    lua_settop(L, 3);
    satL_array *a = new_array(L);
    int self = lua_gettop(L);
    check_dtype(L, 2, &a->nd.type);
    if (holds_objects(a)) return luaL_argerror(L, 2, "objects are not bytes");
    if (!lua_isnil(L, 3)) {
        ndim = check_shape(L, 3, shape);
        int64_t size;
        size_t need;
        if (sat_nd_measure(a->nd.type, ndim, shape, &size, &need, &err) != SAT_OK) return raise(L, &err);
        if (need != len)
            return luaL_error(L, "the shape needs %I bytes, there are %I", (LUAI_UACINT)need, (LUAI_UACINT)len);
    } else {
        size_t item = a->nd.type->itemsize;
        if (item == 0 || len % item != 0)
            return luaL_error(L, "%I bytes are no whole number of elements of %I bytes", (LUAI_UACINT)len,
                              (LUAI_UACINT)item);
        shape[0] = (int64_t)(len / item);
    }
    if (allocate(L, a, ndim, shape, &err) != SAT_OK) return raise(L, &err);
    if (len > 0) memcpy(a->nd.base, bytes, len);
    lua_settop(L, self);
    return 1;
}

/* ---- files: nil, kind, message on failure ---- */

static int push_file_array(lua_State *L, satL_array *a, sat_error *err)
{
    sat_npy npy;
    int64_t strides[SAT_ND_MAX_DIMS];
    if (sat_npy_parse(a->block->data, a->block->len, &npy, err) != SAT_OK) return satL_fail(L, err);
    a->nd.type = npy.type;
    a->nd.base = a->block->data;
    a->nd.base_len = a->block->len;
    a->nd.offset = npy.data;
    int64_t size;
    size_t bytes;
    sat_status status = sat_nd_measure(npy.type, npy.ndim, npy.shape, &size, &bytes, err);
    if (status == SAT_OK) {
        sat_nd_dense_strides(npy.ndim, npy.shape, npy.type->itemsize, npy.fortran, strides);
        status = sat_nd_layout(&a->nd, npy.ndim, npy.shape, strides, err);
    }
    if (status != SAT_OK) return satL_fail(L, err);
    return 1;
}

/* load_npy(path) */
static int array_load_npy(lua_State *L)
{
    sat_error err;
    const char *path = luaL_checkstring(L, 1);
    satL_array *a = new_array(L);
    if (sat_file_read(path, &a->block, &err) != SAT_OK) return satL_fail(L, &err);
    tell_collector(L, a->block->len);
    return push_file_array(L, a, &err);
}

/* save_npy(path, array): true */
static int array_save_npy(lua_State *L)
{
    sat_error err;
    const char *path = luaL_checkstring(L, 1);
    satL_array *a = check_array(L, 2);
    if (sat_npy_save(path, &a->nd, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* open(path, dtype or nil, shape or nil, offset, mode): maps the file; mode is "r", "r+" or "c" */
static int array_open(lua_State *L)
{
    static const char *const MODES[] = {"r", "r+", "c", NULL};
    static const char LETTERS[] = {'r', '+', 'c'};
    int64_t shape[SAT_ND_MAX_DIMS];
    int ndim = -1;
    sat_error err;
    const char *path = luaL_checkstring(L, 1);
    lua_settop(L, 5);
    bool typed = !lua_isnoneornil(L, 2);
    bool shaped = !lua_isnoneornil(L, 3);
    lua_Integer offset = luaL_optinteger(L, 4, 0);
    int mode = luaL_checkoption(L, 5, "r", MODES);
    if (shaped) ndim = check_shape(L, 3, shape);
    luaL_argcheck(L, offset >= 0, 4, "a negative offset");

    satL_array *a = new_array(L);
    if (sat_file_map(path, LETTERS[mode], &a->block, &err) != SAT_OK) return satL_fail(L, &err);
    a->writable = mode != 0;
    if (!typed && offset == 0 && sat_npy_is(a->block->data, a->block->len)) {
        if (shaped) return luaL_argerror(L, 3, "an .npy file has its own shape");
        return push_file_array(L, a, &err);
    }
    if (typed)
        check_dtype(L, 2, &a->nd.type);
    else if (sat_dtype_parse("|u1", 3, &a->nd.type, &err) != SAT_OK)
        return raise(L, &err);
    if (holds_objects(a)) return luaL_argerror(L, 2, "objects are not bytes");
    a->nd.base = a->block->data;
    a->nd.base_len = a->block->len;
    if ((uint64_t)offset > a->nd.base_len) {
        (void)sat_fail(&err, SAT_VALUE, "the file is shorter than the offset");
        return satL_fail(L, &err);
    }
    a->nd.offset = (size_t)offset;
    if (!shaped) {
        size_t rest = a->nd.base_len - a->nd.offset;
        size_t item = a->nd.type->itemsize;
        if (item == 0 || rest % item != 0) {
            (void)sat_fail(&err, SAT_VALUE, "the %zu bytes of the file are no whole number of elements of %zu bytes",
                           rest, item);
            return satL_fail(L, &err);
        }
        ndim = 1;
        shape[0] = (int64_t)(rest / item);
    }
    if (sat_nd_layout(&a->nd, ndim, shape, NULL, &err) != SAT_OK) return satL_fail(L, &err);
    return 1;
}

/* is(value) */
static int array_is(lua_State *L)
{
    lua_pushboolean(L, luaL_testudata(L, 1, SATL_ARRAY) != NULL);
    return 1;
}

/* ---- access ---- */

/* 1-based, negative from the end, to 0-based; raises when out of range. */
static int64_t check_index(lua_State *L, int arg, int64_t n)
{
    lua_Integer i = luaL_checkinteger(L, arg);
    if (i < 0) i += n + 1;
    if (i < 1 || i > n) luaL_argerror(L, arg, "index out of range");
    return (int64_t)i - 1;
}

/* Byte offset of the element that the arguments from `first` on name. */
static size_t check_position(lua_State *L, const satL_array *a, int first)
{
    int given = lua_gettop(L) - first + 1;
    size_t offset = a->nd.offset;
    if (given != a->nd.ndim)
        luaL_error(L, "%d indices for an array of %d dimensions", given > 0 ? given : 0, a->nd.ndim);
    for (int i = 0; i < a->nd.ndim; i++)
        offset += (size_t)check_index(L, first + i, a->nd.shape[i]) * (size_t)a->nd.strides[i];
    return offset;
}

static void check_writable(lua_State *L, const satL_array *a)
{
    if (!a->writable) luaL_error(L, "the array is read-only; a:copy() is not");
}

/* a:get(i, j, ...) */
static int array_get(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    size_t offset = check_position(L, a, 2);
    if (holds_objects(a)) push_list_of(L, 1);
    push_item(L, &a->nd, offset, lua_gettop(L));
    return 1;
}

/* a:set(value, i, j, ...) */
static int array_set(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    luaL_checkany(L, 2);
    check_writable(L, a);
    size_t offset = check_position(L, a, 3);
    if (holds_objects(a)) push_list_of(L, 1);
    set_item(L, &a->nd, offset, lua_gettop(L), 2);
    lua_settop(L, 1);
    return 1;
}

/* a:fill(value) */
static int array_fill(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    luaL_checkany(L, 2);
    check_writable(L, a);
    lua_settop(L, 2);
    if (a->nd.size == 0) {
        lua_settop(L, 1);
        return 1;
    }
    push_list_of(L, 1);
    set_item(L, &a->nd, a->nd.offset, 3, 2);
    if (holds_objects(a)) {
        sat_nd_walk walk;
        size_t offset;
        sat_nd_walk_begin(&walk, &a->nd, true);
        while (sat_nd_walk_next(&walk, 1, &offset) > 0) set_item(L, &a->nd, offset, 3, 2);
    } else {
        size_t size = a->nd.type->itemsize;
        uint8_t *item = lua_newuserdatauv(L, size > 0 ? size : 1, 0);
        if (size > 0) memcpy(item, a->nd.base + a->nd.offset, size);
        sat_nd_fill(&a->nd, item);
    }
    lua_settop(L, 1);
    return 1;
}

/* Pushes element or row i (1-based), nil when there is none. */
static int push_at(lua_State *L, satL_array *a, lua_Integer i)
{
    if (a->nd.ndim == 0 || i < 1 || i > a->nd.shape[0]) {
        lua_pushnil(L);
        return 1;
    }
    if (a->nd.ndim > 1) {
        satL_array *row = push_view(L, 1);
        sat_nd_pick(&row->nd, 0, (int64_t)i - 1);
        return 1;
    }
    if (holds_objects(a)) push_list_of(L, 1);
    push_item(L, &a->nd, a->nd.offset + (size_t)(i - 1) * (size_t)a->nd.strides[0], lua_gettop(L));
    return 1;
}

static void push_ints(lua_State *L, int n, const int64_t *values)
{
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushinteger(L, (lua_Integer)values[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

static void push_fields(lua_State *L, const sat_dtype *type)
{
    lua_createtable(L, table_hint(type->nfields), 0);
    for (size_t i = 0; i < type->nfields; i++) {
        const sat_field *field = &type->fields[i];
        lua_createtable(L, 0, 4);
        lua_pushlstring(L, field->name, field->name_len);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, sat_dtype_str(field->type));
        lua_setfield(L, -2, "dtype");
        lua_pushinteger(L, (lua_Integer)field->offset);
        lua_setfield(L, -2, "offset");
        push_ints(L, field->ndim, field->shape);
        lua_setfield(L, -2, "shape");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

typedef enum property {
    P_SHAPE, P_DTYPE, P_STRIDES, P_NDIM, P_SIZE, P_NBYTES, P_ITEMSIZE, P_TYPENAME, P_UNIT, P_FIELDS, P_WRITABLE,
    P_CONTIGUOUS
} property;

static const char *const PROPERTIES[] = {"shape",    "dtype", "strides", "ndim",     "size",       "nbytes", "itemsize",
                                         "typename", "unit",  "fields",  "writable", "contiguous", NULL};

static void push_property(lua_State *L, const satL_array *a, property which)
{
    char name[SAT_DTYPE_TEXT];
    int order;
    switch (which) {
    case P_SHAPE: push_ints(L, a->nd.ndim, a->nd.shape); break;
    case P_STRIDES: push_ints(L, a->nd.ndim, a->nd.strides); break;
    case P_DTYPE: lua_pushstring(L, sat_dtype_str(a->nd.type)); break;
    case P_NDIM: lua_pushinteger(L, a->nd.ndim); break;
    case P_SIZE: lua_pushinteger(L, (lua_Integer)a->nd.size); break;
    case P_NBYTES: lua_pushinteger(L, (lua_Integer)((size_t)a->nd.size * a->nd.type->itemsize)); break;
    case P_ITEMSIZE: lua_pushinteger(L, (lua_Integer)a->nd.type->itemsize); break;
    case P_TYPENAME:
        sat_dtype_name(a->nd.type, name, sizeof name);
        lua_pushstring(L, name);
        break;
    case P_UNIT:
        if (a->nd.type->kind == 'M' || a->nd.type->kind == 'm')
            lua_pushstring(L, a->nd.type->unit[0] != '\0' ? a->nd.type->unit : "generic");
        else
            lua_pushnil(L);
        break;
    case P_FIELDS:
        if (sat_dtype_is_record(a->nd.type))
            push_fields(L, a->nd.type);
        else
            lua_pushnil(L);
        break;
    case P_WRITABLE: lua_pushboolean(L, a->writable); break;
    case P_CONTIGUOUS:
        order = sat_nd_contiguous(&a->nd);
        if (order != 0)
            lua_pushstring(L, order == 'C' ? "C" : "F");
        else
            lua_pushboolean(L, 0);
        break;
    }
}

/* check_array(L, 1) without looking the metatable up by its name: it is the upvalue. */
static satL_array *check_self(lua_State *L, int metatable)
{
    if (lua_getmetatable(L, 1)) {
        bool ours = lua_rawequal(L, -1, metatable) != 0;
        lua_pop(L, 1);
        satL_array *a = ours ? lua_touserdata(L, 1) : NULL;
        if (a != NULL && a->nd.type != NULL) return a;
    }
    return check_array(L, 1);
}

/* __index: upvalue 1 methods, upvalue 2 property numbers by name, upvalue 3 the metatable */
static int array_index(lua_State *L)
{
    if (lua_type(L, 2) == LUA_TNUMBER) {
        int whole;
        lua_Integer i = lua_tointegerx(L, 2, &whole);
        satL_array *a = check_self(L, lua_upvalueindex(3));
        if (!whole) i = 0;
        return push_at(L, a, i);
    }
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNUMBER)
        push_property(L, check_array(L, 1), (property)lua_tointeger(L, -1));
    return 1;
}

static int array_newindex(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    if (lua_type(L, 2) != LUA_TNUMBER) return luaL_error(L, "an array has no field that can be set");
    if (a->nd.ndim != 1)
        return luaL_error(L, "an array of %d dimensions is set by a:set(value, i, j, ...)", a->nd.ndim);
    check_writable(L, a);
    lua_Integer i = luaL_checkinteger(L, 2);
    if (i < 1 || i > a->nd.shape[0]) return luaL_argerror(L, 2, "index out of range");
    push_list_of(L, 1);
    set_item(L, &a->nd, a->nd.offset + (size_t)(i - 1) * (size_t)a->nd.strides[0], 4, 3);
    return 0;
}

static int array_len(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    if (a->nd.ndim == 0) return luaL_error(L, "an array of 0 dimensions has no length; a:get() is its element");
    lua_pushinteger(L, (lua_Integer)a->nd.shape[0]);
    return 1;
}

static int array_next(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    lua_Integer i = luaL_optinteger(L, 2, 0) + 1;
    if (a->nd.ndim == 0 || i < 1 || i > a->nd.shape[0]) {
        lua_pushnil(L);
        return 1;
    }
    lua_settop(L, 1);
    lua_pushinteger(L, i);
    push_at(L, a, i);
    return 2;
}

/* __pairs: the elements or rows by number */
static int array_pairs(lua_State *L)
{
    check_array(L, 1);
    lua_pushcfunction(L, array_next);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    return 3;
}

/* ---- views ---- */

static bool optional_int(lua_State *L, int arg, int idx, int n, int64_t *out)
{
    int whole;
    int kind = lua_rawgeti(L, idx, n);
    if (kind != LUA_TNIL) {
        *out = (int64_t)lua_tointegerx(L, -1, &whole);
        if (kind != LUA_TNUMBER || !whole) luaL_argerror(L, arg, "a slice is {first, last, step}, of integers");
    }
    lua_pop(L, 1);
    return kind != LUA_TNIL;
}

static void slice_dimension(lua_State *L, int arg, sat_ndarray *nd, int dim)
{
    int64_t n = nd->shape[dim];
    int64_t first, last, step = 1;
    (void)optional_int(L, arg, arg, 3, &step);
    luaL_argcheck(L, step != 0, arg, "a step of 0");
    if (!optional_int(L, arg, arg, 1, &first)) first = step > 0 ? 1 : n;
    if (!optional_int(L, arg, arg, 2, &last)) last = step > 0 ? n : 1;
    /* from the end, then cut to what is there, as string.sub does */
    if (first < 0) first = first < -n ? (step > 0 ? 1 : 0) : first + n + 1;
    if (last < 0) last = last < -n ? (step > 0 ? 0 : 1) : last + n + 1;
    if (step > 0) {
        if (first < 1) first = 1;
        if (last > n) last = n;
    } else {
        if (first > n) first = n;
        if (last < 1) last = 1;
    }
    int64_t count = 0;
    if (step > 0 && first <= last) count = (last - first) / step + 1;
    if (step < 0 && first >= last) count = (int64_t)((uint64_t)(first - last) / (0 - (uint64_t)step)) + 1;
    sat_nd_slice(nd, dim, first - 1, count, step);
}

/* a:slice(...): for each dimension nil (all), an integer (that one, and the dimension goes), or {first, last, step} */
static int array_slice(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    int given = lua_gettop(L) - 1;
    if (given > a->nd.ndim) return luaL_error(L, "%d slices for an array of %d dimensions", given, a->nd.ndim);
    satL_array *view = push_view(L, 1);
    int dim = 0;
    for (int arg = 2; arg <= given + 1; arg++) {
        if (lua_type(L, arg) == LUA_TNUMBER) {
            sat_nd_pick(&view->nd, dim, check_index(L, arg, view->nd.shape[dim]));
            continue;
        }
        if (!lua_isnil(L, arg)) {
            luaL_checktype(L, arg, LUA_TTABLE);
            slice_dimension(L, arg, &view->nd, dim);
        }
        dim++;
    }
    return 1;
}

/* a:transpose() or a:transpose(2, 1, 3) */
static int array_transpose(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    int order[SAT_ND_MAX_DIMS];
    bool used[SAT_ND_MAX_DIMS] = {false};
    int given = lua_gettop(L) - 1;
    if (given > 0 && given != a->nd.ndim) return luaL_error(L, "%d dimensions for an array of %d", given, a->nd.ndim);
    for (int i = 0; i < a->nd.ndim; i++) {
        order[i] = given > 0 ? (int)check_index(L, i + 2, a->nd.ndim) : a->nd.ndim - 1 - i;
        if (used[order[i]]) return luaL_argerror(L, i + 2, "a dimension comes twice");
        used[order[i]] = true;
    }
    sat_nd_permute(&push_view(L, 1)->nd, order);
    return 1;
}

/* a:field(name): the column of that field */
static int array_field(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    size_t len;
    sat_error err;
    const char *name = luaL_checklstring(L, 2, &len);
    const sat_field *field = sat_dtype_field(a->nd.type, name, len);
    if (field == NULL) return luaL_error(L, "the array has no field '%s'", name);
    satL_array *view = push_view(L, 1);
    sat_dtype *record = view->nd.type;
    if (sat_nd_field(&view->nd, field, &err) != SAT_OK) return raise(L, &err);
    sat_dtype_retain(view->nd.type);
    sat_dtype_release(record);
    return 1;
}

/* ---- copies ---- */

/* Pushes a C-order copy of the array at idx. */
static satL_array *push_copy(lua_State *L, int idx)
{
    sat_error err;
    idx = lua_absindex(L, idx);
    satL_array *a = lua_touserdata(L, idx);
    if (holds_objects(a)) {
        satL_array_push_list(L, idx);
        if (satL_array_push_objects(L, -1, a->nd.ndim, a->nd.shape, NULL, &err) != SAT_OK) raise(L, &err);
        lua_remove(L, -2);
        return lua_touserdata(L, -1);
    }
    satL_array *copy = new_array(L);
    copy->nd.type = sat_dtype_retain(a->nd.type);
    if (allocate(L, copy, a->nd.ndim, a->nd.shape, &err) != SAT_OK) raise(L, &err);
    sat_nd_pack(&a->nd, copy->nd.base);
    return copy;
}

void satL_array_push_contiguous(lua_State *L, int idx)
{
    satL_array *a = check_array(L, idx);
    luaL_checkstack(L, 6, NULL);
    if (sat_nd_contiguous(&a->nd) != 0)
        lua_pushvalue(L, idx);
    else
        (void)push_copy(L, idx);
}

void satL_array_push_list(lua_State *L, int idx)
{
    satL_array *a = check_array(L, idx);
    sat_nd_walk walk;
    size_t offset;
    luaL_checkstack(L, 6, NULL);
    idx = lua_absindex(L, idx);
    lua_createtable(L, table_hint((uint64_t)a->nd.size), 0);
    push_list_of(L, idx);
    int list = lua_gettop(L);
    sat_nd_walk_begin(&walk, &a->nd, false);
    for (lua_Integer i = 1; sat_nd_walk_next(&walk, 1, &offset) > 0; i++) {
        push_item(L, &a->nd, offset, list);
        lua_rawseti(L, list - 1, i);
    }
    lua_settop(L, list - 1);
}

/* a:copy() */
static int array_copy(lua_State *L)
{
    check_array(L, 1);
    (void)push_copy(L, 1);
    return 1;
}

/* a:reshape(2, 3) or a:reshape{2, 3}; one dimension may be -1 */
static int array_reshape(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    int64_t shape[SAT_ND_MAX_DIMS];
    int ndim = lua_gettop(L) - 1;
    int open = -1;
    int64_t known = 1;
    sat_error err;
    if (ndim == 1 && lua_istable(L, 2)) {
        ndim = check_shape(L, 2, shape);
    } else {
        if (ndim > SAT_ND_MAX_DIMS) return luaL_error(L, "more than %d dimensions", (int)SAT_ND_MAX_DIMS);
        for (int i = 0; i < ndim; i++) shape[i] = (int64_t)luaL_checkinteger(L, i + 2);
    }
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == -1 && open < 0) {
            open = i;
        } else if (shape[i] < 0) {
            return luaL_error(L, "a shape has a negative dimension");
        } else if (shape[i] > 0) {
            if (known > INT64_MAX / shape[i]) return luaL_error(L, "the shape is larger than memory");
            known *= shape[i];
        }
    }
    if (open >= 0) shape[open] = a->nd.size % known == 0 ? a->nd.size / known : 0;
    int64_t size;
    size_t bytes;
    if (sat_nd_measure(a->nd.type, ndim, shape, &size, &bytes, &err) != SAT_OK) return raise(L, &err);
    if (size != a->nd.size)
        return luaL_error(L, "%I elements do not fill the shape%s", (LUAI_UACINT)a->nd.size,
                          open >= 0 ? "" : " exactly");
    satL_array *out = sat_nd_contiguous(&a->nd) == 'C' ? push_view(L, 1) : push_copy(L, 1);
    if (sat_nd_layout(&out->nd, ndim, shape, NULL, &err) != SAT_OK) return raise(L, &err);
    return 1;
}

/* a:view(dtype): the same bytes as elements of another type, of which the last dimension has as many as it takes */
static int array_view(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    int64_t shape[SAT_ND_MAX_DIMS];
    int ndim = a->nd.ndim;
    sat_error err;
    lua_settop(L, 2);
    satL_array *to = new_array(L); /* holds the type until it has found its place */
    check_dtype(L, 2, &to->nd.type);
    size_t was = a->nd.type->itemsize, is = to->nd.type->itemsize;
    if (holds_objects(a) || to->nd.type->kind == 'O') return luaL_error(L, "objects have no bytes to be viewed");
    if (sat_nd_contiguous(&a->nd) != 'C') return luaL_error(L, "the array is not contiguous: view a copy of it");
    memcpy(shape, a->nd.shape, (size_t)ndim * sizeof *shape);
    size_t row = ndim > 0 ? (size_t)shape[ndim - 1] * was : was;
    if (is == 0 || row % is != 0 || (ndim == 0 && was != is))
        return luaL_error(L, "%I bytes are no whole number of %s", (LUAI_UACINT)row, to->nd.type->text);
    if (ndim > 0) shape[ndim - 1] = (int64_t)(row / is);
    satL_array *out = push_view(L, 1);
    sat_dtype *old = out->nd.type;
    out->nd.type = to->nd.type;
    to->nd.type = old;
    if (sat_nd_layout(&out->nd, ndim, shape, NULL, &err) != SAT_OK) return raise(L, &err);
    return 1;
}

/* a:astype(dtype): always a copy */
static int array_astype(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    sat_error err;
    lua_settop(L, 2);
    satL_array *out = new_array(L);
    check_dtype(L, 2, &out->nd.type);
    char to = out->nd.type->kind;
    if ((to == 'S' || to == 'U') && out->nd.type->itemsize == 0 &&
        (a->nd.type->kind == 'S' || a->nd.type->kind == 'U')) {
        char text[32]; /* wide enough for what the array's own type can hold */
        size_t n = a->nd.type->kind == 'U' ? a->nd.type->itemsize / 4 : a->nd.type->itemsize;
        (void)snprintf(text, sizeof text, "%c%zu", to, n);
        sat_dtype_release(out->nd.type);
        out->nd.type = NULL;
        if (sat_dtype_parse(text, strlen(text), &out->nd.type, &err) != SAT_OK) return raise(L, &err);
    }
    if (to == 'O') {
        satL_array_push_list(L, 1);
        if (satL_array_push_objects(L, -1, a->nd.ndim, a->nd.shape, NULL, &err) != SAT_OK) return raise(L, &err);
        return 1;
    }
    if (allocate(L, out, a->nd.ndim, a->nd.shape, &err) != SAT_OK) return raise(L, &err);
    if (!holds_objects(a)) {
        if (sat_nd_cast(&a->nd, out->nd.type, out->nd.base, &err) != SAT_OK) return raise(L, &err);
        return 1;
    }
    sat_nd_walk walk;
    size_t offset;
    push_list_of(L, 1);
    sat_nd_walk_begin(&walk, &a->nd, false);
    for (size_t at = 0; sat_nd_walk_next(&walk, 1, &offset) > 0; at += out->nd.type->itemsize) {
        lua_rawgeti(L, 4, (lua_Integer)(offset / OBJECT_SIZE) + 1);
        set_item(L, &out->nd, at, 0, 5);
        lua_pop(L, 1);
    }
    lua_settop(L, 3);
    return 1;
}

/* a:totable() */
static int array_totable(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    push_list_of(L, 1);
    push_nested(L, &a->nd, 0, a->nd.offset, lua_gettop(L));
    return 1;
}

/* a:tostring(): the bytes in C order */
static int array_tostring(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    size_t bytes = (size_t)a->nd.size * a->nd.type->itemsize;
    if (holds_objects(a)) return luaL_error(L, "an array of objects has no bytes");
    if (sat_nd_contiguous(&a->nd) == 'C') {
        lua_pushlstring(L, (const char *)a->nd.base + a->nd.offset, bytes);
        return 1;
    }
    luaL_Buffer out;
    sat_nd_pack(&a->nd, (uint8_t *)luaL_buffinitsize(L, &out, bytes));
    luaL_pushresultsize(&out, bytes);
    return 1;
}

/* a:equal(b) */
static int array_equal(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    satL_array *b = check_array(L, 2);
    bool equal;
    if (!holds_objects(a) && !holds_objects(b)) {
        equal = sat_nd_equal(&a->nd, &b->nd);
    } else {
        equal = holds_objects(a) && holds_objects(b) && a->nd.ndim == b->nd.ndim;
        for (int i = 0; equal && i < a->nd.ndim; i++) equal = a->nd.shape[i] == b->nd.shape[i];
        if (equal) {
            sat_nd_walk wa, wb;
            size_t p, q;
            lua_settop(L, 2);
            push_list_of(L, 1);
            push_list_of(L, 2);
            sat_nd_walk_begin(&wa, &a->nd, false);
            sat_nd_walk_begin(&wb, &b->nd, false);
            while (equal && sat_nd_walk_next(&wa, 1, &p) > 0 && sat_nd_walk_next(&wb, 1, &q) > 0) {
                lua_rawgeti(L, 3, (lua_Integer)(p / OBJECT_SIZE) + 1);
                lua_rawgeti(L, 4, (lua_Integer)(q / OBJECT_SIZE) + 1);
                equal = lua_rawequal(L, -1, -2) != 0;
                lua_pop(L, 2);
            }
        }
    }
    lua_pushboolean(L, equal);
    return 1;
}

/* a:pointer(): the first element's address. The array must stay reachable while it is used. */
static int array_pointer(lua_State *L)
{
    satL_array *a = check_array(L, 1);
    if (holds_objects(a)) return luaL_error(L, "an array of objects has no memory");
    lua_pushlightuserdata(L, a->nd.base + a->nd.offset);
    return 1;
}

/* ---- reductions ---- */

static int push_reduced(lua_State *L, sat_status status, const sat_cell *cell, const sat_error *err)
{
    if (status != SAT_OK) return raise(L, err);
    push_cell(L, cell);
    return 1;
}

static int array_sum(lua_State *L)
{
    sat_cell cell;
    sat_error err;
    sat_status status = sat_nd_sum(&check_array(L, 1)->nd, &cell, &err);
    return push_reduced(L, status, &cell, &err);
}

static int array_mean(lua_State *L)
{
    sat_cell cell;
    sat_error err;
    sat_status status = sat_nd_mean(&check_array(L, 1)->nd, &cell, &err);
    return push_reduced(L, status, &cell, &err);
}

static int array_min(lua_State *L)
{
    sat_cell cell;
    sat_error err;
    sat_status status = sat_nd_extreme(&check_array(L, 1)->nd, false, &cell, &err);
    return push_reduced(L, status, &cell, &err);
}

static int array_max(lua_State *L)
{
    sat_cell cell;
    sat_error err;
    sat_status status = sat_nd_extreme(&check_array(L, 1)->nd, true, &cell, &err);
    return push_reduced(L, status, &cell, &err);
}

/* ---- one line for people ---- */

static void push_quoted(lua_State *L, const char *text, size_t len)
{
    luaL_Buffer out;
    size_t n = len;
    if (n > SHOWN_TEXT) { /* not within a character */
        n = SHOWN_TEXT;
        while (n > SHOWN_TEXT - 4 && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
    }
    luaL_buffinit(L, &out);
    luaL_addchar(&out, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') {
            luaL_addchar(&out, '\\');
            luaL_addchar(&out, (char)c);
        } else if (c < 0x20 || c == 0x7F) {
            char escape[8];
            (void)snprintf(escape, sizeof escape, "\\x%02x", c);
            luaL_addstring(&out, escape);
        } else {
            luaL_addchar(&out, (char)c);
        }
    }
    luaL_addstring(&out, n < len ? "...\"" : "\"");
    luaL_pushresult(&out);
}

/* Replaces the value on top of the stack by a text; calls nothing of the value's. */
static void show_top(lua_State *L)
{
    size_t len;
    const char *text;
    int value = lua_gettop(L);
    switch (lua_type(L, value)) {
    case LUA_TNIL: lua_pushliteral(L, "nil"); break;
    case LUA_TBOOLEAN: lua_pushstring(L, lua_toboolean(L, value) ? "true" : "false"); break;
    case LUA_TNUMBER:
        lua_pushvalue(L, value);
        (void)lua_tolstring(L, -1, NULL);
        break;
    case LUA_TSTRING:
        text = lua_tolstring(L, value, &len);
        push_quoted(L, text, len);
        break;
    default: lua_pushstring(L, satL_is_null(L, value) ? "null" : luaL_typename(L, value));
    }
    lua_replace(L, value);
}

static void show_item(lua_State *L, const sat_ndarray *nd, size_t offset, int list)
{
    const sat_dtype *type = nd->type;
    luaL_checkstack(L, 4 * SHOWN_ELEMENTS + 8, NULL);
    if (type->opaque) {
        lua_pushliteral(L, "?");
    } else if (type->kind == 'u' && type->itemsize == 8) {
        char text[24];
        sat_cell cell;
        (void)sat_cell_load(type, nd->base + offset, &cell, NULL);
        (void)snprintf(text, sizeof text, "%" PRIu64, cell.u);
        lua_pushstring(L, text);
    } else if (type->kind == 'c') {
        sat_cell cell;
        (void)sat_cell_load(type, nd->base + offset, &cell, NULL);
        lua_pushfstring(L, "(%f,%f)", (LUAI_UACNUMBER)cell.f, (LUAI_UACNUMBER)cell.im);
    } else if ((type->kind == 'M' || type->kind == 'm')) {
        push_item(L, nd, offset, list);
        if (lua_tointeger(L, -1) == SAT_NAT) {
            lua_pop(L, 1);
            lua_pushliteral(L, "NaT");
        } else {
            show_top(L);
        }
    } else if (type->kind == 'U') {
        size_t n = sat_text_len(type, nd->base + offset);
        bool valid = true;
        for (size_t i = 0; valid && i < n; i++) valid = sat_text_at(type, nd->base + offset, i) <= 0x10FFFF;
        if (valid)
            push_item(L, nd, offset, list);
        else
            lua_pushliteral(L, "?");
        show_top(L);
    } else if (sat_dtype_is_record(type)) {
        int parts = 1;
        lua_pushliteral(L, "{");
        for (size_t i = 0; i < type->nfields && i < SHOWN_ELEMENTS; i++) {
            const sat_field *field = &type->fields[i];
            sat_ndarray part = {.type = field->type, .base = nd->base};
            lua_pushstring(L, i > 0 ? ", " : "");
            push_quoted(L, field->name, field->name_len);
            lua_pushliteral(L, "=");
            if (field->ndim > 0)
                lua_pushliteral(L, "[...]");
            else
                show_item(L, &part, offset + field->offset, 0);
            parts += 4;
        }
        lua_pushstring(L, type->nfields > SHOWN_ELEMENTS ? ", ...}" : "}");
        lua_concat(L, parts + 1);
    } else {
        push_item(L, nd, offset, list);
        show_top(L);
    }
}

/* __tostring */
static int array_show(lua_State *L)
{
    satL_array *a = luaL_checkudata(L, 1, SATL_ARRAY);
    if (a->nd.type == NULL) {
        lua_pushliteral(L, "array(closed)");
        return 1;
    }
    char name[SAT_DTYPE_TEXT];
    sat_nd_walk walk;
    size_t offset;
    int parts = 1;
    sat_dtype_name(a->nd.type, name, sizeof name);
    luaL_checkstack(L, 2 * SAT_ND_MAX_DIMS + 4 * SHOWN_ELEMENTS, NULL);
    lua_settop(L, 1);
    push_list_of(L, 1);
    lua_pushfstring(L, "array(%s [", name);
    for (int i = 0; i < a->nd.ndim; i++, parts++)
        lua_pushfstring(L, i > 0 ? ", %I" : "%I", (LUAI_UACINT)a->nd.shape[i]);
    lua_pushstring(L, a->nd.size > 0 ? "]: " : "]");
    parts++;
    sat_nd_walk_begin(&walk, &a->nd, false);
    for (int i = 0; i < SHOWN_ELEMENTS && sat_nd_walk_next(&walk, 1, &offset) > 0; i++, parts += 2) {
        lua_pushstring(L, i > 0 ? ", " : "");
        show_item(L, &a->nd, offset, 2);
    }
    lua_pushstring(L, a->nd.size > SHOWN_ELEMENTS ? ", ...)" : ")");
    lua_concat(L, parts + 1);
    return 1;
}

/* ---- the end ---- */

/* a:close(), __close and __gc: lets go of the memory; views of it stay as they are. Upvalue 1 is the metatable: a
 * look-up by name may need memory, and what a finalizer cannot do for want of it is never done. */
static int array_close(lua_State *L)
{
    bool ours = lua_getmetatable(L, 1) && lua_rawequal(L, -1, lua_upvalueindex(1));
    satL_array *a = ours ? lua_touserdata(L, 1) : NULL;
    if (a == NULL) a = luaL_checkudata(L, 1, SATL_ARRAY);
    sat_block *block = a->block;
    sat_dtype *type = a->nd.type;
    a->block = NULL;
    a->nd.type = NULL;
    a->nd.base = NULL;
    a->nd.size = 0;
    sat_block_release(block);
    sat_dtype_release(type);
    lua_pushnil(L);
    lua_setiuservalue(L, 1, 1);
    return 0;
}

int satL_open_array(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"get", array_get},           {"set", array_set},         {"fill", array_fill},   {"slice", array_slice},
        {"transpose", array_transpose}, {"reshape", array_reshape}, {"field", array_field}, {"copy", array_copy},
        {"view", array_view},         {"astype", array_astype},     {"totable", array_totable}, {"tostring", array_tostring},
        {"equal", array_equal},       {"pointer", array_pointer}, {"sum", array_sum},     {"mean", array_mean},
        {"min", array_min},           {"max", array_max},         {NULL, NULL},
    };
    static const luaL_Reg meta[] = {
        {"__newindex", array_newindex}, {"__len", array_len}, {"__pairs", array_pairs}, {"__tostring", array_show},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"new", array_new},           {"call", array_call},         {"zeros", array_zeros},
        {"from_string", array_from_string},
        {"load_npy", array_load_npy}, {"save_npy", array_save_npy}, {"open", array_open},   {"is", array_is},
        {NULL, NULL},
    };
    satL_class(L, SATL_ARRAY, methods, meta);
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, array_close, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__gc");
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__close");
    lua_getfield(L, -2, "__index");
    lua_insert(L, -2);
    lua_setfield(L, -2, "close");
    lua_newtable(L);
    for (int i = 0; PROPERTIES[i] != NULL; i++) {
        lua_pushinteger(L, i);
        lua_setfield(L, -2, PROPERTIES[i]);
    }
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, array_index, 3);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
