/* saturn.core.wire: Lua values ↔ Dask messages.
 *
 * Going out, a table is a list when it is a sequence or empty, else a map; what has no natural Lua shape is marked:
 * wire.bin(string), wire.set(list), wire.map(table), wire.pickled(string) and wire.serialized(header, frames). */
#include "wire.h"

#include <string.h>

#include "../core/pickle.h"
#include "../core/serialized.h"
#include "array.h"
#include "pickle.h"
#include "pyvalue.h"
#include "session.h"

#define OUTGOING "saturn.outgoing"
#define SERIALIZED "saturn.serialized"
#define FRAMES "saturn.frames"
#define MARK_BIN "saturn.wire.bin"
#define MARK_SET "saturn.wire.set"
#define MARK_MAP "saturn.wire.map"
#define MARK_PICKLED "saturn.wire.pickled"
#define MARK_SERIALIZED "saturn.wire.serialized"

enum { STACK_NEED = 12 };

typedef struct serialized {
    sat_message *message;
    size_t index; /* of the sub-header among the frames */
    bool pickled; /* {"__Pickled__": k} */
    sat_limits limits;
} serialized;

/* ---- incoming ----------------------------------------------------------------------------------- */

typedef struct decoder {
    lua_State *L;
    sat_message *message;
    const sat_limits *limits;
    sat_mp scan;
    uint64_t nodes;
    int keep_nil;
    sat_error *err;
} decoder;

static sat_status push_value(decoder *in, uint64_t depth);

static sat_status next_token(decoder *in, sat_mp_token *token)
{
    if (in->nodes++ >= in->limits->nodes)
        return sat_fail(in->err, SAT_LIMIT, "a message holds more than %llu values (limits.nodes)",
                        (unsigned long long)in->limits->nodes);
    sat_status status = sat_mp_next(&in->scan, token, in->err);
    return status == SAT_EOF ? sat_fail(in->err, SAT_PROTOCOL, "a message is cut off") : status;
}

static sat_status push_array(decoder *in, size_t count, uint64_t depth)
{
    lua_createtable(in->L, count < 65536 ? (int)count : 65536, 0);
    for (size_t i = 1; i <= count; i++) {
        sat_status status = push_value(in, depth + 1);
        if (status != SAT_OK) {
            lua_pop(in->L, 1);
            return status;
        }
        if (lua_isnil(in->L, -1)) {
            lua_pop(in->L, 1);
            satL_push_null(in->L);
        }
        lua_rawseti(in->L, -2, (lua_Integer)i);
    }
    return SAT_OK;
}

static void push_serialized(decoder *in, size_t index, bool pickled)
{
    serialized *value = lua_newuserdatauv(in->L, sizeof *value, 0);
    *value = (serialized){NULL, index, pickled, *in->limits};
    luaL_setmetatable(in->L, SERIALIZED);
    value->message = sat_message_retain(in->message);
}

/* {"__Serialized__": k}, {"__Pickled__": k}: SAT_OK when it was one and is pushed, SAT_AGAIN when it was not. */
static sat_status push_special(decoder *in, sat_mp start, size_t count)
{
    sat_mp_token name, value;
    if (count != 1 || in->message == NULL || sat_mp_next(&start, &name, NULL) != SAT_OK) return SAT_AGAIN;
    bool pickled = sat_mp_is(&name, "__Pickled__");
    if (!pickled && !sat_mp_is(&name, "__Serialized__")) return SAT_AGAIN;
    if (sat_mp_next(&start, &value, NULL) != SAT_OK || value.type != SAT_MP_INT || value.as.integer < 1 ||
        (uint64_t)value.as.integer >= in->message->count)
        return sat_fail(in->err, SAT_PROTOCOL, "a message refers to a frame that it does not have");
    in->scan = start;
    push_serialized(in, (size_t)value.as.integer, pickled);
    return SAT_OK;
}

/* {"__Set__": true, "as-list": [...]} is left as the list; {"__Enum__": ...} as its name. */
static void fold_special(lua_State *L)
{
    if (lua_getfield(L, -1, "__Set__") == LUA_TBOOLEAN && lua_getfield(L, -2, "as-list") == LUA_TTABLE) {
        lua_replace(L, -3);
        lua_pop(L, 1);
        return;
    }
    lua_settop(L, lua_gettop(L) - (lua_type(L, -2) == LUA_TBOOLEAN ? 2 : 1));
    if (lua_getfield(L, -1, "__Enum__") == LUA_TBOOLEAN && lua_getfield(L, -2, "name") == LUA_TSTRING) {
        lua_replace(L, -3);
        lua_pop(L, 1);
        return;
    }
    lua_settop(L, lua_gettop(L) - (lua_type(L, -2) == LUA_TBOOLEAN ? 2 : 1));
}

static bool starts_special(const sat_mp *scan)
{
    sat_mp peek = *scan;
    sat_mp_token name;
    if (sat_mp_next(&peek, &name, NULL) != SAT_OK || name.type != SAT_MP_STR) return false;
    return sat_mp_is(&name, "__Set__") || sat_mp_is(&name, "__Enum__");
}

static sat_status push_pair(decoder *in, uint64_t depth)
{
    lua_State *L = in->L;
    sat_status status = push_value(in, depth + 1);
    if (status != SAT_OK) return status;
    if (lua_isnil(L, -1) || (lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) != lua_tonumber(L, -1))) {
        lua_pop(L, 1); /* nil and NaN cannot be keys */
        satL_push_null(L);
    }
    status = push_value(in, depth + 1);
    if (status != SAT_OK) {
        lua_pop(L, 1);
        return status;
    }
    if (lua_isnil(L, -1) && in->keep_nil) {
        lua_pop(L, 1);
        satL_push_null(L);
    }
    lua_rawset(L, -3);
    return SAT_OK;
}

static sat_status push_map(decoder *in, size_t count, uint64_t depth)
{
    sat_status status = push_special(in, in->scan, count);
    if (status != SAT_AGAIN) return status;
    bool special = starts_special(&in->scan);
    lua_createtable(in->L, 0, count < 65536 ? (int)count : 65536);
    for (size_t i = 0; i < count; i++) {
        status = push_pair(in, depth);
        if (status != SAT_OK) {
            lua_pop(in->L, 1);
            return status;
        }
    }
    if (special)
        fold_special(in->L);
    else if (in->keep_nil)
        satL_py_set(in->L, PY_DICT);
    return SAT_OK;
}

static sat_status push_value(decoder *in, uint64_t depth)
{
    lua_State *L = in->L;
    sat_mp_token token;
    sat_status status = next_token(in, &token);
    if (status != SAT_OK) return status;
    if (depth > in->limits->depth || !lua_checkstack(L, STACK_NEED))
        return sat_fail(in->err, SAT_LIMIT, "a message nests deeper than %llu (limits.depth)",
                        (unsigned long long)in->limits->depth);
    switch (token.type) {
    case SAT_MP_NIL:
        lua_pushnil(L);
        break;
    case SAT_MP_BOOL:
        lua_pushboolean(L, token.as.boolean);
        break;
    case SAT_MP_INT:
        lua_pushinteger(L, (lua_Integer)token.as.integer);
        break;
    case SAT_MP_UINT:
        if (in->keep_nil) satL_py_push_uint(L, token.as.unsigned_integer);
        else lua_pushnumber(L, (lua_Number)token.as.unsigned_integer);
        break;
    case SAT_MP_FLOAT:
        lua_pushnumber(L, token.as.number);
        break;
    case SAT_MP_STR:
    case SAT_MP_BIN:
        lua_pushlstring(L, (const char *)token.as.bytes.data, token.as.bytes.len);
        break;
    case SAT_MP_ARRAY:
        return push_array(in, token.as.count, depth);
    case SAT_MP_MAP:
        return push_map(in, token.as.count, depth);
    }
    return SAT_OK;
}

sat_status satL_push_msgpack(lua_State *L, sat_message *message, sat_slice text, const sat_limits *limits, int keep_nil,
                             sat_error *err)
{
    decoder in = {L, message, limits, sat_mp_over(text.data, text.len), 0, keep_nil, err};
    return push_value(&in, 0);
}

/* ---- serialized values -------------------------------------------------------------------------- */

static int frames_gc(lua_State *L)
{
    sat_frame_list_free(luaL_checkudata(L, 1, FRAMES));
    return 0;
}

/* What is left of the logical frames while a value, perhaps a collection, is read. */
typedef struct reader {
    lua_State *L;
    sat_message *message;
    const sat_limits *limits;
    sat_error *err;
} reader;

static sat_status push_parts(reader *in, const sat_header *header, const sat_slice *frames, size_t count, uint64_t depth);

static void push_joined(lua_State *L, const sat_slice *frames, size_t count)
{
    luaL_Buffer text;
    if (count == 1) {
        lua_pushlstring(L, (const char *)frames[0].data, frames[0].len);
        return;
    }
    luaL_buffinit(L, &text);
    for (size_t i = 0; i < count; i++) luaL_addlstring(&text, (const char *)frames[i].data, frames[i].len);
    luaL_pushresult(&text);
}

static sat_status push_msgpack_frames(reader *in, const sat_slice *frames, size_t count)
{
    size_t len;
    push_joined(in->L, frames, count);
    const char *text = lua_tolstring(in->L, -1, &len);
    sat_slice slice = {NULL, (const uint8_t *)text, len};
    sat_status status = satL_push_msgpack(in->L, NULL, slice, in->limits, 1, in->err);
    if (status == SAT_OK)
        lua_remove(in->L, -2);
    else
        lua_pop(in->L, 1);
    return status;
}

/* The sub-header of a NumPy array. */
typedef struct ndarray {
    char dtype[64];
    int ndim;
    int64_t shape[SAT_ARRAY_MAX_DIMS];
    int64_t strides[SAT_ARRAY_MAX_DIMS];
    int nstrides;
    bool broadcast;
    bool pickled;       /* the frames are a pickle of the array */
    bool custom_dtype;  /* the dtype is a pickle */
    sat_slice dtype_pickle;
} ndarray;

static bool read_numbers(sat_mp *scan, int64_t *numbers, int *count)
{
    sat_mp_token token;
    if (sat_mp_next(scan, &token, NULL) != SAT_OK || token.type != SAT_MP_ARRAY || token.as.count > SAT_ARRAY_MAX_DIMS)
        return false;
    *count = (int)token.as.count;
    for (int i = 0; i < *count; i++) {
        if (sat_mp_next(scan, &token, NULL) != SAT_OK || token.type != SAT_MP_INT) return false;
        numbers[i] = token.as.integer;
    }
    return true;
}

/* [0, "<f8"] or [1, pickle] */
static bool read_dtype(sat_mp *scan, ndarray *array)
{
    sat_mp_token token;
    if (sat_mp_next(scan, &token, NULL) != SAT_OK || token.type != SAT_MP_ARRAY || token.as.count != 2) return false;
    if (sat_mp_next(scan, &token, NULL) != SAT_OK) return false;
    array->custom_dtype = (token.type == SAT_MP_INT && token.as.integer != 0) || (token.type == SAT_MP_BOOL && token.as.boolean);
    if (sat_mp_next(scan, &token, NULL) != SAT_OK) return false;
    if (array->custom_dtype) {
        array->dtype_pickle = (sat_slice){NULL, token.as.bytes.data, token.as.bytes.len};
        return token.type == SAT_MP_BIN;
    }
    if (token.type != SAT_MP_STR || token.as.bytes.len >= sizeof array->dtype) return false;
    memcpy(array->dtype, token.as.bytes.data, token.as.bytes.len);
    return true;
}

static bool read_ndarray_field(sat_mp *scan, const sat_mp_token *name, ndarray *array)
{
    sat_mp_token token;
    if (sat_mp_is(name, "dtype")) return read_dtype(scan, array);
    if (sat_mp_is(name, "strides")) return read_numbers(scan, array->strides, &array->nstrides);
    if (sat_mp_is(name, "shape") && !array->broadcast) return read_numbers(scan, array->shape, &array->ndim);
    if (sat_mp_is(name, "broadcast_to")) {
        sat_mp peek = *scan;
        if (sat_mp_next(&peek, &token, NULL) == SAT_OK && token.type == SAT_MP_ARRAY && token.as.count > 0) {
            array->broadcast = true;
            return read_numbers(scan, array->shape, &array->ndim);
        }
    }
    if (sat_mp_is(name, "pickle")) {
        if (sat_mp_next(scan, &token, NULL) != SAT_OK) return false;
        array->pickled = token.type == SAT_MP_BOOL && token.as.boolean;
        return true;
    }
    return sat_mp_skip(scan, NULL) == SAT_OK;
}

static sat_status read_ndarray(sat_slice sub_header, ndarray *array, sat_error *err)
{
    sat_mp scan = sat_mp_over(sub_header.data, sub_header.len);
    sat_mp_token token;
    bool good = sub_header.len > 0 && sat_mp_next(&scan, &token, NULL) == SAT_OK && token.type == SAT_MP_MAP;
    memset(array, 0, sizeof *array);
    for (size_t i = good ? token.as.count : 0; good && i > 0; i--) {
        sat_mp_token name;
        good = sat_mp_next(&scan, &name, NULL) == SAT_OK && read_ndarray_field(&scan, &name, array);
    }
    if (good && (array->pickled || array->nstrides == array->ndim)) return SAT_OK;
    return sat_fail(err, SAT_PROTOCOL, "the header of an array is damaged");
}

/* A dtype that NumPy has no short name for comes as a pickle of its own. */
static sat_status push_structured(reader *in, const ndarray *array, sat_slice bytes)
{
    lua_State *L = in->L;
    int top = lua_gettop(L);
    sat_status status = satL_unpickle(L, array->dtype_pickle, NULL, 0, in->limits, in->err);
    if (status != SAT_OK) return status;
    if (satL_py_type(L, top + 1) != PY_DTYPE || lua_getfield(L, top + 1, "value") != LUA_TSTRING)
        status = sat_fail(in->err, SAT_VALUE, "an array of this dtype cannot be read: convert it on the worker");
    else
        status = satL_array_push(L, lua_tostring(L, -1), array->ndim, array->shape, array->strides, bytes, in->err);
    if (status == SAT_OK) lua_replace(L, top + 1);
    lua_settop(L, status == SAT_OK ? top + 1 : top);
    return status;
}

static sat_status push_ndarray(reader *in, const sat_header *header, const sat_slice *frames, size_t count)
{
    ndarray array;
    sat_status status = read_ndarray(header->sub_header, &array, in->err);
    if (status != SAT_OK) return status;
    if (array.pickled) return satL_unpickle(in->L, frames[0], frames + 1, count - 1, in->limits, in->err);
    if (count != 1) return sat_fail(in->err, SAT_PROTOCOL, "an array came in %zu frames instead of one", count);
    if (array.custom_dtype) return push_structured(in, &array, frames[0]);
    return satL_array_push(in->L, array.dtype, array.ndim, array.shape, array.strides, frames[0], in->err);
}

/* array.array: {"typecode": "d"}; NumPy's letter for the same bytes is the same, but for the machine's long. */
static sat_status push_carray(reader *in, const sat_header *header, const sat_slice *frames, size_t count)
{
    sat_mp scan = sat_mp_over(header->sub_header.data, header->sub_header.len);
    sat_mp_token token, name, value = {.type = SAT_MP_NIL};
    const char *dtype = NULL;
    bool good = header->sub_header.len > 0 && sat_mp_next(&scan, &token, NULL) == SAT_OK && token.type == SAT_MP_MAP;
    for (size_t i = good ? token.as.count : 0; good && i > 0; i--) {
        good = sat_mp_next(&scan, &name, NULL) == SAT_OK;
        if (good && sat_mp_is(&name, "typecode"))
            good = sat_mp_next(&scan, &value, NULL) == SAT_OK;
        else
            good = good && sat_mp_skip(&scan, NULL) == SAT_OK;
    }
    if (good && count == 1 && value.type == SAT_MP_STR && value.as.bytes.len == 1) {
        static const char *const names[][2] = {{"b", "|i1"}, {"B", "|u1"}, {"h", "<i2"}, {"H", "<u2"}, {"i", "<i4"},
                                               {"I", "<u4"}, {"l", "<i8"}, {"L", "<u8"}, {"q", "<i8"}, {"Q", "<u8"},
                                               {"f", "<f4"}, {"d", "<f8"}};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (names[i][0][0] == (char)value.as.bytes.data[0]) dtype = names[i][1];
    }
    if (dtype == NULL) return sat_fail(in->err, SAT_VALUE, "an array.array of this type code cannot be read");
    int64_t stride = dtype[2] - '0';
    int64_t length = (int64_t)frames[0].len / stride;
    return satL_array_push(in->L, dtype, 1, &length, &stride, frames[0], in->err);
}

/* Boxes the value on top of the stack: {value = it}. */
static void box_value(lua_State *L, satL_py type)
{
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    satL_py_set(L, type);
}

static sat_status push_dask(reader *in, const sat_header *header, const sat_slice *frames, size_t count)
{
    static const char *const texts[] = {"bytes", "memoryview"};
    static const char *const arrays[] = {"numpy.ndarray", "numpy.memmap"};
    sat_slice type = header->type;
    if (type.len > 9 && memcmp(type.data, "builtins.", 9) == 0) type = (sat_slice){NULL, type.data + 9, type.len - 9};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (sat_slice_is(type, texts[i])) {
            push_joined(in->L, frames, count);
            return SAT_OK;
        }
    if (sat_slice_is(type, "bytearray")) {
        push_joined(in->L, frames, count);
        box_value(in->L, PY_BYTEARRAY);
        return SAT_OK;
    }
    for (size_t i = 0; count > 0 && i < sizeof arrays / sizeof *arrays; i++)
        if (sat_slice_is(type, arrays[i])) return push_ndarray(in, header, frames, count);
    if (sat_slice_is(type, "array.array") && count > 0) return push_carray(in, header, frames, count);
    return sat_fail(in->err, SAT_VALUE, "a value of Python type '%.*s' cannot be read: convert it on the worker, for example "
                                        "to a list, a dict or a NumPy array", (int)(type.len < 100 ? type.len : 100),
                    (const char *)type.data);
}

static sat_status push_remote_error(reader *in, const sat_slice *frames, size_t count)
{
    int len = count > 0 && frames[0].len < 300 ? (int)frames[0].len : 300;
    if (count == 0) len = 0;
    return sat_fail(in->err, SAT_VALUE, "the worker could not serialize the result: %.*s", len,
                    count ? (const char *)frames[0].data : "");
}

static sat_status push_plain(reader *in, const sat_header *header, const sat_slice *frames, size_t count)
{
    if (sat_slice_is(header->serializer, "pickle")) {
        if (count == 0) return sat_fail(in->err, SAT_PROTOCOL, "a pickled value came without its pickle");
        return satL_unpickle(in->L, frames[0], frames + 1, count - 1, in->limits, in->err);
    }
    if (sat_slice_is(header->serializer, "dask")) return push_dask(in, header, frames, count);
    if (sat_slice_is(header->serializer, "msgpack")) return push_msgpack_frames(in, frames, count);
    if (sat_slice_is(header->serializer, "error")) return push_remote_error(in, frames, count);
    return sat_fail(in->err, SAT_VALUE, "values serialized with '%.*s' cannot be read",
                    (int)(header->serializer.len < 60 ? header->serializer.len : 60), (const char *)header->serializer.data);
}

static void or_null(lua_State *L)
{
    if (!lua_isnil(L, -1)) return;
    lua_pop(L, 1);
    satL_push_null(L);
}

/* msgpack has no tuples: a list that is the key of a dict, or in one, was a tuple. */
static void lists_to_tuples(lua_State *L, int idx)
{
    if (lua_type(L, idx) != LUA_TTABLE || satL_py_type(L, idx) != PY_NONE_) return;
    for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, idx); i++) {
        lua_rawgeti(L, idx, i);
        lists_to_tuples(L, lua_gettop(L));
        lua_pop(L, 1);
    }
    lua_pushvalue(L, idx);
    satL_py_set(L, PY_TUPLE);
    lua_pop(L, 1);
}

/* The entry of the string on top of the stack, in the dict below it, becomes one of a py.bytes. */
static void move_bytes(lua_State *L)
{
    int key = lua_gettop(L), dict = key - 1;
    lua_pushvalue(L, key);
    box_value(L, PY_BYTES);
    lua_pushvalue(L, key);
    lua_rawget(L, dict);
    lua_rawset(L, dict);
    lua_pushvalue(L, key);
    lua_pushnil(L);
    lua_rawset(L, dict);
}

/* The key of a dict's item. As in a pickle, what Lua's tables cannot have or would confuse is boxed; the dict is on
 * top of the stack. */
static sat_status push_key(reader *in, sat_slice text)
{
    lua_State *L = in->L;
    sat_mp scan = sat_mp_over(text.data, text.len);
    sat_mp_token token;
    sat_status status = satL_push_msgpack(L, NULL, text, in->limits, 1, in->err);
    if (status != SAT_OK) return status;
    or_null(L);
    lists_to_tuples(L, lua_gettop(L));
    if (lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) != lua_tonumber(L, -1)) {
        box_value(L, PY_FLOAT);
    } else if (lua_type(L, -1) == LUA_TSTRING && sat_mp_next(&scan, &token, NULL) == SAT_OK) {
        lua_pushvalue(L, -1);
        bool taken = lua_rawget(L, -3) != LUA_TNIL; /* by the same text, one of the two as bytes */
        lua_pop(L, 1);
        if (taken && token.type == SAT_MP_STR) move_bytes(L);
        if (taken && token.type == SAT_MP_BIN) box_value(L, PY_BYTES);
    }
    return SAT_OK;
}

/* One item of a collection into the table on top of the stack. */
static sat_status add_item(reader *in, sat_mp *headers, sat_mp *lengths, const sat_slice **frames, size_t *left,
                           bool dict, size_t index, uint64_t depth)
{
    sat_header item;
    sat_mp_token token;
    sat_status status = sat_header_read(headers, &item, in->err);
    if (status != SAT_OK) return status;
    if (sat_mp_next(lengths, &token, NULL) != SAT_OK || token.type != SAT_MP_INT || token.as.integer < 0 ||
        (uint64_t)token.as.integer > *left)
        return sat_fail(in->err, SAT_PROTOCOL, "a collection refers to frames that it does not have");
    size_t count = (size_t)token.as.integer;
    if (dict) {
        status = push_key(in, item.key);
        if (status != SAT_OK) return status;
    }
    status = push_parts(in, &item, *frames, count, depth + 1);
    if (status != SAT_OK) {
        if (dict) lua_pop(in->L, 1);
        return status;
    }
    or_null(in->L);
    *frames += count;
    *left -= count;
    if (dict)
        lua_rawset(in->L, -3);
    else
        lua_rawseti(in->L, -2, (lua_Integer)index);
    return SAT_OK;
}

static sat_status push_collection(reader *in, const sat_header *header, const sat_slice *frames, size_t count,
                                  uint64_t depth)
{
    sat_mp headers = sat_mp_over(header->sub_headers.data, header->sub_headers.len);
    sat_mp lengths = sat_mp_over(header->frame_lengths.data, header->frame_lengths.len);
    sat_mp_token items, sizes;
    bool dict = sat_slice_is(header->collection, "dict");
    if (sat_mp_next(&headers, &items, NULL) != SAT_OK || items.type != SAT_MP_ARRAY ||
        sat_mp_next(&lengths, &sizes, NULL) != SAT_OK || sizes.type != SAT_MP_ARRAY || sizes.as.count != items.as.count)
        return sat_fail(in->err, SAT_PROTOCOL, "the header of a collection is damaged");
    int hint = items.as.count < 1 << 20 ? (int)items.as.count : 1 << 20;
    lua_createtable(in->L, dict ? 0 : hint, dict ? hint : 0);
    for (size_t i = 1; i <= items.as.count; i++) {
        sat_status status = add_item(in, &headers, &lengths, &frames, &count, dict, i, depth);
        if (status != SAT_OK) {
            lua_pop(in->L, 1);
            return status;
        }
    }
    if (dict)
        satL_py_set(in->L, PY_DICT);
    else if (sat_slice_is(header->collection, "tuple"))
        satL_py_set(in->L, PY_TUPLE);
    else if (sat_slice_is(header->collection, "set"))
        satL_py_set(in->L, PY_SET);
    return SAT_OK;
}

static sat_status push_parts(reader *in, const sat_header *header, const sat_slice *frames, size_t count, uint64_t depth)
{
    if (depth > in->limits->depth || !lua_checkstack(in->L, STACK_NEED))
        return sat_fail(in->err, SAT_LIMIT, "a value nests deeper than %llu (limits.depth)",
                        (unsigned long long)in->limits->depth);
    return header->is_collection ? push_collection(in, header, frames, count, depth) : push_plain(in, header, frames, count);
}

static sat_status push_pickled(lua_State *L, const serialized *value, sat_error *err)
{
    sat_slice frame = value->message->frames[value->index];
    sat_mp scan = sat_mp_over(frame.data, frame.len);
    sat_mp_token token, name;
    sat_slice pickle = {NULL, NULL, 0};
    if (sat_mp_next(&scan, &token, NULL) != SAT_OK || token.type != SAT_MP_MAP)
        return sat_fail(err, SAT_PROTOCOL, "the header of a pickled value is damaged");
    for (size_t i = token.as.count; i > 0; i--) {
        sat_mp_token item;
        sat_mp peek;
        if (sat_mp_next(&scan, &name, NULL) != SAT_OK) break;
        peek = scan;
        if (sat_mp_is(&name, "pickled-obj") && sat_mp_next(&peek, &item, NULL) == SAT_OK && item.type == SAT_MP_BIN)
            pickle = (sat_slice){frame.block, item.as.bytes.data, item.as.bytes.len};
        if (sat_mp_skip(&scan, NULL) != SAT_OK) break;
    }
    return satL_unpickle(L, pickle, value->message->frames + value->index + 1,
                         value->message->count - value->index - 1, &value->limits, err);
}

static sat_status push_serialized_value(lua_State *L, const serialized *value, sat_error *err)
{
    sat_header header;
    sat_slice frame = value->message->frames[value->index];
    sat_mp scan = sat_mp_over(frame.data, frame.len);
    reader in = {L, value->message, &value->limits, err};
    if (value->pickled) return push_pickled(L, value, err);
    sat_status status = sat_header_read(&scan, &header, err);
    if (status != SAT_OK) return status;
    sat_frame_list *list = lua_newuserdatauv(L, sizeof *list, 0);
    *list = (sat_frame_list){NULL, 0};
    luaL_setmetatable(L, FRAMES);
    status = sat_header_frames(&header, value->message, value->index, &value->limits, list, err);
    if (status == SAT_OK) status = push_parts(&in, &header, list->items, list->count, 0);
    sat_frame_list_free(list);
    lua_remove(L, status == SAT_OK ? -2 : -1);
    return status;
}

/* value:value() → the Lua value, or nil, kind, message */
static int serialized_value(lua_State *L)
{
    sat_error err;
    serialized *value = luaL_checkudata(L, 1, SERIALIZED);
    if (value->message == NULL) return luaL_error(L, "this value is closed");
    return push_serialized_value(L, value, &err) == SAT_OK ? 1 : satL_fail(L, &err);
}


static int serialized_gc(lua_State *L)
{
    serialized *value = luaL_checkudata(L, 1, SERIALIZED);
    sat_message_release(value->message);
    value->message = NULL;
    return 0;
}

/* ---- outgoing ----------------------------------------------------------------------------------- */

static int outgoing_gc(lua_State *L)
{
    sat_outgoing_free(luaL_checkudata(L, 1, OUTGOING));
    return 0;
}

sat_outgoing *satL_new_outgoing(lua_State *L)
{
    sat_outgoing *out = lua_newuserdatauv(L, sizeof *out, 0);
    sat_outgoing_init(out);
    luaL_setmetatable(L, OUTGOING);
    return out;
}

static void pack_value(lua_State *L, int idx, sat_outgoing *out, int depth);

static bool is_sequence(lua_State *L, int idx)
{
    lua_Unsigned len = lua_rawlen(L, idx);
    if (len > 0) return true;
    lua_pushnil(L);
    if (!lua_next(L, idx)) return true;
    lua_pop(L, 2);
    return false;
}

static void pack_list(lua_State *L, int idx, sat_outgoing *out, int depth, bool is_set)
{
    msgpack_packer packer;
    lua_Integer len = (lua_Integer)lua_rawlen(L, idx);
    sat_mp_packer(&packer, &out->head);
    if (is_set)
        sat_mp_pack_set(&packer, (size_t)len);
    else
        msgpack_pack_array(&packer, (size_t)len);
    for (lua_Integer i = 1; i <= len; i++) {
        lua_rawgeti(L, idx, i);
        pack_value(L, lua_gettop(L), out, depth + 1);
        lua_pop(L, 1);
    }
}

static void pack_map(lua_State *L, int idx, sat_outgoing *out, int depth)
{
    msgpack_packer packer;
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) count++;
    sat_mp_packer(&packer, &out->head);
    msgpack_pack_map(&packer, count);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        pack_value(L, lua_gettop(L) - 1, out, depth + 1);
        pack_value(L, lua_gettop(L), out, depth + 1);
    }
}

static void need(lua_State *L, bool good)
{
    if (!good) luaL_error(L, "out of memory");
}

/* A frame from a string (copied) or from a contiguous array (shared). */
static size_t add_frame(lua_State *L, int idx, sat_outgoing *out)
{
    satL_array_view view;
    size_t len;
    if (lua_type(L, idx) == LUA_TSTRING) {
        const char *data = lua_tolstring(L, idx, &len);
        return sat_outgoing_copy(out, data, len);
    }
    if (!satL_array_view_of(L, idx, &view) || view.contiguous == 0 || view.data == NULL)
        luaL_error(L, "a frame must be a string or a contiguous array");
    if (view.block == NULL) return sat_outgoing_copy(out, view.data, view.nbytes);
    return sat_outgoing_frame(out, (sat_slice){view.block, view.data, view.nbytes});
}

/* {header, frames}: the sub-header becomes frame k, the frames follow, and {"__Serialized__": k} stands here. */
static void pack_serialized(lua_State *L, int idx, sat_outgoing *out, int depth)
{
    msgpack_packer packer;
    lua_rawgeti(L, idx, 2);
    int frames = lua_gettop(L);
    lua_rawgeti(L, idx, 1);
    lua_pushinteger(L, (lua_Integer)lua_rawlen(L, frames));
    lua_setfield(L, -2, "num-sub-frames");
    sat_outgoing *header = satL_new_outgoing(L);
    pack_map(L, lua_gettop(L) - 1, header, depth + 1);
    size_t index = header->head.failed ? 0 : sat_outgoing_copy(out, header->head.data, header->head.len);
    need(L, index > 0);
    lua_pop(L, 2);
    for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, frames); i++) {
        lua_rawgeti(L, frames, i);
        need(L, add_frame(L, lua_gettop(L), out) > 0);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    sat_mp_packer(&packer, &out->head);
    msgpack_pack_map(&packer, 1);
    sat_mp_pack_text(&packer, "__Serialized__");
    msgpack_pack_uint64(&packer, index);
}

static void pack_pickled(lua_State *L, int idx, sat_outgoing *out)
{
    msgpack_packer packer;
    size_t len;
    sat_outgoing *header = satL_new_outgoing(L);
    lua_rawgeti(L, idx, 1);
    const char *pickle = lua_tolstring(L, -1, &len);
    sat_mp_packer(&packer, &header->head);
    msgpack_pack_map(&packer, 3);
    sat_mp_pack_text(&packer, "pickled-obj");
    sat_mp_pack_bin(&packer, pickle, len);
    sat_mp_pack_text(&packer, "num-sub-frames");
    msgpack_pack_int(&packer, 0);
    sat_mp_pack_text(&packer, "compression");
    msgpack_pack_array(&packer, 0);
    size_t index = header->head.failed ? 0 : sat_outgoing_copy(out, header->head.data, header->head.len);
    need(L, index > 0);
    lua_pop(L, 2);
    sat_mp_packer(&packer, &out->head);
    msgpack_pack_map(&packer, 1);
    sat_mp_pack_text(&packer, "__Pickled__");
    msgpack_pack_uint64(&packer, index);
}

static void pack_bin(lua_State *L, int idx, sat_outgoing *out)
{
    msgpack_packer packer;
    size_t len;
    lua_rawgeti(L, idx, 1);
    const char *data = lua_tolstring(L, -1, &len);
    sat_mp_packer(&packer, &out->head);
    sat_mp_pack_bin(&packer, data, data ? len : 0);
    lua_pop(L, 1);
}

static bool has_mark(lua_State *L, int idx, const char *mark)
{
    luaL_getmetatable(L, mark);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    (void)idx;
    return same;
}

static void pack_table(lua_State *L, int idx, sat_outgoing *out, int depth)
{
    char kind = is_sequence(L, idx) ? 'l' : 'm';
    if (lua_getmetatable(L, idx)) {
        if (has_mark(L, idx, MARK_BIN)) kind = 'b';
        if (has_mark(L, idx, MARK_SET)) kind = 's';
        if (has_mark(L, idx, MARK_MAP)) kind = 'm';
        if (has_mark(L, idx, MARK_PICKLED)) kind = 'p';
        if (has_mark(L, idx, MARK_SERIALIZED)) kind = 'z';
        lua_pop(L, 1);
        satL_py type = satL_py_type(L, idx);
        if (type == PY_DICT) kind = 'm';
        if (type == PY_SET) kind = 's';
    }
    switch (kind) {
    case 'b':
        pack_bin(L, idx, out);
        break;
    case 's':
        pack_list(L, idx, out, depth, true);
        break;
    case 'p':
        pack_pickled(L, idx, out);
        break;
    case 'z':
        pack_serialized(L, idx, out, depth);
        break;
    case 'm':
        pack_map(L, idx, out, depth);
        break;
    default:
        pack_list(L, idx, out, depth, false);
    }
}

static void pack_string(lua_State *L, int idx, sat_outgoing *out)
{
    msgpack_packer packer;
    size_t len;
    const char *data = lua_tolstring(L, idx, &len);
    sat_mp_packer(&packer, &out->head);
    if (sat_utf8_valid((const uint8_t *)data, len))
        sat_mp_pack_str(&packer, data, len);
    else
        sat_mp_pack_bin(&packer, data, len);
}

static void pack_scalar(lua_State *L, int idx, sat_outgoing *out)
{
    msgpack_packer packer;
    sat_slice key;
    sat_mp_packer(&packer, &out->head);
    if (lua_isnil(L, idx) || satL_is_null(L, idx))
        msgpack_pack_nil(&packer);
    else if (lua_isboolean(L, idx))
        lua_toboolean(L, idx) ? msgpack_pack_true(&packer) : msgpack_pack_false(&packer);
    else if (lua_isinteger(L, idx))
        msgpack_pack_int64(&packer, (int64_t)lua_tointeger(L, idx));
    else if (lua_type(L, idx) == LUA_TNUMBER)
        msgpack_pack_double(&packer, lua_tonumber(L, idx));
    else if (satL_future_key(L, idx, &key))
        sat_buf_append(&out->head, key.data, key.len);
    else
        luaL_error(L, "a %s cannot be part of a message: use plain numbers, strings, booleans and tables of them",
                   luaL_typename(L, idx));
}

static void pack_value(lua_State *L, int idx, sat_outgoing *out, int depth)
{
    if (depth > 190) luaL_error(L, "a message nests too deep");
    luaL_checkstack(L, STACK_NEED, "a message nests too deep");
    if (lua_type(L, idx) == LUA_TSTRING)
        pack_string(L, idx, out);
    else if (lua_type(L, idx) == LUA_TTABLE)
        pack_table(L, idx, out, depth);
    else
        pack_scalar(L, idx, out);
}

void satL_pack(lua_State *L, int idx, sat_outgoing *out)
{
    pack_value(L, lua_absindex(L, idx), out, 0);
    need(L, !out->head.failed);
}

/* ---- marks and options -------------------------------------------------------------------------- */

static int mark_text(lua_State *L, const char *mark)
{
    luaL_checkstring(L, 1);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    luaL_setmetatable(L, mark);
    return 1;
}

static int wire_bin(lua_State *L)
{
    return mark_text(L, MARK_BIN);
}

static int wire_pickled(lua_State *L)
{
    return mark_text(L, MARK_PICKLED);
}

static int mark_table(lua_State *L, const char *mark)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_setmetatable(L, mark);
    return 1;
}

static int wire_set(lua_State *L)
{
    return mark_table(L, MARK_SET);
}

static int wire_map(lua_State *L)
{
    return mark_table(L, MARK_MAP);
}

static int wire_serialized(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_createtable(L, 2, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, 2);
    luaL_setmetatable(L, MARK_SERIALIZED);
    return 1;
}

/* encode(value) → msgpack text of frame 0; decode(text) → value. For keys and for tests. */
static int wire_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    sat_outgoing *out = satL_new_outgoing(L);
    satL_pack(L, 1, out);
    lua_pushlstring(L, (const char *)out->head.data, out->head.len);
    return 1;
}

static int wire_decode(lua_State *L)
{
    size_t len;
    sat_error err;
    sat_limits limits;
    const char *text = luaL_checklstring(L, 1, &len);
    satL_check_limits(L, 2, &limits);
    sat_slice slice = {NULL, (const uint8_t *)text, len};
    return satL_push_msgpack(L, NULL, slice, &limits, 1, &err) == SAT_OK ? 1 : satL_fail(L, &err);
}

/* The text at idx, if there is one, into *to. Raises nothing. */
static sat_status copy_text(lua_State *L, int idx, const char *field, char **to, sat_error *err)
{
    size_t len;
    if (lua_type(L, idx) != LUA_TSTRING) return SAT_OK;
    const char *text = lua_tolstring(L, idx, &len);
    if (strlen(text) != len) return sat_fail(err, SAT_VALUE, "the option '%s' holds a zero byte", field);
    return sat_copy_text(text, len, to) == SAT_OK ? SAT_OK : sat_fail_nomem(err);
}

sat_status satL_read_endpoint(lua_State *L, int idx, sat_endpoint *endpoint, sat_error *err)
{
    static const char *const names[] = {"ca", "cert", "key", "server_name", "proxy"};
    enum { TEXTS = sizeof names / sizeof *names };
    char **const texts[TEXTS] = {&endpoint->ca_pem, &endpoint->cert_pem, &endpoint->key_pem, &endpoint->server_name,
                                 &endpoint->proxy};
    int top = lua_gettop(L), address = top + 3;
    memset(endpoint, 0, sizeof *endpoint);
    luaL_checkstack(L, TEXTS + 3, "options");
    lua_getfield(L, idx, "verify_host");
    endpoint->verify_host = lua_toboolean(L, -1);
    lua_getfield(L, idx, "timeout");
    endpoint->connect_timeout = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : 30.0;
    lua_getfield(L, idx, "address");
    for (int i = 0; i < TEXTS; i++) lua_getfield(L, idx, names[i]);
    /* from here on nothing raises: what the endpoint owns would leak */
    sat_status status = lua_type(L, address) == LUA_TSTRING
                            ? sat_endpoint_parse(endpoint, lua_tostring(L, address), err)
                            : sat_fail(err, SAT_VALUE, "an address is needed: tcp://host:port or tls://host:port");
    for (int i = 0; i < TEXTS && status == SAT_OK; i++)
        status = copy_text(L, address + 1 + i, names[i], texts[i], err);
    lua_settop(L, top);
    if (status != SAT_OK) sat_endpoint_free(endpoint);
    return status;
}

int satL_open_wire(lua_State *L)
{
    static const luaL_Reg serialized_methods[] = {{"value", serialized_value}, {"close", serialized_gc}, {NULL, NULL}};
    static const luaL_Reg serialized_meta[] = {{"__gc", serialized_gc}, {NULL, NULL}};
    static const luaL_Reg outgoing_meta[] = {{"__gc", outgoing_gc}, {NULL, NULL}};
    static const luaL_Reg frames_meta[] = {{"__gc", frames_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"bin", wire_bin},       {"set", wire_set},       {"map", wire_map},       {"pickled", wire_pickled},
        {"serialized", wire_serialized}, {"encode", wire_encode}, {"decode", wire_decode}, {NULL, NULL},
    };
    static const char *const marks[] = {MARK_BIN, MARK_SET, MARK_MAP, MARK_PICKLED, MARK_SERIALIZED};
    satL_class(L, SERIALIZED, serialized_methods, serialized_meta);
    satL_class(L, OUTGOING, NULL, outgoing_meta);
    satL_class(L, FRAMES, NULL, frames_meta);
    lua_pop(L, 3);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        luaL_newmetatable(L, marks[i]);
        lua_pop(L, 1);
    }
    luaL_newlib(L, functions);
    return 1;
}
