/* The reader of pickles: a stack machine that builds Lua values with no tree in between.
 *
 * Its stack and memo hold small C slots: numbers, and strings as slices of the pickle, so that most values are
 * made once, at the place where they stay. Containers and everything else made in Lua are kept alive by one table
 * ("objects") and named by their index in it; a C record beside it says what each of them is. A container
 * gets its Lua table when its first items come, with room for just these.
 *
 * Nothing is executed: a global is a name, and calling one gives data, by the exact list in KNOWN, or an inert
 * object. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/dtype.h"
#include "array.h"
#include "pickle.h"
#include "pyvalue.h"

typedef enum slot_kind { S_NONE, S_FALSE, S_TRUE, S_INT, S_FLOAT, S_STR, S_BYTES, S_OBJ } slot_kind;

/* len counts the bytes of S_STR and S_BYTES; longer strings than fit it become objects. */
typedef struct slot {
    uint8_t kind;
    uint32_t len;
    union {
        int64_t i; /* S_INT; S_OBJ: index of the object */
        double f;
        const uint8_t *s;
    } u;
} slot;

typedef enum object_kind {
    O_VALUE,   /* made when the record is; nothing can be added to it */
    O_BYTES,   /* the same, a string that was bytes */
    O_LIST,    /* also a deque */
    O_TUPLE,   /* items are slots in the pool */
    O_DICT,    /* also its subclasses */
    O_SET,
    O_GLOBAL,  /* module and name are slots in the pool */
    O_OBJECT,  /* an inert object or an exception */
    O_WRAPPER, /* a table around an inert object, whose index is count */
    O_BUFFER,  /* out-of-band buffer: count is its number */
    O_BYTEARRAY, /* bytes as a slot in the pool */
    O_NDARRAY, /* an array before its BUILD, then the array */
    O_DTYPE,
    O_UUID
} object_kind;

enum { F_MADE = 1, F_ORDERED = 2, F_STR_KEYS = 4, F_BYTES_KEYS = 8, F_READONLY = 16 };

typedef struct object {
    uint8_t kind;
    uint8_t flags;
    uint16_t height; /* of the nesting below it, itself included */
    uint16_t known; /* what a global or a call is; of O_DTYPE the place of its type plus one, or 0 */
    uint32_t count;
    uint32_t off; /* of O_OBJECT, made by a call: the tuple of its arguments plus one */
} object;

typedef struct far_memo {
    uint64_t key; /* index plus one; 0: free */
    slot value;
} far_memo;

typedef struct vm {
    lua_State *L;
    sat_pickle_scan scan;
    sat_slice pickle;
    const sat_slice *buffers;
    size_t nbuffers, next_buffer;
    slot *stack;
    size_t depth, stack_cap;
    size_t *marks;
    size_t nmarks, marks_cap;
    slot *memo; /* dense part; free entries are marked in memo_used by kind UINT8_MAX */
    size_t memo_cap;
    far_memo *far; /* indices far behind the others: a hash table */
    size_t far_cap, nfar;
    uint64_t memo_len, max_memo;
    object *objects;
    size_t nobjects, objects_cap;
    slot *pool;
    size_t npool, pool_cap;
    /* C memory in use while Lua may raise an error: freed with the machine */
    sat_buf text;
    sat_dtype *type, *record;
    sat_dtype **types; /* of the O_DTYPE objects, and those that others are made of */
    size_t ntypes, types_cap;
    unsigned max_height;
    uint64_t budget; /* bytes that may still be made by copying */
    sat_status status;
    sat_error *err;
} vm;

/* Lua stack of the machine. */
enum { LS_VM = 1, LS_OBJECTS, LS_TUPLE, LS_DICT, LS_SET, LS_BYTES, LS_TOP = LS_BYTES };

enum { SHORT_STRING = 40, MAX_HEIGHT = 10000, FREE_MEMO = UINT8_MAX, MAX_FRAMES = 10000, PAUSE_COLLECTOR_BYTES = 1 << 18 };

typedef enum outcome { NOT_MINE, DONE, FAILED } outcome;

/* ------------------------------------------------------------ what we know */

typedef enum known {
    K_NOTHING,
    K_EXCEPTION,
    K_OBJECT,
    K_COMPLEX,
    K_RANGE,
    K_SLICE,
    K_BYTEARRAY,
    K_BYTES,
    K_LIST,
    K_TUPLE,
    K_DICT,
    K_SET,
    K_FROZENSET,
    K_GETATTR,
    K_ENCODE,
    K_RECONSTRUCTOR,
    K_NEWOBJ,
    K_ORDEREDDICT,
    K_DEFAULTDICT,
    K_COUNTER,
    K_DEQUE,
    K_DATETIME,
    K_DATE,
    K_TIME,
    K_TIMEDELTA,
    K_TIMEZONE,
    K_ZONEINFO,
    K_ZONEINFO_UNPICKLE,
    K_DECIMAL,
    K_FRACTION,
    K_UUID,
    K_PATH,
    K_CARRAY,
    K_CARRAY_RECONSTRUCTOR,
    K_UNPICKLE_EXCEPTION,
    K_UNPICKLE_EXCEPTION_ATTRS,
    K_UNPICKLE_TRACEBACK,
    K_SKELETON_CLASS,
    K_CLASS_SETSTATE,
    K_ND_RECONSTRUCT,
    K_ND_SCALAR,
    K_ND_FROMBUFFER,
    K_NDARRAY,
    K_ND_ARRAY,
    K_DTYPE,
    K_DATETIME64,
    K_TIMEDELTA64,
    K_DATAFRAME,
    K_SERIES,
    K_NEW_INDEX,
    K_TIMESTAMP,
    K_PANDAS_TIMEDELTA,
    K_PY_BUFFER
} known;

typedef struct known_name {
    const char *module, *name;
    known what;
} known_name;

static const known_name KNOWN[] = {
    {"builtins", "object", K_OBJECT},
    {"builtins", "complex", K_COMPLEX},
    {"builtins", "range", K_RANGE},
    {"builtins", "xrange", K_RANGE},
    {"builtins", "slice", K_SLICE},
    {"builtins", "bytearray", K_BYTEARRAY},
    {"builtins", "bytes", K_BYTES},
    {"builtins", "list", K_LIST},
    {"builtins", "tuple", K_TUPLE},
    {"builtins", "dict", K_DICT},
    {"builtins", "set", K_SET},
    {"builtins", "frozenset", K_FROZENSET},
    {"builtins", "getattr", K_GETATTR},
    {"_codecs", "encode", K_ENCODE},
    {"copyreg", "_reconstructor", K_RECONSTRUCTOR},
    {"copyreg", "__newobj__", K_NEWOBJ},
    {"collections", "OrderedDict", K_ORDEREDDICT},
    {"collections", "defaultdict", K_DEFAULTDICT},
    {"collections", "Counter", K_COUNTER},
    {"collections", "deque", K_DEQUE},
    {"datetime", "datetime", K_DATETIME},
    {"datetime", "date", K_DATE},
    {"datetime", "time", K_TIME},
    {"datetime", "timedelta", K_TIMEDELTA},
    {"datetime", "timezone", K_TIMEZONE},
    {"zoneinfo", "ZoneInfo", K_ZONEINFO},
    {"zoneinfo", "ZoneInfo._unpickle", K_ZONEINFO_UNPICKLE},
    {"decimal", "Decimal", K_DECIMAL},
    {"fractions", "Fraction", K_FRACTION},
    {"uuid", "UUID", K_UUID},
    {"pathlib", "PosixPath", K_PATH},
    {"pathlib", "PurePosixPath", K_PATH},
    {"pathlib", "WindowsPath", K_PATH},
    {"pathlib", "PureWindowsPath", K_PATH},
    {"pathlib._local", "PosixPath", K_PATH},
    {"pathlib._local", "PurePosixPath", K_PATH},
    {"pathlib._local", "WindowsPath", K_PATH},
    {"pathlib._local", "PureWindowsPath", K_PATH},
    {"array", "array", K_CARRAY},
    {"array", "_array_reconstructor", K_CARRAY_RECONSTRUCTOR},
    {"tblib.pickling_support", "unpickle_exception", K_UNPICKLE_EXCEPTION},
    {"tblib.pickling_support", "unpickle_exception_with_attrs", K_UNPICKLE_EXCEPTION_ATTRS},
    {"tblib.pickling_support", "unpickle_traceback", K_UNPICKLE_TRACEBACK},
    {"cloudpickle.cloudpickle", "_make_skeleton_class", K_SKELETON_CLASS},
    {"cloudpickle.cloudpickle_fast", "_make_skeleton_class", K_SKELETON_CLASS},
    {"cloudpickle.cloudpickle", "_class_setstate", K_CLASS_SETSTATE},
    {"cloudpickle.cloudpickle_fast", "_class_setstate", K_CLASS_SETSTATE},
    {"numpy.core.multiarray", "_reconstruct", K_ND_RECONSTRUCT},
    {"numpy._core.multiarray", "_reconstruct", K_ND_RECONSTRUCT},
    {"numpy.core.multiarray", "scalar", K_ND_SCALAR},
    {"numpy._core.multiarray", "scalar", K_ND_SCALAR},
    {"numpy.core.numeric", "_frombuffer", K_ND_FROMBUFFER},
    {"numpy._core.numeric", "_frombuffer", K_ND_FROMBUFFER},
    {"numpy", "ndarray", K_NDARRAY},
    {"numpy", "array", K_ND_ARRAY},
    {"numpy", "dtype", K_DTYPE},
    {"numpy", "datetime64", K_DATETIME64},
    {"numpy", "timedelta64", K_TIMEDELTA64},
    {"pandas.core.frame", "DataFrame", K_DATAFRAME},
    {"pandas", "DataFrame", K_DATAFRAME},
    {"pandas.core.series", "Series", K_SERIES},
    {"pandas", "Series", K_SERIES},
    {"pandas.core.indexes.base", "_new_Index", K_NEW_INDEX},
    {"pandas.core.indexes.datetimes", "_new_DatetimeIndex", K_NEW_INDEX},
    {"pandas.core.indexes.period", "_new_PeriodIndex", K_NEW_INDEX},
    {"pandas.core.indexes.timedeltas", "_new_TimedeltaIndex", K_NEW_INDEX},
    {"pandas.core.indexes.interval", "_new_IntervalIndex", K_NEW_INDEX},
    {"pandas._libs.tslibs.timestamps", "_unpickle_timestamp", K_TIMESTAMP},
    {"pandas._libs.tslibs.timedeltas", "_timedelta_unpickle", K_PANDAS_TIMEDELTA},
    {"pyarrow.lib", "py_buffer", K_PY_BUFFER},
};

static const char *const EXCEPTIONS[] = {
    "BaseException", "BaseExceptionGroup", "GeneratorExit", "KeyboardInterrupt", "SystemExit", "Exception",
    "ArithmeticError", "FloatingPointError", "OverflowError", "ZeroDivisionError", "AssertionError", "AttributeError",
    "BufferError", "EOFError", "ExceptionGroup", "ImportError", "ModuleNotFoundError", "LookupError", "IndexError",
    "KeyError", "MemoryError", "NameError", "UnboundLocalError", "OSError", "IOError", "EnvironmentError",
    "BlockingIOError", "ChildProcessError", "ConnectionError", "BrokenPipeError", "ConnectionAbortedError",
    "ConnectionRefusedError", "ConnectionResetError", "FileExistsError", "FileNotFoundError", "InterruptedError",
    "IsADirectoryError", "NotADirectoryError", "PermissionError", "ProcessLookupError", "TimeoutError",
    "PythonFinalizationError", "ReferenceError", "RuntimeError", "NotImplementedError", "RecursionError",
    "StopAsyncIteration", "StopIteration", "SyntaxError", "IndentationError", "TabError", "SystemError", "TypeError",
    "ValueError", "UnicodeError", "UnicodeDecodeError", "UnicodeEncodeError", "UnicodeTranslateError", "Warning",
    "BytesWarning", "DeprecationWarning", "EncodingWarning", "FutureWarning", "ImportWarning",
    "PendingDeprecationWarning", "ResourceWarning", "RuntimeWarning", "SyntaxWarning", "UnicodeWarning",
    "UserWarning",
};

static bool same_text(const uint8_t *a, size_t len, const char *b)
{
    return strlen(b) == len && memcmp(a, b, len) == 0;
}

static known find_known(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len)
{
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (same_text(name, name_len, KNOWN[i].name) && same_text(module, module_len, KNOWN[i].module))
            return KNOWN[i].what;
    if (same_text(module, module_len, "builtins"))
        for (size_t i = 0; i < sizeof EXCEPTIONS / sizeof *EXCEPTIONS; i++)
            if (same_text(name, name_len, EXCEPTIONS[i])) return K_EXCEPTION;
    return K_NOTHING;
}

/* ------------------------------------------------------------------ basics */

static bool fail(vm *v, sat_status status)
{
    v->status = status;
    return false;
}

static bool broken(vm *v, const char *what)
{
    return fail(v, sat_fail(v->err, SAT_PROTOCOL, "broken pickle: %s (at byte %zu)", what,
                            (size_t)(v->scan.pos - v->scan.start)));
}

static bool no_memory(vm *v)
{
    return fail(v, sat_fail_nomem(v->err));
}

/* A call may copy what it is given, and the memo gives the same thing again for two bytes: bounded by what a pickle
 * that brings its own data would copy. */
static bool charge(vm *v, uint64_t bytes)
{
    if (bytes > v->budget)
        return fail(v, sat_fail(v->err, SAT_LIMIT, "the pickle makes far more data than it holds (limits.nodes)"));
    v->budget -= bytes;
    return true;
}

/* Room for one more element. */
static bool room(vm *v, void *array, size_t *cap, size_t used, size_t extra, size_t size)
{
    size_t need, bytes, n = *cap ? *cap : 32;
    if (used + extra <= *cap) return true;
    if (!sat_add(used, extra, &need)) return no_memory(v);
    while (n < need && n <= SIZE_MAX / 2) n *= 2;
    if (n < need || !sat_mul(n, size, &bytes)) return no_memory(v);
    void *old;
    memcpy(&old, array, sizeof old);
    void *bigger = realloc(old, bytes);
    if (bigger == NULL) return no_memory(v);
    memcpy(array, &bigger, sizeof bigger);
    *cap = n;
    return true;
}

#define ROOM(v, array, cap, used, extra) room((v), &(array), &(cap), (used), (extra), sizeof *(array))

static size_t fence(const vm *v)
{
    return v->nmarks ? v->marks[v->nmarks - 1] : 0;
}

static bool need(vm *v, size_t n)
{
    return v->depth - fence(v) >= n ? true : broken(v, "it takes more from the stack than is there");
}

static inline bool push(vm *v, slot s)
{
    if (v->depth == v->stack_cap && !ROOM(v, v->stack, v->stack_cap, v->depth, 1)) return false;
    v->stack[v->depth++] = s;
    return true;
}

static slot slot_none(void)
{
    return (slot){.kind = S_NONE};
}

static slot slot_int(int64_t i)
{
    return (slot){.kind = S_INT, .u.i = i};
}

static slot slot_object(uint32_t index)
{
    return (slot){.kind = S_OBJ, .u.i = index};
}

static object *object_of(vm *v, slot s)
{
    return s.kind == S_OBJ ? &v->objects[s.u.i] : NULL;
}

static bool is_kind(vm *v, slot s, object_kind kind)
{
    return s.kind == S_OBJ && v->objects[s.u.i].kind == kind;
}

static unsigned height_of(const vm *v, slot s)
{
    return s.kind == S_OBJ ? v->objects[s.u.i].height : 0;
}

static bool too_deep(vm *v)
{
    return fail(v, sat_fail(v->err, SAT_LIMIT, "the pickle nests deeper than %u (limits.depth)", v->max_height));
}

/* Notes that the object holds a thing of this height. */
static bool raise_height(vm *v, uint32_t index, unsigned inner)
{
    if (inner < v->objects[index].height) return true;
    if (inner + 1 > v->max_height) return too_deep(v);
    v->objects[index].height = (uint16_t)(inner + 1);
    return true;
}

static bool new_object(vm *v, object_kind kind, uint32_t *index)
{
    if (v->nobjects >= UINT32_MAX - 1) return no_memory(v);
    if (v->nobjects == v->objects_cap && !ROOM(v, v->objects, v->objects_cap, v->nobjects, 1)) return false;
    *index = (uint32_t)v->nobjects++;
    v->objects[*index] = (object){.kind = (uint8_t)kind, .height = kind <= O_BYTES ? 0 : 1};
    return true;
}

/* Makes the Lua value on top of the stack an object, and takes it off. */
static bool adopt(vm *v, object_kind kind, slot *out)
{
    uint32_t index;
    if (!new_object(v, kind, &index)) return false;
    v->objects[index].flags = F_MADE;
    lua_rawseti(v->L, LS_OBJECTS, (lua_Integer)index);
    *out = slot_object(index);
    return true;
}

/* n slots in the pool. */
static bool to_pool(vm *v, const slot *from, size_t n, uint32_t *off)
{
    if (n > UINT32_MAX - v->npool) return no_memory(v);
    if (!ROOM(v, v->pool, v->pool_cap, v->npool, n)) return false;
    *off = (uint32_t)v->npool;
    if (n > 0) memcpy(v->pool + v->npool, from, n * sizeof *from);
    v->npool += n;
    return true;
}

static inline bool push_value(vm *v, slot s);
static bool text_of(vm *v, slot s, const uint8_t **data, size_t *len);

/* ---- bytes inside objects
 *
 * A string that was bytes goes back as str when it is UTF-8. Whoever uses the value may live with that, but what is in an
 * inert object must go back as it came. Which strings of a container were bytes is noted in LS_BYTES (container → key →
 * what of the entry), and when a container turns out to be part of an object, they become py.bytes. */

enum { NOTED_VALUE = 1, NOTED_KEY = 2 };

static bool is_bytes(vm *v, slot s)
{
    return s.kind == S_BYTES || is_kind(v, s, O_BYTES) ||
           (is_kind(v, s, O_BUFFER) && (v->objects[s.u.i].flags & F_READONLY));
}

static bool keep_bytes(vm *v, unsigned depth);

/* The first bytes came: what objects have by now is looked at. */
static bool begin_notes(vm *v)
{
    lua_State *L = v->L;
    lua_newtable(L);
    lua_replace(L, LS_BYTES);
    for (uint32_t i = 0; i < v->nobjects; i++) {
        if (v->objects[i].kind != O_OBJECT) continue;
        lua_rawgeti(L, LS_OBJECTS, i);
        if (!keep_bytes(v, 0)) return false;
        lua_pop(L, 1);
    }
    return true;
}

/* Notes that an entry of the table at `container` was bytes; its key is on top of the stack, and is popped. *kept:
 * that was not needed, since the table is part of an object. */
static bool note_bytes(vm *v, int container, lua_Integer what, bool *kept)
{
    lua_State *L = v->L;
    int key = lua_gettop(L);
    if (lua_isnil(L, LS_BYTES) && !begin_notes(v)) return false;
    lua_pushvalue(L, container);
    int noted = lua_rawget(L, LS_BYTES);
    *kept = noted == LUA_TBOOLEAN;
    if (*kept) {
        lua_settop(L, key - 1);
        return true;
    }
    if (noted == LUA_TNIL) {
        lua_newtable(L);
        lua_replace(L, -2);
        lua_pushvalue(L, container);
        lua_pushvalue(L, -2);
        lua_rawset(L, LS_BYTES);
    }
    lua_pushvalue(L, key);
    lua_rawget(L, -2);
    what |= lua_tointeger(L, -1);
    lua_pushvalue(L, key);
    lua_pushinteger(L, what);
    lua_rawset(L, -4);
    lua_settop(L, key - 1);
    return true;
}

/* The string on top of the stack becomes py.bytes where it would go back as str. */
static bool box_bytes(vm *v)
{
    lua_State *L = v->L;
    size_t len;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
    if (text == NULL) return true;
    if (len > SHORT_STRING && !charge(v, len)) return false; /* the same one may come again and again */
    if (!sat_utf8_valid((const uint8_t *)text, len)) return true;
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    satL_py_set(L, PY_BYTES);
    return true;
}

/* Of the keys of the dict at `dict` those noted become py.bytes, also in the order of an OrderedDict. */
static bool box_keys(vm *v, int dict, int notes)
{
    lua_State *L = v->L;
    bool ordered = lua_rawgetp(L, dict, &satL_py_extra) == LUA_TTABLE;
    int order = lua_gettop(L), places = order + 1;
    lua_newtable(L); /* key → its place in the order */
    lua_Integer n = ordered ? (lua_Integer)lua_rawlen(L, order) : 0;
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, order, i);
        lua_pushinteger(L, i);
        lua_rawset(L, places);
    }
    for (lua_pushnil(L); lua_next(L, notes); lua_settop(L, places + 1)) {
        int key = places + 1;
        if (!(lua_tointeger(L, -1) & NOTED_KEY)) continue;
        lua_pushvalue(L, key);
        if (!box_bytes(v)) return false;
        if (lua_type(L, -1) != LUA_TTABLE) continue;
        lua_pushvalue(L, key);
        if (lua_rawget(L, places) == LUA_TNUMBER) {
            lua_pushvalue(L, -2);
            lua_rawseti(L, order, lua_tointeger(L, -2));
        }
        lua_pop(L, 1);
        lua_pushvalue(L, key);
        lua_rawget(L, dict);
        lua_rawset(L, dict); /* the box, the value */
        lua_pushvalue(L, key);
        lua_pushnil(L);
        lua_rawset(L, dict);
    }
    lua_settop(L, order - 1);
    return true;
}

/* Makes py.bytes of all that was bytes in the value on top of the stack, at any depth: an object nests up to three
 * tables. Each table is looked at once. */
static bool keep_bytes(vm *v, unsigned depth)
{
    lua_State *L = v->L;
    int value = lua_gettop(L), kind = lua_type(L, value);
    if (lua_isnil(L, LS_BYTES)) return true;
    if (depth > 3 * v->max_height) return too_deep(v);
    luaL_checkstack(L, 16, "pickle");
    if (kind == LUA_TUSERDATA) { /* an array of objects has them in a list */
        bool ok = lua_getiuservalue(L, value, 1) != LUA_TTABLE || keep_bytes(v, depth + 1);
        lua_settop(L, value);
        return ok;
    }
    if (kind != LUA_TTABLE) return true;
    lua_pushvalue(L, value);
    int noted = lua_rawget(L, LS_BYTES);
    if (noted == LUA_TBOOLEAN) {
        lua_settop(L, value);
        return true;
    }
    lua_pushvalue(L, value);
    lua_pushboolean(L, true);
    lua_rawset(L, LS_BYTES);
    if (noted == LUA_TTABLE) {
        int notes = value + 1;
        bool keys = false;
        for (lua_pushnil(L); lua_next(L, notes); lua_settop(L, notes + 1)) {
            lua_Integer what = lua_tointeger(L, -1);
            keys = keys || (what & NOTED_KEY);
            if (!(what & NOTED_VALUE)) continue;
            lua_pushvalue(L, notes + 1);
            lua_pushvalue(L, -1);
            lua_rawget(L, value);
            if (!box_bytes(v)) return false;
            lua_rawset(L, value);
        }
        if (keys && !box_keys(v, value, notes)) return false;
    }
    lua_settop(L, value);
    for (lua_pushnil(L); lua_next(L, value); lua_settop(L, value + 1)) {
        if (!keep_bytes(v, depth + 1)) return false;
        lua_pushvalue(L, value + 1);
        if (!keep_bytes(v, depth + 1)) return false;
    }
    lua_settop(L, value);
    return true;
}

/* The same for the value of a slot, which is on top of the stack. */
static bool keep(vm *v, slot s)
{
    if (is_bytes(v, s)) return box_bytes(v);
    return s.kind != S_OBJ || keep_bytes(v, 0);
}

/* Whether the table on top of the stack was looked at already: what comes later is kept at once. */
static bool is_kept(lua_State *L)
{
    if (lua_isnil(L, LS_BYTES)) return false;
    lua_pushvalue(L, -1);
    bool kept = lua_rawget(L, LS_BYTES) == LUA_TBOOLEAN;
    lua_pop(L, 1);
    return kept;
}

/* Gives an object its Lua value. `room_for` is how many items will follow. */
static bool make(vm *v, uint32_t index, size_t room_for)
{
    lua_State *L = v->L;
    object o = v->objects[index];
    int narr = room_for > INT32_MAX / 32 ? INT32_MAX / 32 : (int)room_for;
    if (o.flags & F_MADE) return true;
    v->objects[index].flags |= F_MADE;
    switch ((object_kind)o.kind) {
    case O_LIST:
        lua_createtable(L, narr, 0);
        break;
    case O_SET:
        lua_createtable(L, narr, 0);
        lua_pushvalue(L, LS_SET);
        lua_setmetatable(L, -2);
        break;
    case O_DICT:
        lua_createtable(L, 0, narr);
        lua_pushvalue(L, LS_DICT);
        lua_setmetatable(L, -2);
        break;
    case O_TUPLE:
        lua_createtable(L, (int)(o.count > INT32_MAX / 32 ? INT32_MAX / 32 : o.count), 0);
        lua_pushvalue(L, LS_TUPLE);
        lua_setmetatable(L, -2);
        for (size_t i = 0; i < o.count; i++) {
            slot item = v->pool[o.off + i];
            if (!push_value(v, item)) {
                lua_pop(L, 1);
                return false;
            }
            if (is_bytes(v, item)) {
                bool kept; /* it is in no object yet */
                lua_pushinteger(L, (lua_Integer)i + 1);
                if (!note_bytes(v, lua_gettop(L) - 2, NOTED_VALUE, &kept)) return false;
            }
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case O_GLOBAL:
        lua_createtable(L, 0, 2);
        if (!push_value(v, v->pool[o.off]) || !push_value(v, v->pool[o.off + 1])) return false;
        lua_setfield(L, -3, "name");
        lua_setfield(L, -2, "module");
        satL_py_set(L, PY_REF);
        break;
    case O_BYTEARRAY:
    case O_BUFFER: {
        sat_slice bytes = {NULL, NULL, 0};
        if (o.kind == O_BUFFER)
            bytes = v->buffers[o.count];
        else
            bytes = (sat_slice){NULL, v->pool[o.off].u.s, v->pool[o.off].len};
        if (!charge(v, bytes.len)) return false;
        if (o.flags & F_READONLY) {
            lua_pushlstring(L, bytes.len ? (const char *)bytes.data : "", bytes.len);
            break;
        }
        lua_createtable(L, 0, 1);
        lua_pushlstring(L, bytes.len ? (const char *)bytes.data : "", bytes.len);
        lua_setfield(L, -2, "value");
        satL_py_set(L, PY_BYTEARRAY);
        break;
    }
    case O_NDARRAY:
        return broken(v, "an array is used before it has its data");
    case O_VALUE:
    case O_BYTES:
    case O_OBJECT:
    case O_WRAPPER:
    case O_DTYPE:
    case O_UUID:
        return broken(v, "internal error"); /* always made at once */
    }
    lua_rawseti(L, LS_OBJECTS, (lua_Integer)index);
    return true;
}

static bool push_object(vm *v, uint32_t index)
{
    if (!(v->objects[index].flags & F_MADE) && !make(v, index, 0)) return false;
    lua_rawgeti(v->L, LS_OBJECTS, (lua_Integer)index);
    return true;
}

/* Pushes one Lua value, None as saturn.null. */
static inline bool push_value(vm *v, slot s)
{
    lua_State *L = v->L;
    switch ((slot_kind)s.kind) {
    case S_NONE:
        satL_push_null(L);
        return true;
    case S_FALSE:
    case S_TRUE:
        lua_pushboolean(L, s.kind == S_TRUE);
        return true;
    case S_INT:
        lua_pushinteger(L, s.u.i);
        return true;
    case S_FLOAT:
        lua_pushnumber(L, s.u.f);
        return true;
    case S_STR:
    case S_BYTES:
        if (s.len > SHORT_STRING && !charge(v, s.len)) return false;
        lua_pushlstring(L, (const char *)s.u.s, s.len);
        return true;
    case S_OBJ:
        return push_object(v, (uint32_t)s.u.i);
    }
    return broken(v, "internal error");
}

/* Pushes the value, nil for None. */
static bool push_or_nil(vm *v, slot s)
{
    if (s.kind != S_NONE) return push_value(v, s);
    lua_pushnil(v->L);
    return true;
}

/* The bytes of a string of any kind; valid as long as the machine runs. */
static bool text_of(vm *v, slot s, const uint8_t **data, size_t *len)
{
    if (s.kind == S_STR || s.kind == S_BYTES) {
        *data = s.u.s;
        *len = s.len;
        return true;
    }
    if (s.kind == S_OBJ) {
        const object *o = &v->objects[s.u.i];
        if (o->kind == O_VALUE || o->kind == O_BYTES) {
            lua_rawgeti(v->L, LS_OBJECTS, s.u.i);
            bool ok = lua_type(v->L, -1) == LUA_TSTRING;
            if (ok) *data = (const uint8_t *)lua_tolstring(v->L, -1, len);
            lua_pop(v->L, 1); /* the table of objects keeps it */
            return ok;
        }
        if (o->kind == O_BYTEARRAY) return text_of(v, v->pool[o->off], data, len);
        if (o->kind == O_BUFFER) {
            static const uint8_t nothing[1];
            *len = v->buffers[o->count].len;
            *data = *len ? v->buffers[o->count].data : nothing;
            return true;
        }
    }
    return false;
}

/* The bytes with the block that keeps them, for an array to share. */
static bool slice_of(vm *v, slot s, sat_slice *out)
{
    *out = (sat_slice){NULL, NULL, 0};
    if (s.kind == S_OBJ && v->objects[s.u.i].kind == O_BUFFER) {
        *out = v->buffers[v->objects[s.u.i].count];
        return true;
    }
    if (!text_of(v, s, &out->data, &out->len)) return false;
    if (s.kind == S_OBJ && v->objects[s.u.i].kind == O_BYTEARRAY) s = v->pool[v->objects[s.u.i].off];
    bool inside = (uintptr_t)out->data >= (uintptr_t)v->pickle.data &&
                  (uintptr_t)out->data + out->len <= (uintptr_t)v->pickle.data + v->pickle.len;
    if (inside && (s.kind == S_STR || s.kind == S_BYTES)) {
        out->block = v->pickle.block; /* a slice of the pickle itself */
        return true;
    }
    return charge(v, out->len);
}

static bool int_of(slot s, int64_t *out)
{
    if (s.kind == S_INT)
        *out = s.u.i;
    else if (s.kind == S_TRUE || s.kind == S_FALSE)
        *out = s.kind == S_TRUE;
    else
        return false;
    return true;
}

static bool number_of(slot s, double *out)
{
    int64_t i;
    if (s.kind == S_FLOAT) {
        *out = s.u.f;
        return true;
    }
    if (!int_of(s, &i)) return false;
    *out = (double)i;
    return true;
}

static slot item(vm *v, uint32_t tuple, size_t i)
{
    return v->pool[v->objects[tuple].off + i];
}

static size_t count(vm *v, uint32_t tuple)
{
    return v->objects[tuple].count;
}

static slot string_slot(vm *v, const uint8_t *data, size_t len, slot_kind kind, bool *ok)
{
    *ok = true;
    if (len <= UINT32_MAX) return (slot){.kind = (uint8_t)kind, .len = (uint32_t)len, .u.s = data};
    slot out = slot_none();
    lua_pushlstring(v->L, (const char *)data, len);
    *ok = adopt(v, kind == S_BYTES ? O_BYTES : O_VALUE, &out);
    return out;
}

/* Sets a field of the table on top of the Lua stack. */
static bool set_field(vm *v, const char *name, slot s)
{
    if (!push_value(v, s)) return false;
    lua_setfield(v->L, -2, name);
    return true;
}

/* The same for what is inside an inert object. */
static bool set_kept(vm *v, const char *name, slot s)
{
    if (!push_value(v, s) || !keep(v, s)) return false;
    lua_setfield(v->L, -2, name);
    return true;
}

static void set_int(vm *v, const char *name, int64_t value)
{
    lua_pushinteger(v->L, value);
    lua_setfield(v->L, -2, name);
}

/* -------------------------------------------------------------------- memo */

static slot *far_find(const vm *v, uint64_t index, bool add)
{
    if (v->far_cap == 0) return NULL;
    /* mixed with an address, so that nobody can choose indices that meet */
    uint64_t mixed = (index ^ (uint64_t)(uintptr_t)v->far) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    size_t mask = v->far_cap - 1, at = (size_t)(mixed >> 32) & mask;
    while (v->far[at].key != 0 && v->far[at].key != index + 1) at = (at + 1) & mask;
    if (v->far[at].key == 0) {
        if (!add) return NULL;
        v->far[at].key = index + 1;
    }
    return &v->far[at].value;
}

static slot *memo_find(vm *v, uint64_t index)
{
    if (index < v->memo_cap && v->memo[index].kind != FREE_MEMO) return &v->memo[index];
    return far_find(v, index, false);
}

static bool memo_put_slow(vm *v, uint64_t index, slot value)
{
    slot *found = memo_find(v, index);
    if (found != NULL) {
        *found = value;
        return true;
    }
    if (v->memo_len >= v->max_memo)
        return fail(v, sat_fail(v->err, SAT_LIMIT, "the pickle memoizes more than %llu values (limits.memo)",
                                (unsigned long long)v->max_memo));
    v->memo_len++;
    /* The array may grow to twice the number of entries; an index beyond that must not make it larger. */
    if (index >= v->memo_cap && index < v->memo_len * 2 + 64) {
        size_t old = v->memo_cap;
        if (!ROOM(v, v->memo, v->memo_cap, (size_t)index, 1)) return false;
        for (size_t i = old; i < v->memo_cap; i++) v->memo[i].kind = FREE_MEMO;
    }
    if (index < v->memo_cap) {
        v->memo[index] = value;
        return true;
    }
    if ((v->nfar + 1) * 2 > v->far_cap) {
        size_t old_cap = v->far_cap, cap = old_cap ? old_cap * 2 : 32;
        far_memo *old = v->far, *bigger = calloc(cap, sizeof *bigger);
        if (bigger == NULL) return no_memory(v);
        v->far = bigger;
        v->far_cap = cap;
        for (size_t i = 0; i < old_cap; i++)
            if (old[i].key != 0) *far_find(v, old[i].key - 1, true) = old[i].value;
        free(old);
    }
    v->nfar++;
    *far_find(v, index, true) = value;
    return true;
}

static inline bool memo_put(vm *v, uint64_t index, slot value)
{
    if (index == v->memo_len && index < v->memo_cap && v->nfar == 0 && index < v->max_memo &&
        v->memo[index].kind == FREE_MEMO) {
        v->memo[index] = value;
        v->memo_len++;
        return true;
    }
    return memo_put_slow(v, index, value);
}

static bool memo_get_slow(vm *v, uint64_t index, slot *out)
{
    slot *found = memo_find(v, index);
    if (found == NULL) return broken(v, "it refers to a memo entry that is not there");
    if (found->kind == S_STR || found->kind == S_BYTES) {
        /* used again: one Lua string for all uses from now on */
        slot shared;
        lua_pushlstring(v->L, (const char *)found->u.s, found->len);
        if (!adopt(v, found->kind == S_BYTES ? O_BYTES : O_VALUE, &shared)) return false;
        *found = shared;
    }
    *out = *found;
    return true;
}

static inline bool memo_get(vm *v, uint64_t index, slot *out)
{
    if (index < v->memo_cap && v->memo[index].kind == S_OBJ) {
        *out = v->memo[index];
        return true;
    }
    return memo_get_slow(v, index, out);
}

/* -------------------------------------------------------------- containers */

/* Makes what is in a container or a call before the container exists, so that making things never recurses. */
static bool settle(vm *v, const slot *items, size_t n, unsigned *height)
{
    for (size_t i = 0; i < n; i++) {
        if (items[i].kind != S_OBJ) continue;
        uint32_t index = (uint32_t)items[i].u.i;
        const object *o = &v->objects[index];
        if (o->height > *height) *height = o->height;
        if (o->kind != O_TUPLE || (o->flags & F_MADE)) continue;
        if (!make(v, index, 0)) return false;
    }
    return true;
}

static bool new_tuple(vm *v, const slot *items, size_t n, slot *out)
{
    unsigned height = 0;
    uint32_t index, off;
    if (!settle(v, items, n, &height)) return false;
    if (!to_pool(v, items, n, &off) || !new_object(v, O_TUPLE, &index)) return false;
    v->objects[index].count = (uint32_t)n;
    v->objects[index].off = off;
    *out = slot_object(index);
    return raise_height(v, index, height);
}

/* Appends to a list, a deque, a set, or the list items of an inert object. */
static bool extend(vm *v, uint32_t target, const slot *items, size_t n)
{
    lua_State *L = v->L;
    object o = v->objects[target];
    unsigned height = 0;
    lua_Integer at = o.count;
    if (o.kind == O_OBJECT) {
        lua_rawgeti(L, LS_OBJECTS, target);
        if (lua_getfield(L, -1, "listitems") != LUA_TTABLE) {
            lua_pop(L, 1);
            lua_createtable(L, n > INT32_MAX / 32 ? 0 : (int)n, 0);
            lua_pushvalue(L, -1);
            lua_setfield(L, -3, "listitems");
        }
        lua_remove(L, -2);
        at = (lua_Integer)lua_rawlen(L, -1);
    } else {
        if (n > UINT32_MAX - o.count) return no_memory(v);
        if (!make(v, target, n)) return false;
        lua_rawgeti(L, LS_OBJECTS, target);
    }
    bool kept = o.kind == O_OBJECT || is_kept(L);
    for (size_t i = 0; i < n; i++) {
        slot s = items[i];
        if (s.kind == S_OBJ && v->objects[s.u.i].height > height) height = v->objects[s.u.i].height;
        if (s.kind == S_INT)
            lua_pushinteger(L, s.u.i);
        else if (!push_value(v, s))
            return false;
        at++;
        if (!kept && is_bytes(v, s)) {
            lua_pushinteger(L, at);
            if (!note_bytes(v, lua_gettop(L) - 2, NOTED_VALUE, &kept)) return false;
        }
        if (kept && !keep(v, s)) return false;
        lua_rawseti(L, -2, at);
    }
    lua_pop(L, 1);
    v->objects[target].count += (uint32_t)n;
    return raise_height(v, target, height);
}

/* The string on top of the stack, a key of the dict below it, becomes an entry {value = string} of that type. */
static void box_key(lua_State *L, satL_py box)
{
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    satL_py_set(L, box);
}

/* The key on top of the stack is a str. The dict below it may have that text as bytes, which become a py.bytes. */
static bool move_bytes_key(vm *v)
{
    lua_State *L = v->L;
    int key = lua_gettop(L), dict = key - 1, box = key + 1;
    if (lua_isnil(L, LS_BYTES)) return true;
    lua_pushvalue(L, key);
    box_key(L, PY_BYTES);
    lua_pushvalue(L, dict);
    bool noted = lua_rawget(L, LS_BYTES) == LUA_TTABLE;
    int notes = lua_gettop(L);
    lua_Integer what = 0;
    if (noted) {
        lua_pushvalue(L, key);
        lua_rawget(L, notes);
        what = lua_tointeger(L, -1);
    }
    if (what & NOTED_KEY) {
        lua_pushvalue(L, box);
        lua_pushinteger(L, what & NOTED_VALUE);
        lua_rawset(L, notes);
        lua_pushvalue(L, key);
        lua_pushnil(L);
        lua_rawset(L, notes);
        lua_pushvalue(L, box);
        lua_pushvalue(L, key);
        lua_rawget(L, dict);
        lua_rawset(L, dict);
        lua_pushvalue(L, key);
        lua_pushnil(L);
        lua_rawset(L, dict);
        lua_Integer n = lua_rawgetp(L, dict, &satL_py_extra) == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
        if (!charge(v, (uint64_t)n)) return false;
        for (lua_Integer i = 1; i <= n; i++) { /* its place in an OrderedDict */
            lua_rawgeti(L, -1, i);
            bool same = lua_rawequal(L, -1, key);
            lua_pop(L, 1);
            if (!same) continue;
            lua_pushvalue(L, box);
            lua_rawseti(L, -2, i);
        }
    }
    lua_settop(L, key);
    return true;
}

/* Pushes a dict key; keys that a Lua table cannot have, or would confuse, are boxed. The dict is below on the stack. */
static bool push_key(vm *v, object *o, slot key)
{
    lua_State *L = v->L;
    if (!push_value(v, key)) return false;
    if (key.kind == S_FLOAT) {
        if (isnan(key.u.f)) box_key(L, PY_FLOAT);
        return true;
    }
    if (key.kind != S_STR && key.kind != S_BYTES && !(key.kind == S_OBJ && v->objects[key.u.i].kind <= O_BYTES)) return true;
    bool bytes = key.kind == S_BYTES || is_kind(v, key, O_BYTES);
    bool others = o->flags & (bytes ? F_STR_KEYS : F_BYTES_KEYS);
    o->flags |= bytes ? F_BYTES_KEYS : F_STR_KEYS;
    if (!others) return true;
    lua_pushvalue(L, -1);
    bool there = lua_rawget(L, -3) != LUA_TNIL;
    lua_pop(L, 1);
    if (there && !bytes) return move_bytes_key(v);
    if (there) box_key(L, PY_BYTES);
    return true;
}

/* What most dicts are made of: keys that are str, and values that are neither bytes nor objects. */
static inline bool is_text_key(const vm *v, slot s)
{
    return s.kind == S_STR || (s.kind == S_OBJ && v->objects[s.u.i].kind == O_VALUE && v->objects[s.u.i].height == 0);
}

static inline bool is_plain(slot s)
{
    return s.kind != S_BYTES && s.kind != S_OBJ;
}

/* Sets n/2 pairs in a dict or the dict items of an inert object. */
static bool set_items(vm *v, uint32_t target, const slot *items, size_t n)
{
    lua_State *L = v->L;
    object o = v->objects[target];
    unsigned height = 0;
    if (n % 2 != 0) return broken(v, "a dict has a key without a value");
    if (o.kind == O_OBJECT) {
        lua_rawgeti(L, LS_OBJECTS, target);
        if (lua_getfield(L, -1, "dictitems") != LUA_TTABLE) {
            lua_pop(L, 1);
            lua_createtable(L, 0, 0);
            lua_pushvalue(L, LS_DICT);
            lua_setmetatable(L, -2);
            lua_pushvalue(L, -1);
            lua_setfield(L, -3, "dictitems");
        }
        lua_remove(L, -2);
    } else {
        if (!make(v, target, n / 2)) return false;
        lua_rawgeti(L, LS_OBJECTS, target);
    }
    bool kept = o.kind == O_OBJECT || is_kept(L);
    bool ordered = (o.flags & F_ORDERED) != 0;
    if (ordered && lua_rawgetp(L, -1, &satL_py_extra) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_createtable(L, n > INT32_MAX / 32 ? 0 : (int)(n / 2), 0);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, -3, &satL_py_extra);
    }
    if (ordered) lua_insert(L, -2); /* order, dict */
    bool simple = !ordered && !kept;
    for (size_t i = 0; i < n; i += 2) {
        if (simple && !(o.flags & F_BYTES_KEYS) && is_text_key(v, items[i]) && is_plain(items[i + 1])) {
            o.flags |= F_STR_KEYS;
            if (!push_value(v, items[i]) || !push_value(v, items[i + 1])) return false;
            lua_rawset(L, -3);
            continue;
        }
        unsigned h = height_of(v, items[i]), hv = height_of(v, items[i + 1]);
        if (hv > h) h = hv;
        if (h > height) height = h;
        if (!push_key(v, &o, items[i])) return false;
        lua_Integer bytes = is_bytes(v, items[i + 1]) ? NOTED_VALUE : 0;
        if (is_bytes(v, items[i]) && lua_type(L, -1) == LUA_TSTRING) bytes |= NOTED_KEY;
        if (bytes && !kept) {
            lua_pushvalue(L, -1);
            if (!note_bytes(v, lua_gettop(L) - 2, bytes, &kept)) return false;
        }
        if (kept && !keep(v, items[i])) return false;
        if (ordered) {
            lua_pushvalue(L, -1);
            if (lua_rawget(L, -3) == LUA_TNIL) {
                lua_pushvalue(L, -2);
                lua_rawseti(L, -5, (lua_Integer)lua_rawlen(L, -5) + 1);
            }
            lua_pop(L, 1);
        }
        if (!push_value(v, items[i + 1])) return false;
        if (kept && !keep(v, items[i + 1])) return false;
        lua_rawset(L, -3);
    }
    lua_pop(L, ordered ? 2 : 1);
    v->objects[target].flags |= o.flags;
    return raise_height(v, target, height);
}

/* ----------------------------------------------------------- inert objects */

static bool new_global(vm *v, slot module, slot name, slot *out)
{
    const uint8_t *m, *n;
    size_t mlen, nlen;
    uint32_t index, off;
    bool ok;
    if (is_bytes(v, module) || is_bytes(v, name) || !text_of(v, module, &m, &mlen) ||
        !text_of(v, name, &n, &nlen) || mlen == 0 || nlen == 0)
        return broken(v, "a global is not named by texts");
    if (mlen + nlen > 2 * SHORT_STRING && !charge(v, mlen + nlen)) return false; /* it may come again and again */
    if (!sat_utf8_valid(m, mlen) || !sat_utf8_valid(n, nlen)) return broken(v, "a global is not named by texts");
    /* names of Python 2 */
    if (same_text(m, mlen, "__builtin__") || same_text(m, mlen, "exceptions")) {
        static const char *const renamed[][2] = {{"long", "int"}, {"unicode", "str"}, {"xrange", "range"},
                                                 {"unichr", "chr"}, {"StandardError", "Exception"}};
        for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++) {
            if (!same_text(n, nlen, renamed[i][0])) continue;
            n = (const uint8_t *)renamed[i][1];
            nlen = strlen(renamed[i][1]);
            name = string_slot(v, n, nlen, S_STR, &ok);
            break;
        }
        module = string_slot(v, m = (const uint8_t *)"builtins", mlen = 8, S_STR, &ok);
    }
    if (same_text(m, mlen, "copy_reg")) module = string_slot(v, m = (const uint8_t *)"copyreg", mlen = 7, S_STR, &ok);
    slot names[2] = {module, name};
    known what = find_known(m, mlen, n, nlen);
    for (int i = 0; i < 2; i++) { /* each object of the class has its names */
        if (names[i].kind != S_STR || names[i].len <= SHORT_STRING) continue;
        if (!push_value(v, names[i]) || !adopt(v, O_VALUE, &names[i])) return false;
    }
    if (!to_pool(v, names, 2, &off) || !new_object(v, O_GLOBAL, &index)) return false;
    v->objects[index].off = off;
    v->objects[index].known = (uint16_t)what;
    *out = slot_object(index);
    return true;
}

/* Sets module, name and, when it is more than a name, class in the table on top. */
static bool set_class(vm *v, slot callable)
{
    lua_State *L = v->L;
    object *o = object_of(v, callable);
    if (o != NULL && o->kind == O_GLOBAL) {
        slot module = v->pool[o->off], name = v->pool[o->off + 1];
        return set_field(v, "module", module) && set_field(v, "name", name);
    }
    if (!set_field(v, "class", callable)) return false;
    /* A class that came by value: cloudpickle's _make_skeleton_class(type, name, bases, {"__module__": ...}, ...). */
    const char *module = NULL, *name = "?";
    int top = lua_gettop(L);
    if (o != NULL && o->kind == O_OBJECT && o->known == K_SKELETON_CLASS) {
        lua_rawgeti(L, LS_OBJECTS, callable.u.i);
        if (lua_getfield(L, -1, "args") == LUA_TTABLE) {
            int args = lua_gettop(L);
            if (lua_rawgeti(L, args, 2) == LUA_TSTRING) name = lua_tostring(L, -1);
            if (lua_rawgeti(L, args, 4) == LUA_TTABLE) {
                lua_pushliteral(L, "__module__");
                if (lua_rawget(L, -2) == LUA_TSTRING) module = lua_tostring(L, -1);
            }
        }
        if (module == NULL) {
            lua_rawgeti(L, LS_OBJECTS, callable.u.i);
            if (lua_getfield(L, -1, "attributes") == LUA_TTABLE) {
                lua_pushliteral(L, "__module__");
                if (lua_rawget(L, -2) == LUA_TSTRING) module = lua_tostring(L, -1);
            }
        }
    }
    lua_pushstring(L, module != NULL ? module : "__main__");
    lua_setfield(L, top, "module");
    lua_pushstring(L, name);
    lua_setfield(L, top, "name");
    lua_settop(L, top);
    return true;
}

/* An object that stands for callable(*args), or for cls.__new__(cls, *args) when `is_new`. */
static bool new_inert(vm *v, slot callable, slot args, slot kwargs, bool is_new, satL_py type, slot *out)
{
    lua_State *L = v->L;
    unsigned height = height_of(v, callable);
    known what = is_kind(v, callable, O_GLOBAL) ? (known)v->objects[callable.u.i].known : K_NOTHING;
    if (height_of(v, args) > height) height = height_of(v, args);
    if (height_of(v, kwargs) > height) height = height_of(v, kwargs);
    lua_createtable(L, 0, 4);
    if (!set_class(v, callable) || !set_kept(v, "args", args)) return false;
    if (kwargs.kind != S_NONE && !set_kept(v, "kwargs", kwargs)) return false;
    if (is_new) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "new");
    }
    satL_py_set(L, type);
    if (!adopt(v, O_OBJECT, out)) return false;
    v->objects[out->u.i].known = (uint16_t)what;
    return raise_height(v, (uint32_t)out->u.i, height);
}

/* A pandas object: an inert object inside a table, so that its own fields do not hide columns of their names. */
static bool new_wrapped(vm *v, slot callable, slot args, slot kwargs, bool is_new, satL_py type, slot *out)
{
    slot inner;
    if (!new_inert(v, callable, args, kwargs, is_new, PY_OBJECT, &inner)) return false;
    lua_createtable(v->L, 0, 1);
    if (!push_value(v, inner)) return false;
    lua_rawsetp(v->L, -2, &satL_py_extra);
    satL_py_set(v->L, type);
    if (!adopt(v, O_WRAPPER, out)) return false;
    v->objects[out->u.i].count = (uint32_t)inner.u.i;
    return raise_height(v, (uint32_t)out->u.i, height_of(v, inner));
}

/* ------------------------------------------------------------------ calls */

/* Each takes the tuple of arguments and gives the result, or NOT_MINE when the arguments are not what Python's own
 * pickles have: the call then becomes an inert object. */
typedef struct call {
    slot callable;
    uint32_t args;
    size_t n;
    known what;
} call;

static outcome adopt_as(vm *v, satL_py type, object_kind kind, slot *out)
{
    satL_py_set(v->L, type);
    return adopt(v, kind, out) ? DONE : FAILED;
}

static outcome give(vm *v, slot s, satL_py type, slot *out)
{
    lua_createtable(v->L, 0, 1);
    if (!set_field(v, "value", s)) return FAILED;
    return adopt_as(v, type, O_VALUE, out);
}

static outcome call_numbers(vm *v, const call *c, slot *out)
{
    double re = 0, im = 0;
    if (c->what == K_COMPLEX) {
        if (c->n != 2 || !number_of(item(v, c->args, 0), &re) || !number_of(item(v, c->args, 1), &im)) return NOT_MINE;
        lua_createtable(v->L, 0, 2);
        lua_pushnumber(v->L, re);
        lua_setfield(v->L, -2, "re");
        lua_pushnumber(v->L, im);
        lua_setfield(v->L, -2, "im");
        return adopt_as(v, PY_COMPLEX, O_VALUE, out);
    }
    if (c->what == K_FRACTION) {
        const uint8_t *text;
        size_t len;
        if (c->n == 1 && text_of(v, item(v, c->args, 0), &text, &len) && len < 64) {
            /* the form of old releases: Fraction('1/3') */
            const uint8_t *bar = memchr(text, '/', len);
            slot parts[2] = {slot_none(), slot_int(1)};
            sat_buf le = SAT_BUF_INIT;
            size_t lens[2] = {bar ? (size_t)(bar - text) : len, bar ? len - (size_t)(bar - text) - 1 : 0};
            outcome result = DONE;
            for (int i = 0; i < (bar ? 2 : 1) && result == DONE; i++) {
                sat_buf_clear(&le);
                const char *at = (const char *)(i == 0 ? text : bar + 1);
                if (sat_bigint_parse(at, lens[i], &le, NULL) != SAT_OK || le.len > 8) {
                    result = NOT_MINE;
                } else {
                    uint64_t bits = le.len && (le.data[le.len - 1] & 0x80) ? UINT64_MAX : 0;
                    for (size_t k = le.len; k > 0; k--) bits = bits << 8 | le.data[k - 1];
                    parts[i] = slot_int((int64_t)bits);
                }
            }
            sat_buf_free(&le);
            if (result != DONE) return result;
            lua_createtable(v->L, 0, 2);
            set_field(v, "numerator", parts[0]);
            set_field(v, "denominator", parts[1]);
            return adopt_as(v, PY_FRACTION, O_VALUE, out);
        }
        if (c->n != 2) return NOT_MINE;
        lua_createtable(v->L, 0, 2);
        if (!set_field(v, "numerator", item(v, c->args, 0)) || !set_field(v, "denominator", item(v, c->args, 1)))
            return FAILED;
        return adopt_as(v, PY_FRACTION, O_VALUE, out);
    }
    /* Decimal */
    const uint8_t *text;
    size_t len;
    if (c->n != 1 || !text_of(v, item(v, c->args, 0), &text, &len)) return NOT_MINE;
    return give(v, item(v, c->args, 0), PY_DECIMAL, out);
}

static outcome call_range(vm *v, const call *c, slot *out)
{
    static const char *const fields[3] = {"start", "stop", "step"};
    if (c->n != 3) return NOT_MINE;
    lua_createtable(v->L, 0, 3);
    for (size_t i = 0; i < 3; i++) {
        if (!push_or_nil(v, item(v, c->args, i))) return FAILED;
        lua_setfield(v->L, -2, fields[i]);
    }
    return adopt_as(v, c->what == K_RANGE ? PY_RANGE : PY_SLICE, O_VALUE, out);
}

/* bytearray(...), bytes(...), _codecs.encode(text, "latin1") */
static outcome call_bytes(vm *v, const call *c, slot *out)
{
    lua_State *L = v->L;
    const uint8_t *text = (const uint8_t *)"", *codec;
    size_t len = 0, codec_len;
    bool latin1 = false;
    if (c->what == K_ENCODE) {
        if (c->n != 2 || !text_of(v, item(v, c->args, 1), &codec, &codec_len)) return NOT_MINE;
        if (!same_text(codec, codec_len, "latin1") && !same_text(codec, codec_len, "latin-1")) return NOT_MINE;
        latin1 = true;
    } else if (c->n == 2) {
        /* bytearray(text, "latin-1"), the form of Python 2 */
        if (!text_of(v, item(v, c->args, 1), &codec, &codec_len)) return NOT_MINE;
        if (!same_text(codec, codec_len, "latin1") && !same_text(codec, codec_len, "latin-1")) return NOT_MINE;
        latin1 = true;
    } else if (c->n > 1) {
        return NOT_MINE;
    }
    if (c->n > 0 && !text_of(v, item(v, c->args, 0), &text, &len)) return NOT_MINE;
    if (!charge(v, len)) return FAILED;
    if (latin1) {
        luaL_Buffer b;
        char *to = luaL_buffinitsize(L, &b, len);
        size_t used = 0;
        for (size_t i = 0; i < len; i++) {
            if (text[i] < 0x80) {
                to[used++] = (char)text[i];
            } else if ((text[i] == 0xc2 || text[i] == 0xc3) && i + 1 < len && (text[i + 1] & 0xc0) == 0x80) {
                to[used++] = (char)(uint8_t)((text[i] & 3) << 6 | (text[i + 1] & 0x3f));
                i++;
            } else {
                lua_settop(L, LS_TOP);
                return NOT_MINE;
            }
        }
        luaL_pushresultsize(&b, used);
    } else {
        lua_pushlstring(L, (const char *)text, len);
    }
    if (c->what != K_BYTEARRAY) return adopt(v, O_BYTES, out) ? DONE : FAILED;
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    return adopt_as(v, PY_BYTEARRAY, O_VALUE, out);
}

/* set(list), frozenset(list), list(), tuple(list), dict() */
static outcome call_container(vm *v, const call *c, slot *out)
{
    uint32_t index;
    if (c->n == 0) {
        if (c->what == K_TUPLE) return new_tuple(v, NULL, 0, out) ? DONE : FAILED;
        if (c->what == K_FROZENSET) {
            lua_createtable(v->L, 0, 0);
            return adopt_as(v, PY_FROZENSET, O_VALUE, out);
        }
        object_kind kind = c->what == K_LIST ? O_LIST : c->what == K_DICT ? O_DICT : O_SET;
        if (!new_object(v, kind, &index)) return FAILED;
        *out = slot_object(index);
        return DONE;
    }
    slot from = item(v, c->args, 0);
    object *o = object_of(v, from);
    if (c->n != 1 || o == NULL || o->kind != O_LIST || c->what == K_DICT || c->what == K_TUPLE) return NOT_MINE;
    /* The list was made for this call: it becomes the set. */
    if (c->what != K_LIST) {
        if (!push_value(v, from)) return FAILED;
        satL_py_set(v->L, c->what == K_SET ? PY_SET : PY_FROZENSET);
        lua_pop(v->L, 1);
        v->objects[from.u.i].kind = O_SET;
    }
    *out = from;
    return DONE;
}

static outcome call_collection(vm *v, const call *c, slot *out)
{
    lua_State *L = v->L;
    if (c->what == K_DEQUE) {
        if (c->n > 2) return NOT_MINE;
        slot items = c->n > 0 ? item(v, c->args, 0) : slot_none();
        slot maxlen = c->n > 1 ? item(v, c->args, 1) : slot_none();
        bool empty = c->n == 0 || (is_kind(v, items, O_TUPLE) && v->objects[items.u.i].count == 0) ||
                     (is_kind(v, items, O_LIST) && v->objects[items.u.i].count == 0);
        int64_t n = 0;
        if (!empty || (maxlen.kind != S_NONE && !int_of(maxlen, &n))) return NOT_MINE;
        lua_createtable(L, 0, 1);
        if (maxlen.kind != S_NONE) set_int(v, "maxlen", n);
        return adopt_as(v, PY_DEQUE, O_LIST, out);
    }
    if (c->what == K_COUNTER) {
        if (c->n == 1 && is_kind(v, item(v, c->args, 0), O_DICT)) {
            *out = item(v, c->args, 0); /* the dict was made for this call */
            if (!push_value(v, *out)) return FAILED;
            satL_py_set(L, PY_COUNTER);
            lua_pop(L, 1);
            return DONE;
        }
        if (c->n != 0) return NOT_MINE;
        lua_createtable(L, 0, 0);
        return adopt_as(v, PY_COUNTER, O_DICT, out);
    }
    if (c->what == K_DEFAULTDICT) {
        if (c->n > 1) return NOT_MINE;
        lua_createtable(L, 0, 1);
        if (c->n == 1 && item(v, c->args, 0).kind != S_NONE) {
            if (!push_value(v, item(v, c->args, 0))) return FAILED;
            lua_rawsetp(L, -2, &satL_py_extra);
        }
        return adopt_as(v, PY_DEFAULTDICT, O_DICT, out);
    }
    if (c->n != 0) return NOT_MINE;
    lua_createtable(L, 0, 1);
    if (adopt_as(v, PY_ORDEREDDICT, O_DICT, out) != DONE) return FAILED;
    v->objects[out->u.i].flags |= F_ORDERED;
    return DONE;
}

static outcome call_datetime(vm *v, const call *c, slot *out)
{
    const uint8_t *b = NULL;
    size_t len = 0;
    if (c->n < 1) return NOT_MINE;
    if (c->what == K_TIMEDELTA) {
        static const char *const fields[3] = {"days", "seconds", "microseconds"};
        int64_t parts[3] = {0, 0, 0};
        if (c->n > 3) return NOT_MINE;
        for (size_t i = 0; i < c->n; i++)
            if (!int_of(item(v, c->args, i), &parts[i])) return NOT_MINE;
        lua_createtable(v->L, 0, 3);
        for (size_t i = 0; i < 3; i++) set_int(v, fields[i], parts[i]);
        return adopt_as(v, PY_TIMEDELTA, O_VALUE, out);
    }
    if (c->what == K_TIMEZONE) {
        slot delta = item(v, c->args, 0);
        if (c->n > 2 || delta.kind != S_OBJ) return NOT_MINE;
        if (!push_value(v, delta)) return FAILED;
        bool ok = satL_py_type(v->L, -1) == PY_TIMEDELTA;
        lua_pop(v->L, 1);
        if (!ok) return NOT_MINE;
        lua_createtable(v->L, 0, 2);
        if (!set_field(v, "offset", delta)) return FAILED;
        if (c->n == 2 && !set_field(v, "name", item(v, c->args, 1))) return FAILED;
        return adopt_as(v, PY_TIMEZONE, O_VALUE, out);
    }
    if (c->n > 2 || !text_of(v, item(v, c->args, 0), &b, &len)) return NOT_MINE;
    if (len != (c->what == K_DATETIME ? 10 : c->what == K_DATE ? 4 : 6)) return NOT_MINE;
    lua_createtable(v->L, 0, 8);
    bool fold = false;
    if (c->what != K_TIME) {
        /* the top bit of the month says fold=1 */
        set_int(v, "year", b[0] << 8 | b[1]);
        set_int(v, "month", b[2] & 0x7f);
        set_int(v, "day", b[3]);
        fold = (b[2] & 0x80) != 0;
        b += 4;
    }
    if (c->what != K_DATE) {
        if (c->what == K_TIME) fold = (b[0] & 0x80) != 0;
        set_int(v, "hour", b[0] & 0x7f);
        set_int(v, "min", b[1]);
        set_int(v, "sec", b[2]);
        set_int(v, "usec", b[3] << 16 | b[4] << 8 | b[5]);
        if (fold) set_int(v, "fold", 1);
        if (c->n == 2 && item(v, c->args, 1).kind != S_NONE && !set_field(v, "tz", item(v, c->args, 1))) return FAILED;
    }
    return adopt_as(v, c->what == K_DATETIME ? PY_DATETIME : c->what == K_DATE ? PY_DATE : PY_TIME, O_VALUE, out);
}

static outcome call_zoneinfo(vm *v, const call *c, slot *out)
{
    if (c->n < 1 || c->n > 2) return NOT_MINE;
    lua_createtable(v->L, 0, 1);
    if (!set_field(v, "key", item(v, c->args, 0))) return FAILED;
    return adopt_as(v, PY_ZONEINFO, O_VALUE, out);
}

/* getattr(class, "name"): a longer name. */
static outcome call_getattr(vm *v, const call *c, slot *out)
{
    const uint8_t *name, *attribute;
    size_t name_len, len;
    slot joined;
    if (c->n != 2 || !is_kind(v, item(v, c->args, 0), O_GLOBAL) || !text_of(v, item(v, c->args, 1), &attribute, &len))
        return NOT_MINE;
    slot module = v->pool[v->objects[item(v, c->args, 0).u.i].off];
    if (!text_of(v, v->pool[v->objects[item(v, c->args, 0).u.i].off + 1], &name, &name_len)) return NOT_MINE;
    if (!charge(v, name_len + len)) return FAILED;
    lua_pushlstring(v->L, (const char *)name, name_len);
    lua_pushliteral(v->L, ".");
    lua_pushlstring(v->L, (const char *)attribute, len);
    lua_concat(v->L, 3);
    if (!adopt(v, O_VALUE, &joined) || !new_global(v, module, joined, out)) return FAILED;
    return DONE;
}

static outcome call_path(vm *v, const call *c, slot *out)
{
    lua_State *L = v->L;
    luaL_Buffer b;
    slot kind = v->pool[v->objects[c->callable.u.i].off + 1];
    const uint8_t *text, *name;
    size_t len, name_len;
    for (size_t i = 0; i < c->n; i++)
        if (!text_of(v, item(v, c->args, i), &text, &len) || !charge(v, len + 1)) return NOT_MINE;
    if (!text_of(v, kind, &name, &name_len)) return NOT_MINE;
    char separator = name_len > 7 && memchr(name, 'W', name_len) ? '\\' : '/';
    luaL_buffinit(L, &b);
    char last = separator;
    for (size_t i = 0; i < c->n; i++) {
        if (!text_of(v, item(v, c->args, i), &text, &len)) return NOT_MINE;
        if (i > 0 && last != separator) luaL_addchar(&b, separator);
        luaL_addlstring(&b, (const char *)text, len);
        if (len > 0) last = (char)text[len - 1];
        else if (i == 0) last = separator;
    }
    if (c->n == 0) luaL_addchar(&b, '.');
    luaL_pushresult(&b);
    lua_createtable(L, 0, 2);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    if (!set_field(v, "kind", kind)) return FAILED;
    return adopt_as(v, PY_PATH, O_VALUE, out);
}

/* Pushes one number of an array.array or a NumPy buffer. kind is b, i, u, f or c. */
static bool push_number(lua_State *L, char kind, size_t size, bool big, const uint8_t *at)
{
    uint64_t bits = 0;
    if (size == 0 || size > 8) return false;
    for (size_t i = 0; i < size; i++) bits = bits << 8 | at[big ? i : size - 1 - i];
    if (kind == 'b') {
        lua_pushboolean(L, bits != 0);
    } else if (kind == 'i') {
        if (size < 8 && (bits >> (size * 8 - 1) & 1)) bits |= UINT64_MAX << (size * 8);
        lua_pushinteger(L, (lua_Integer)bits);
    } else if (kind == 'u') {
        satL_py_push_uint(L, bits);
    } else if (kind == 'f' && size == 8) {
        double value;
        memcpy(&value, &bits, sizeof value);
        lua_pushnumber(L, value);
    } else if (kind == 'f' && size == 4) {
        uint32_t half = (uint32_t)bits;
        float value;
        memcpy(&value, &half, sizeof value);
        lua_pushnumber(L, (lua_Number)value);
    } else if (kind == 'f' && size == 2) {
        int exponent = (int)(bits >> 10 & 31);
        double value = (double)(bits & 1023);
        if (exponent == 31)
            value = value != 0 ? (double)NAN : (double)INFINITY;
        else
            value = exponent ? ldexp(value + 1024, exponent - 25) : ldexp(value, -24);
        lua_pushnumber(L, bits & 0x8000 ? -value : value);
    } else {
        return false;
    }
    return true;
}

/* array.array(typecode, list), array._array_reconstructor(array.array, typecode, format, bytes) */
static outcome call_carray(vm *v, const call *c, slot *out)
{
    lua_State *L = v->L;
    const uint8_t *code, *bytes;
    size_t code_len, len;
    if (c->what == K_CARRAY) {
        if (c->n < 1 || c->n > 2 || !text_of(v, item(v, c->args, 0), &code, &code_len) || code_len != 1)
            return NOT_MINE;
        if (c->n == 1) {
            lua_createtable(L, 0, 1);
        } else if (is_kind(v, item(v, c->args, 1), O_LIST)) {
            if (!push_value(v, item(v, c->args, 1))) return FAILED; /* made for this call */
            v->objects[item(v, c->args, 1).u.i].kind = O_VALUE;
        } else {
            return NOT_MINE;
        }
        lua_pushlstring(L, (const char *)code, 1);
        lua_setfield(L, -2, "typecode");
        return adopt_as(v, PY_CARRAY, O_VALUE, out);
    }
    /* "Machine format codes" of the array module: kind, size, big-endian. 18 to 21 are text. */
    static const struct {
        char kind;
        uint8_t size;
        bool big;
    } formats[] = {{'u', 1, 0}, {'i', 1, 0}, {'u', 2, 0}, {'u', 2, 1}, {'i', 2, 0}, {'i', 2, 1},
                   {'u', 4, 0}, {'u', 4, 1}, {'i', 4, 0}, {'i', 4, 1}, {'u', 8, 0}, {'u', 8, 1},
                   {'i', 8, 0}, {'i', 8, 1}, {'f', 4, 0}, {'f', 4, 1}, {'f', 8, 0}, {'f', 8, 1}};
    int64_t format;
    if (c->n != 4 || !text_of(v, item(v, c->args, 1), &code, &code_len) || code_len != 1 ||
        !int_of(item(v, c->args, 2), &format) || !text_of(v, item(v, c->args, 3), &bytes, &len))
        return NOT_MINE;
    if (format < 0 || (size_t)format >= sizeof formats / sizeof *formats || len % formats[format].size != 0)
        return NOT_MINE;
    size_t size = formats[format].size, n = len / size;
    if (!charge(v, n * (sizeof(slot) / 4))) return FAILED;
    lua_createtable(L, n > INT32_MAX / 32 ? 0 : (int)n, 1);
    for (size_t i = 0; i < n; i++) {
        if (!push_number(L, formats[format].kind, size, formats[format].big, bytes + i * size)) return NOT_MINE;
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushlstring(L, (const char *)code, 1);
    lua_setfield(L, -2, "typecode");
    return adopt_as(v, PY_CARRAY, O_VALUE, out);
}

/* -------------------------------------------------------------- exceptions */

/* The field of an inert object's state, or nil. The object is on top; the field is pushed. */
static int state_field(lua_State *L, int idx, const char *name)
{
    idx = lua_absindex(L, idx);
    if (lua_istable(L, idx)) {
        lua_pushliteral(L, "state");
        if (lua_rawget(L, idx) == LUA_TTABLE) {
            lua_pushstring(L, name);
            int type = lua_rawget(L, -2);
            lua_remove(L, -2);
            return type;
        }
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    return LUA_TNIL;
}

/* Appends {file=, line=, name=} to the list at `list`, from a tblib.Frame on top of the stack and a line number. */
static void add_frame(lua_State *L, int list, lua_Integer n, lua_Integer line)
{
    int frame = lua_gettop(L);
    lua_createtable(L, 0, 3);
    int entry = lua_gettop(L);
    lua_pushinteger(L, line);
    lua_setfield(L, entry, "line");
    state_field(L, frame, "f_code");
    int code = lua_gettop(L);
    if (state_field(L, code, "co_filename") == LUA_TSTRING) lua_setfield(L, entry, "file");
    else lua_pop(L, 1);
    if (state_field(L, code, "co_name") == LUA_TSTRING) lua_setfield(L, entry, "name");
    else lua_pop(L, 1);
    lua_settop(L, entry);
    lua_rawseti(L, list, n);
}

/* unpickle_traceback(frame, line, next): next is a tblib.Traceback with tb_frame, tb_lineno and tb_next. */
static outcome call_traceback(vm *v, const call *c, slot *out)
{
    lua_State *L = v->L;
    int64_t line;
    slot inert;
    if (c->n != 3 || !int_of(item(v, c->args, 1), &line)) return NOT_MINE;
    if (!new_inert(v, c->callable, slot_object(c->args), slot_none(), false, PY_OBJECT, &inert)) return FAILED;
    lua_createtable(L, 4, 1);
    int list = lua_gettop(L);
    if (!set_field(v, "object", inert) || !push_value(v, item(v, c->args, 0))) return FAILED;
    add_frame(L, list, 1, (lua_Integer)line);
    lua_settop(L, list);
    if (!push_value(v, item(v, c->args, 2))) return FAILED;
    for (lua_Integer n = 2; n <= MAX_FRAMES && lua_istable(L, -1); n++) {
        int next = lua_gettop(L);
        state_field(L, next, "tb_lineno");
        lua_Integer at = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
        if (state_field(L, next, "tb_frame") != LUA_TTABLE) break;
        if (!charge(v, 64)) return FAILED;
        add_frame(L, list, n, at);
        state_field(L, next, "tb_next");
        lua_replace(L, next);
        lua_settop(L, next);
    }
    lua_settop(L, list);
    if (adopt_as(v, PY_TRACEBACK, O_VALUE, out) != DONE) return FAILED;
    return raise_height(v, (uint32_t)out->u.i, height_of(v, inert)) ? DONE : FAILED;
}

/* unpickle_exception(class, args, cause, traceback[, context, suppress_context, notes]); in the form "with_attrs" the
 * second argument is a dict of attributes. */
static outcome call_exception(vm *v, const call *c, slot *out)
{
    static const char *const fields[] = {"cause", "traceback", "context", "suppress_context", "notes"};
    lua_State *L = v->L;
    if (c->n < 2) return NOT_MINE;
    slot class = item(v, c->args, 0), args = item(v, c->args, 1);
    if (!is_kind(v, class, O_GLOBAL) && !is_kind(v, class, O_OBJECT)) return NOT_MINE;
    bool attrs = c->what == K_UNPICKLE_EXCEPTION_ATTRS;
    if (!is_kind(v, args, attrs ? O_DICT : O_TUPLE)) return NOT_MINE;
    unsigned height = height_of(v, slot_object(c->args));
    lua_createtable(L, 0, 6);
    int table = lua_gettop(L);
    if (!set_class(v, class)) return FAILED;
    if (attrs) {
        if (!push_value(v, args) || !keep_bytes(v, 0)) return FAILED;
        lua_pushliteral(L, "args");
        if (lua_rawget(L, -2) != LUA_TTABLE) {
            lua_pop(L, 1);
            lua_createtable(L, 0, 0);
            satL_py_set(L, PY_TUPLE);
        }
        lua_setfield(L, table, "args");
        lua_setfield(L, table, "attributes");
    } else if (!set_kept(v, "args", args)) {
        return FAILED;
    }
    for (size_t i = 2; i < c->n && i < 7; i++) {
        slot s = item(v, c->args, i);
        if (s.kind != S_NONE && s.kind != S_FALSE && !set_field(v, fields[i - 2], s)) return FAILED;
    }
    if (adopt_as(v, PY_EXCEPTION, O_OBJECT, out) != DONE) return FAILED;
    v->objects[out->u.i].known = K_EXCEPTION;
    return raise_height(v, (uint32_t)out->u.i, height) ? DONE : FAILED;
}

/* ------------------------------------------------------------------- NumPy */

/* Notes what made an O_NDARRAY or O_DTYPE, which its state may turn into an inert object. */
static void note_call(vm *v, uint32_t index, const call *c)
{
    v->objects[index].count = (uint32_t)c->callable.u.i;
    v->objects[index].off = c->args;
}

/* What Lua has no form for, such as records with Python objects in them and their arrays, is an inert object. */
static bool make_inert(vm *v, uint32_t index, slot state)
{
    slot made;
    object o = v->objects[index];
    if (!new_inert(v, slot_object(o.count), slot_object(o.off), slot_none(), false, PY_OBJECT, &made)) return false;
    lua_rawgeti(v->L, LS_OBJECTS, made.u.i);
    if (!set_kept(v, "state", state)) return false;
    lua_rawseti(v->L, LS_OBJECTS, index);
    v->objects[index] = v->objects[made.u.i];
    return raise_height(v, index, height_of(v, state));
}

/* The machine becomes one more owner of the type. */
static bool own_type(vm *v, sat_dtype *type)
{
    if (!ROOM(v, v->types, v->types_cap, v->ntypes, 1)) return false;
    sat_dtype_retain(type);
    v->types[v->ntypes++] = type;
    return true;
}

/* Notes what type a dtype object is, so that its arrays need not parse its text. */
static bool note_type(vm *v, uint32_t dtype, sat_dtype *type)
{
    v->objects[dtype].known = 0;
    if (v->ntypes >= UINT16_MAX) return true;
    if (!own_type(v, type)) return false;
    v->objects[dtype].known = (uint16_t)v->ntypes;
    return true;
}

/* A dtype is a table {value = type string or description of fields, shape = of a sub-array, base = ...}. */
static outcome give_dtype(vm *v, const call *c, sat_dtype *type, slot *out)
{
    lua_createtable(v->L, 0, 2);
    lua_pushstring(v->L, sat_dtype_str(type));
    lua_setfield(v->L, -2, "value");
    if (adopt_as(v, PY_DTYPE, O_DTYPE, out) != DONE) return FAILED;
    note_call(v, (uint32_t)out->u.i, c);
    return note_type(v, (uint32_t)out->u.i, type) ? DONE : FAILED;
}

/* The type of this text as v->type; false when it is none. */
static bool hold_type(vm *v, const char *text, size_t len)
{
    sat_dtype_release(v->type);
    v->type = NULL;
    if (sat_dtype_parse(text, len, &v->type, NULL) == SAT_OK) return true;
    v->type = NULL;
    return false;
}

/* What a field's type and name cost: the text of a record repeats those of its fields. */
static bool charge_field(vm *v, const sat_dtype *type, size_t name_len)
{
    return charge(v, 16 * (strlen(sat_dtype_str(type)) + name_len));
}

/* The integers of the sequence on top of the stack, or the one; -1 when they are no shape. */
static int shape_on_top(lua_State *L, int64_t *shape)
{
    if (lua_isinteger(L, -1)) {
        shape[0] = lua_tointeger(L, -1);
        return 1;
    }
    if (!lua_istable(L, -1) || lua_rawlen(L, -1) > SAT_ARRAY_MAX_DIMS) return -1;
    int ndim = (int)lua_rawlen(L, -1);
    for (int i = 0; i < ndim; i++) {
        lua_rawgeti(L, -1, i + 1);
        shape[i] = lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    return ndim;
}

static int raw_field(lua_State *L, int idx, const char *name)
{
    idx = lua_absindex(L, idx);
    lua_pushstring(L, name);
    return lua_rawget(L, idx);
}

static sat_dtype *spec_type(vm *v, unsigned depth);

/* Field i of the record that the dict at `spec` describes. */
static bool add_spec_field(vm *v, sat_dtype *record, int spec, lua_Integer i, unsigned depth)
{
    lua_State *L = v->L;
    int64_t shape[SAT_ARRAY_MAX_DIMS];
    int top = lua_gettop(L), ndim = 0;
    size_t len = 0;
    if (!lua_checkstack(L, 16)) return no_memory(v);
    if (raw_field(L, spec, "offsets") != LUA_TTABLE || lua_rawgeti(L, -1, i) != LUA_TNUMBER) return false;
    lua_Integer offset = lua_tointeger(L, -1);
    if (raw_field(L, spec, "formats") != LUA_TTABLE) return false;
    if (lua_rawgeti(L, -1, i) == LUA_TTABLE && satL_py_type(L, -1) == PY_TUPLE) {
        lua_rawgeti(L, -1, 2);
        ndim = shape_on_top(L, shape);
        lua_pop(L, 1);
        lua_rawgeti(L, -1, 1);
    }
    sat_dtype *type = spec_type(v, depth + 1);
    if (type == NULL || ndim < 0 || offset < 0) return false;
    if (raw_field(L, spec, "names") != LUA_TTABLE || lua_rawgeti(L, -1, i) != LUA_TSTRING) return false;
    const char *name = lua_tolstring(L, -1, &len);
    bool ok = charge_field(v, type, len) && sat_dtype_record_add(record, name, len, (size_t)offset, type, ndim,
                                                                 ndim ? shape : NULL, NULL) == SAT_OK;
    lua_settop(L, top);
    return ok;
}

/* What numpy.dtype() makes of the value on top of the stack, a type string or a dict of names, formats, offsets and
 * itemsize, which is the form that this library's own pickles have. Borrowed; NULL when it is none. */
static sat_dtype *spec_type(vm *v, unsigned depth)
{
    lua_State *L = v->L;
    sat_dtype *type = NULL;
    int spec = lua_gettop(L);
    if (lua_type(L, spec) == LUA_TSTRING) {
        size_t len;
        const char *text = lua_tolstring(L, spec, &len);
        if (len == 0 || len >= SAT_DTYPE_TEXT || sat_dtype_parse(text, len, &type, NULL) != SAT_OK) return NULL;
    } else {
        if (!lua_istable(L, spec) || depth > SAT_DTYPE_MAX_DEPTH || raw_field(L, spec, "itemsize") != LUA_TNUMBER) return NULL;
        lua_Integer itemsize = lua_tointeger(L, -1);
        if (itemsize < 0 || sat_dtype_record_begin((size_t)itemsize, &type, NULL) != SAT_OK) return NULL;
    }
    bool owned = own_type(v, type), ok = owned;
    sat_dtype_release(type);
    if (owned && lua_istable(L, spec)) {
        lua_Integer n = raw_field(L, spec, "names") == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
        for (lua_Integer i = 1; ok && i <= n; i++) ok = add_spec_field(v, type, spec, i, depth);
        ok = ok && sat_dtype_record_finish(type, NULL) == SAT_OK;
    }
    lua_settop(L, spec);
    return ok ? type : NULL;
}

static outcome call_dtype(vm *v, const call *c, slot *out)
{
    const uint8_t *text;
    size_t len;
    if (c->n < 1 || c->n > 3) return NOT_MINE;
    slot spec = item(v, c->args, 0);
    if (is_kind(v, spec, O_DICT)) {
        if (!push_value(v, spec)) return FAILED;
        sat_dtype *type = spec_type(v, 0);
        return type != NULL ? give_dtype(v, c, type, out) : NOT_MINE;
    }
    if (is_bytes(v, spec) || !text_of(v, spec, &text, &len) || len == 0 || len >= SAT_DTYPE_TEXT) return NOT_MINE;
    if (!hold_type(v, (const char *)text, len)) return NOT_MINE;
    return give_dtype(v, c, v->type, out);
}

/* The type string of a dtype object; NULL when it is none. */
static const char *dtype_text(vm *v, slot s)
{
    if (!is_kind(v, s, O_DTYPE)) {
        /* ndarray(shape, "<f8", ...): a string with its end */
        const uint8_t *given;
        size_t len;
        if (is_bytes(v, s) || !text_of(v, s, &given, &len) || len >= SAT_DTYPE_TEXT) return NULL;
        return lua_pushlstring(v->L, (const char *)given, len);
    }
    lua_rawgeti(v->L, LS_OBJECTS, s.u.i);
    lua_pushliteral(v->L, "value");
    const char *text = lua_rawget(v->L, -2) == LUA_TSTRING ? lua_tostring(v->L, -1) : NULL;
    lua_pop(v->L, 2); /* the table keeps it */
    return text;
}

/* The type of a dtype object or type string; borrowed, NULL when it is none. */
static sat_dtype *type_of_dtype(vm *v, slot s)
{
    if (is_kind(v, s, O_DTYPE) && v->objects[s.u.i].known != 0) return v->types[v->objects[s.u.i].known - 1];
    const char *text = dtype_text(v, s);
    return text != NULL && charge(v, 16 * strlen(text)) && hold_type(v, text, strlen(text)) ? v->type : NULL;
}

static bool shape_of(vm *v, slot s, int *ndim, int64_t *shape, int64_t *total)
{
    *total = 1;
    if (s.kind == S_INT) {
        *ndim = 1;
        shape[0] = s.u.i;
        *total = s.u.i;
        return s.u.i >= 0;
    }
    if (!is_kind(v, s, O_TUPLE) || v->objects[s.u.i].count > SAT_ARRAY_MAX_DIMS) return false;
    *ndim = (int)v->objects[s.u.i].count;
    for (int i = 0; i < *ndim; i++) {
        if (!int_of(item(v, (uint32_t)s.u.i, (size_t)i), &shape[i]) || shape[i] < 0) return false;
        if (shape[i] > 0 && *total > INT64_MAX / shape[i]) return false;
        *total *= shape[i];
    }
    return true;
}

/* Pushes an array; on NOT_MINE nothing. axes: which dimension of shape each of the array's is, NULL: as they are. */
static outcome push_array(vm *v, sat_dtype *type, int ndim, const int64_t *shape, const int64_t *axes, bool fortran,
                          sat_slice bytes)
{
    int64_t strides[SAT_ARRAY_MAX_DIMS], seen_shape[SAT_ARRAY_MAX_DIMS], seen_strides[SAT_ARRAY_MAX_DIMS];
    sat_error err;
    if (type == NULL || type->kind == 'O') return v->status == SAT_OK ? NOT_MINE : FAILED;
    uint64_t step = type->itemsize;
    for (int k = 0; k < ndim; k++) {
        int i = fortran ? k : ndim - 1 - k;
        uint64_t extent = shape[i] > 0 ? (uint64_t)shape[i] : 1;
        if (step > (uint64_t)INT64_MAX / extent) return NOT_MINE;
        strides[i] = (int64_t)step;
        step *= extent;
    }
    for (int i = 0; i < ndim; i++) {
        seen_shape[i] = shape[axes ? axes[i] : i];
        seen_strides[i] = strides[axes ? axes[i] : i];
    }
    if (bytes.block == NULL && !charge(v, bytes.len)) return FAILED;
    sat_status status = satL_array_push_typed(v->L, type, 0, ndim, seen_shape, seen_strides, bytes, &err);
    if (status == SAT_OK) return DONE;
    if (v->err != NULL) *v->err = err;
    fail(v, status);
    return FAILED;
}

/* The array of Python objects over a flat list, which was made for it. NumPy lists them in C order, also those of an
 * array that says it is in Fortran's. */
static outcome object_array(vm *v, slot list, int ndim, const int64_t *shape, int64_t total)
{
    sat_error err;
    if (!is_kind(v, list, O_LIST) || v->objects[list.u.i].count != (uint64_t)total) return NOT_MINE;
    if (!push_value(v, list)) return FAILED;
    sat_status status = satL_array_push_objects(v->L, lua_gettop(v->L), ndim, shape, NULL, &err);
    if (status != SAT_OK) {
        if (v->err != NULL) *v->err = err;
        fail(v, status);
        return FAILED;
    }
    v->objects[list.u.i].kind = O_VALUE;
    return DONE;
}

/* pyarrow.py_buffer(bytes): the object as it came, around an array of the bytes, which pyarrow takes as well. */
static outcome call_py_buffer(vm *v, const call *c, slot *out)
{
    sat_slice bytes;
    slot array, args;
    if (c->n != 1 || !slice_of(v, item(v, c->args, 0), &bytes)) return NOT_MINE;
    int64_t n = (int64_t)bytes.len;
    if (!hold_type(v, "|u1", 3)) {
        (void)no_memory(v);
        return FAILED;
    }
    outcome result = push_array(v, v->type, 1, &n, NULL, false, bytes);
    if (result != DONE) return result;
    satL_array_set_readonly(v->L, lua_gettop(v->L));
    bool ok = adopt(v, O_VALUE, &array) && new_tuple(v, &array, 1, &args) &&
              new_inert(v, c->callable, args, slot_none(), false, PY_OBJECT, out);
    return ok ? DONE : FAILED;
}

/* BUILD of numpy.core.multiarray._reconstruct: (version, shape, dtype, is_fortran, bytes or list) */
static outcome build_ndarray(vm *v, uint32_t array, slot state)
{
    int64_t shape[SAT_ARRAY_MAX_DIMS], total;
    int ndim;
    sat_slice bytes;
    outcome result;
    if (!is_kind(v, state, O_TUPLE)) return NOT_MINE;
    uint32_t t = (uint32_t)state.u.i;
    size_t n = count(v, t), first = n == 5 ? 1 : 0;
    if (n != 5 && n != 4) return NOT_MINE;
    slot dims = item(v, t, first), dtype = item(v, t, first + 1), raw = item(v, t, first + 3);
    bool fortran = item(v, t, first + 2).kind == S_TRUE ||
                   (item(v, t, first + 2).kind == S_INT && item(v, t, first + 2).u.i != 0);
    if (!shape_of(v, dims, &ndim, shape, &total)) return NOT_MINE;
    sat_dtype *type = type_of_dtype(v, dtype);
    if (type == NULL) return v->status == SAT_OK ? NOT_MINE : FAILED;
    if (type->kind == 'O')
        result = object_array(v, raw, ndim, shape, total);
    else if (slice_of(v, raw, &bytes))
        result = push_array(v, type, ndim, shape, NULL, fortran, bytes);
    else
        return NOT_MINE;
    if (result != DONE) return result;
    v->objects[array].flags |= F_MADE;
    lua_rawseti(v->L, LS_OBJECTS, array);
    return DONE;
}

/* BUILD of numpy.dtype: (version, order, (base, shape) or None, names, fields, itemsize, alignment, flags[, metadata])
 */
static outcome build_dtype(vm *v, uint32_t dtype, slot state)
{
    lua_State *L = v->L;
    const uint8_t *order, *text;
    size_t len;
    if (!is_kind(v, state, O_TUPLE) || count(v, (uint32_t)state.u.i) < 8) return NOT_MINE;
    uint32_t t = (uint32_t)state.u.i;
    const char *old = dtype_text(v, slot_object(dtype));
    v->objects[dtype].known = 0; /* its type changes */
    if (old == NULL || !text_of(v, item(v, t, 1), &order, &len) || len != 1) return NOT_MINE;
    char byte_order = (char)order[0];
    char buffer[SAT_DTYPE_TEXT * 2];
    const char *code = old[0] != '\0' && strchr("<>|=", old[0]) != NULL ? old + 1 : old;
    slot sub = item(v, t, 2), names = item(v, t, 3), fields = item(v, t, 4);

    if (is_kind(v, sub, O_TUPLE) && count(v, (uint32_t)sub.u.i) == 2) {
        const char *base = dtype_text(v, item(v, (uint32_t)sub.u.i, 0));
        if (base == NULL) return NOT_MINE;
        if (!charge(v, strlen(base))) return FAILED;
        lua_rawgeti(L, LS_OBJECTS, dtype);
        lua_pushstring(L, base);
        lua_setfield(L, -2, "value");
        return set_field(v, "shape", item(v, (uint32_t)sub.u.i, 1)) ? DONE : FAILED;
    }
    if (is_kind(v, names, O_TUPLE) && is_kind(v, fields, O_DICT)) {
        int64_t itemsize;
        if (!int_of(item(v, t, 5), &itemsize) || itemsize < 0) return NOT_MINE;
        sat_dtype_release(v->record);
        v->record = NULL;
        if (sat_dtype_record_begin((size_t)itemsize, &v->record, NULL) != SAT_OK) {
            v->record = NULL;
            return NOT_MINE;
        }
        bool ok = true;
        lua_rawgeti(L, LS_OBJECTS, fields.u.i);
        int dict = lua_gettop(L);
        for (size_t i = 0; ok && i < count(v, (uint32_t)names.u.i); i++) {
            int64_t offset = -1, shape[SAT_ARRAY_MAX_DIMS];
            int ndim = 0;
            bool typed = false;
            ok = text_of(v, item(v, (uint32_t)names.u.i, i), &text, &len) && lua_istable(L, dict);
            if (!ok) break;
            lua_pushlstring(L, (const char *)text, len);
            if (lua_rawget(L, dict) == LUA_TTABLE) {
                if (lua_rawgeti(L, -1, 2) == LUA_TNUMBER) offset = lua_tointeger(L, -1);
                lua_pop(L, 1);
                if (lua_rawgeti(L, -1, 1) == LUA_TTABLE) {
                    lua_pushliteral(L, "value");
                    const char *code_text = lua_rawget(L, -2) == LUA_TSTRING ? lua_tostring(L, -1) : "";
                    if (!charge(v, 16 * (strlen(code_text) + len))) return FAILED;
                    typed = hold_type(v, code_text, strlen(code_text));
                    lua_pop(L, 1);
                    lua_pushliteral(L, "shape");
                    if (lua_rawget(L, -2) != LUA_TNIL) ndim = shape_on_top(L, shape);
                }
            }
            lua_settop(L, dict);
            ok = typed && offset >= 0 && ndim >= 0 &&
                 sat_dtype_record_add(v->record, (const char *)text, len, (size_t)offset, v->type, ndim,
                                      ndim ? shape : NULL, NULL) == SAT_OK;
        }
        ok = ok && sat_dtype_record_finish(v->record, NULL) == SAT_OK;
        if (ok) {
            lua_rawgeti(L, LS_OBJECTS, dtype);
            lua_pushstring(L, sat_dtype_str(v->record));
            lua_setfield(L, -2, "value");
            if (!note_type(v, dtype, v->record)) return FAILED;
        }
        return ok ? DONE : NOT_MINE;
    }

    char unit[24] = "";
    if (count(v, t) > 8 && (code[0] == 'M' || code[0] == 'm') && is_kind(v, item(v, t, 8), O_TUPLE)) {
        /* ({}, (unit, multiple, 1, 1)) */
        uint32_t meta = (uint32_t)item(v, t, 8).u.i;
        if (count(v, meta) == 2 && is_kind(v, item(v, meta, 1), O_TUPLE)) {
            uint32_t parts = (uint32_t)item(v, meta, 1).u.i;
            int64_t multiple;
            if (count(v, parts) >= 2 && text_of(v, item(v, parts, 0), &text, &len) && len < 8 &&
                int_of(item(v, parts, 1), &multiple) && !(len == 7 && memcmp(text, "generic", 7) == 0)) {
                if (multiple != 1)
                    (void)snprintf(unit, sizeof unit, "[%d%.*s]", (int)(multiple & INT32_MAX), (int)len,
                                   (const char *)text);
                else
                    (void)snprintf(unit, sizeof unit, "[%.*s]", (int)len, (const char *)text);
            }
        }
    }
    if (byte_order == '=') byte_order = '<';
    size_t code_len = strcspn(code, "[");
    (void)snprintf(buffer, sizeof buffer, "%c%.*s%s", byte_order, (int)code_len, code, unit);
    if (!hold_type(v, buffer, strlen(buffer))) return NOT_MINE;
    lua_rawgeti(L, LS_OBJECTS, dtype);
    lua_pushstring(L, sat_dtype_str(v->type));
    lua_setfield(L, -2, "value");
    return note_type(v, dtype, v->type) ? DONE : FAILED;
}

/* scalar(dtype, bytes): a plain number or string where there is one. */
static outcome call_scalar(vm *v, const call *c, slot *out)
{
    lua_State *L = v->L;
    const uint8_t *b;
    size_t len;
    if (c->n != 2) return NOT_MINE;
    const char *text = dtype_text(v, item(v, c->args, 0));
    if (text == NULL || text[0] == '\0' || text[1] == '\0' || strchr("<>|=", text[0]) == NULL) return NOT_MINE;
    if (text[1] == 'O') {
        *out = item(v, c->args, 1);
        return DONE;
    }
    if (!text_of(v, item(v, c->args, 1), &b, &len)) return NOT_MINE;
    char kind = text[1];
    bool big = text[0] == '>';
    size_t size = (size_t)strtoul(text + 2, NULL, 10);
    if (strchr("biufcMm", kind) != NULL && size != len) return NOT_MINE;
    switch (kind) {
    case 'b':
        *out = (slot){.kind = len == 1 && b[0] ? S_TRUE : S_FALSE};
        return DONE;
    case 'i':
        if (size > 8 || !push_number(L, kind, size, big, b)) return NOT_MINE;
        *out = slot_int(lua_tointeger(L, -1));
        return DONE;
    case 'u':
    case 'f':
        if (!push_number(L, kind, size, big, b)) return NOT_MINE;
        if (lua_isinteger(L, -1)) {
            *out = slot_int(lua_tointeger(L, -1));
        } else if (lua_type(L, -1) == LUA_TNUMBER) {
            *out = (slot){.kind = S_FLOAT, .u.f = lua_tonumber(L, -1)};
        } else {
            return adopt(v, O_VALUE, out) ? DONE : FAILED;
        }
        return DONE;
    case 'c':
        lua_createtable(L, 0, 2);
        if (!push_number(L, 'f', size / 2, big, b)) return NOT_MINE;
        lua_setfield(L, -2, "re");
        if (!push_number(L, 'f', size / 2, big, b + size / 2)) return NOT_MINE;
        lua_setfield(L, -2, "im");
        return adopt_as(v, PY_COMPLEX, O_VALUE, out);
    case 'M':
    case 'm': {
        if (size != 8) return NOT_MINE;
        lua_createtable(L, 0, 3);
        push_number(L, 'i', 8, big, b);
        lua_setfield(L, -2, "value");
        const char *unit = strchr(text, '[');
        if (unit != NULL && strlen(unit) >= 2)
            lua_pushlstring(L, unit + 1, strlen(unit) - 2);
        else
            lua_pushliteral(L, "generic");
        lua_setfield(L, -2, "unit");
        if (kind == 'm') {
            lua_pushboolean(L, 1);
            lua_setfield(L, -2, "delta");
        }
        return adopt_as(v, PY_DATETIME64, O_VALUE, out);
    }
    case 'S':
        if (!charge(v, len)) return FAILED;
        lua_pushlstring(L, (const char *)b, len);
        return adopt(v, O_BYTES, out) ? DONE : FAILED;
    case 'U': {
        if (len % 4 != 0 || !charge(v, len)) return NOT_MINE;
        luaL_Buffer buffer;
        luaL_buffinit(L, &buffer);
        for (size_t i = 0; i < len; i += 4) {
            uint32_t code = 0;
            char utf8[4];
            for (size_t k = 0; k < 4; k++) code = code << 8 | b[i + (big ? k : 3 - k)];
            size_t n = sat_utf8_encode(code, utf8);
            if (n == 0) return NOT_MINE;
            luaL_addlstring(&buffer, utf8, n);
        }
        luaL_pushresult(&buffer);
        return adopt(v, O_VALUE, out) ? DONE : FAILED;
    }
    default:
        return NOT_MINE;
    }
}

/* numpy.datetime64(integer or "NaT", unit) */
static outcome call_datetime64(vm *v, const call *c, slot *out)
{
    const uint8_t *text;
    size_t len = 0;
    int64_t value = INT64_MIN;
    if (c->n < 1 || c->n > 2) return NOT_MINE;
    if (!int_of(item(v, c->args, 0), &value) &&
        !(text_of(v, item(v, c->args, 0), &text, &len) && same_text(text, len, "NaT")))
        return NOT_MINE;
    if (c->n == 2 && !text_of(v, item(v, c->args, 1), &text, &len)) return NOT_MINE;
    lua_createtable(v->L, 0, 3);
    set_int(v, "value", value);
    if (!charge(v, len)) return FAILED;
    if (c->n == 2) lua_pushlstring(v->L, (const char *)text, len);
    else lua_pushliteral(v->L, "generic");
    lua_setfield(v->L, -2, "unit");
    if (c->what == K_TIMEDELTA64) {
        lua_pushboolean(v->L, 1);
        lua_setfield(v->L, -2, "delta");
    }
    return adopt_as(v, PY_DATETIME64, O_VALUE, out);
}

/* _reconstruct(ndarray, (0,), b"b"): the data come with BUILD. */
static outcome call_reconstruct(vm *v, const call *c, slot *out)
{
    uint32_t index;
    slot class = c->n == 3 ? item(v, c->args, 0) : slot_none();
    if (!is_kind(v, class, O_GLOBAL) || v->objects[class.u.i].known != K_NDARRAY) return NOT_MINE;
    if (!new_object(v, O_NDARRAY, &index)) return FAILED;
    note_call(v, index, c);
    *out = slot_object(index);
    return DONE;
}

/* A permutation of ndim axes. */
static bool axes_of(vm *v, slot s, int ndim, int64_t *axes)
{
    int64_t total;
    int count_of;
    uint64_t seen = 0;
    if (!shape_of(v, s, &count_of, axes, &total) || count_of != ndim) return false;
    for (int i = 0; i < ndim; i++) {
        if (axes[i] >= ndim || (seen >> axes[i] & 1)) return false;
        seen |= UINT64_C(1) << axes[i];
    }
    return true;
}

/* _frombuffer(buffer, dtype, shape[, order[, axes]]), where "K" says that the axes of what has this shape are permuted;
 * numpy.ndarray(shape, dtype, buffer); numpy.array(array) */
static outcome call_ndarray(vm *v, const call *c, slot *out)
{
    int64_t shape[SAT_ARRAY_MAX_DIMS], axes[SAT_ARRAY_MAX_DIMS], total;
    int ndim;
    sat_slice bytes;
    bool fortran = false, permuted = c->n == 5;
    size_t at_buffer = 0, at_dtype = 1, at_shape = 2;
    if (c->what == K_ND_ARRAY) {
        if (c->n != 1 || !is_kind(v, item(v, c->args, 0), O_NDARRAY)) return NOT_MINE;
        *out = item(v, c->args, 0);
        return DONE;
    }
    if (c->what == K_NDARRAY) {
        at_buffer = 2;
        at_shape = 0;
        if (c->n != 3 && c->n != 6) return NOT_MINE;
    } else if (c->n < 3 || c->n > 5) {
        return NOT_MINE;
    }
    if (c->n > 3) {
        const uint8_t *order;
        size_t len;
        if (!text_of(v, item(v, c->args, c->n == 6 ? 5 : 3), &order, &len) || len != 1) return NOT_MINE;
        fortran = order[0] == 'F';
        permuted = permuted && order[0] == 'K' && item(v, c->args, 4).kind != S_NONE;
    }
    if (c->n == 6) {
        int64_t offset;
        if (!int_of(item(v, c->args, 3), &offset) || offset != 0 || item(v, c->args, 4).kind != S_NONE) return NOT_MINE;
    }
    if (!shape_of(v, item(v, c->args, at_shape), &ndim, shape, &total)) return NOT_MINE;
    if (permuted && !axes_of(v, item(v, c->args, 4), ndim, axes)) return NOT_MINE;
    if (!slice_of(v, item(v, c->args, at_buffer), &bytes)) return NOT_MINE;
    outcome result = push_array(v, type_of_dtype(v, item(v, c->args, at_dtype)), ndim, shape, permuted ? axes : NULL,
                                fortran, bytes);
    if (result != DONE) return result;
    return adopt(v, O_NDARRAY, out) ? DONE : FAILED;
}

/* -------------------------------------------------------------------- UUID */

/* BUILD of a UUID: {"int": n} */
static outcome build_uuid(vm *v, uint32_t uuid, slot state)
{
    lua_State *L = v->L;
    uint8_t big[16] = {0};
    if (!is_kind(v, state, O_DICT) || !push_value(v, state)) return NOT_MINE;
    lua_pushliteral(L, "int");
    lua_rawget(L, -2);
    if (lua_isinteger(L, -1)) {
        uint64_t value = (uint64_t)lua_tointeger(L, -1);
        for (size_t i = 0; i < 8; i++) big[15 - i] = (uint8_t)(value >> (8 * i));
    } else if (satL_py_type(L, -1) == PY_INT) {
        size_t len;
        lua_getfield(L, -1, "le");
        const char *le = lua_tolstring(L, -1, &len);
        if (le == NULL || len > 17) return NOT_MINE;
        for (size_t i = 0; i < len && i < 16; i++) big[15 - i] = (uint8_t)le[i];
    } else {
        return NOT_MINE;
    }
    char text[37];
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text[at++] = '-';
        text[at++] = "0123456789abcdef"[big[i] >> 4];
        text[at++] = "0123456789abcdef"[big[i] & 15];
    }
    lua_rawgeti(L, LS_OBJECTS, uuid);
    lua_pushlstring(L, text, at);
    lua_setfield(L, -2, "value");
    return DONE;
}

/* ------------------------------------------------------------ calling, BUILD */

static bool do_newobj(vm *v, slot class, slot args, slot kwargs, slot *out);

static bool do_reduce(vm *v, slot callable, slot args, slot *out)
{
    if (!is_kind(v, callable, O_GLOBAL) && !is_kind(v, callable, O_OBJECT))
        return broken(v, "it calls something that is no class or function");
    if (!is_kind(v, args, O_TUPLE)) return broken(v, "the arguments of a call are no tuple");
    known what = is_kind(v, callable, O_GLOBAL) ? (known)v->objects[callable.u.i].known : K_NOTHING;
    call c = {callable, (uint32_t)args.u.i, count(v, (uint32_t)args.u.i), what};
    outcome result = NOT_MINE;
    satL_py type = PY_OBJECT;
    switch (what) {
    case K_COMPLEX:
    case K_DECIMAL:
    case K_FRACTION:
        result = call_numbers(v, &c, out);
        break;
    case K_RANGE:
    case K_SLICE:
        result = call_range(v, &c, out);
        break;
    case K_BYTEARRAY:
    case K_BYTES:
    case K_ENCODE:
        result = call_bytes(v, &c, out);
        break;
    case K_LIST:
    case K_TUPLE:
    case K_DICT:
    case K_SET:
    case K_FROZENSET:
        result = call_container(v, &c, out);
        break;
    case K_GETATTR:
        result = call_getattr(v, &c, out);
        break;
    case K_ORDEREDDICT:
    case K_DEFAULTDICT:
    case K_COUNTER:
    case K_DEQUE:
        result = call_collection(v, &c, out);
        break;
    case K_DATETIME:
    case K_DATE:
    case K_TIME:
    case K_TIMEDELTA:
    case K_TIMEZONE:
        result = call_datetime(v, &c, out);
        break;
    case K_ZONEINFO:
    case K_ZONEINFO_UNPICKLE:
        result = call_zoneinfo(v, &c, out);
        break;
    case K_PATH:
        result = call_path(v, &c, out);
        break;
    case K_CARRAY:
    case K_CARRAY_RECONSTRUCTOR:
        result = call_carray(v, &c, out);
        break;
    case K_UNPICKLE_EXCEPTION:
    case K_UNPICKLE_EXCEPTION_ATTRS:
        result = call_exception(v, &c, out);
        break;
    case K_UNPICKLE_TRACEBACK:
        result = call_traceback(v, &c, out);
        break;
    case K_ND_RECONSTRUCT:
        result = call_reconstruct(v, &c, out);
        break;
    case K_ND_SCALAR:
        result = call_scalar(v, &c, out);
        break;
    case K_ND_FROMBUFFER:
    case K_NDARRAY:
    case K_ND_ARRAY:
        result = call_ndarray(v, &c, out);
        break;
    case K_DTYPE:
        result = call_dtype(v, &c, out);
        break;
    case K_DATETIME64:
    case K_TIMEDELTA64:
        result = call_datetime64(v, &c, out);
        break;
    case K_PY_BUFFER:
        result = call_py_buffer(v, &c, out);
        break;
    case K_UUID:
        if (c.n == 1) {
            const uint8_t *text;
            size_t len;
            slot given = item(v, c.args, 0);
            if (!is_bytes(v, given) && text_of(v, given, &text, &len)) result = give(v, given, PY_UUID, out);
        }
        break;
    case K_RECONSTRUCTOR:
        /* copyreg._reconstructor(cls, object, None): object creation of protocols 0 and 1 */
        if (c.n == 3 && item(v, c.args, 2).kind == S_NONE) {
            slot given;
            if (!new_tuple(v, NULL, 0, &given)) return false;
            return do_newobj(v, item(v, c.args, 0), given, slot_none(), out);
        }
        break;
    case K_NEWOBJ:
        if (c.n > 0) {
            /* the arguments lie in the pool, which new_tuple may move */
            slot class = item(v, c.args, 0), rest;
            uint32_t off, index;
            if (!charge(v, (c.n - 1) * 2 * sizeof(slot))) return false;
            if (!ROOM(v, v->pool, v->pool_cap, v->npool, c.n)) return false;
            if (!to_pool(v, &v->pool[v->objects[c.args].off + 1], c.n - 1, &off) || !new_object(v, O_TUPLE, &index))
                return false;
            v->objects[index].count = (uint32_t)(c.n - 1);
            v->objects[index].off = off;
            v->objects[index].height = v->objects[c.args].height;
            rest = slot_object(index);
            return do_newobj(v, class, rest, slot_none(), out);
        }
        break;
    case K_CLASS_SETSTATE:
        /* _class_setstate(class, (attributes, slots)): older cloudpickle tells the class's module here */
        if (c.n == 2 && is_kind(v, item(v, c.args, 0), O_OBJECT) && is_kind(v, item(v, c.args, 1), O_TUPLE) &&
            v->objects[item(v, c.args, 0).u.i].known == K_SKELETON_CLASS) {
            slot class = item(v, c.args, 0), state = item(v, c.args, 1);
            if (count(v, (uint32_t)state.u.i) > 0 && is_kind(v, item(v, (uint32_t)state.u.i, 0), O_DICT)) {
                if (!push_value(v, class) || !set_field(v, "attributes", item(v, (uint32_t)state.u.i, 0))) return false;
                if (!raise_height(v, (uint32_t)class.u.i, height_of(v, state))) return false;
            }
        }
        break;
    case K_EXCEPTION:
        type = PY_EXCEPTION;
        break;
    case K_NEW_INDEX:
        type = PY_INDEX;
        break;
    case K_TIMESTAMP:
        if (c.n >= 1 && item(v, c.args, 0).kind == S_INT) type = PY_TIMESTAMP;
        break;
    case K_PANDAS_TIMEDELTA:
        if (c.n >= 1 && item(v, c.args, 0).kind == S_INT) type = PY_PANDAS_TIMEDELTA;
        break;
    case K_NOTHING:
    case K_OBJECT:
    case K_SKELETON_CLASS:
    case K_DATAFRAME:
    case K_SERIES:
        break;
    }
    lua_settop(v->L, LS_TOP);
    if (result == DONE) return true;
    if (result == FAILED || v->status != SAT_OK) return false;
    if (type == PY_INDEX) return new_wrapped(v, callable, args, slot_none(), false, type, out);
    if (!new_inert(v, callable, args, slot_none(), false, type, out)) return false;
    v->objects[out->u.i].off = c.args + 1;
    return true;
}

/* A value is dropped. When it is a call whose first argument is an object, that is how the object gets its state (what
 * __reduce__ gives as sixth, as cloudpickle does for its classes and functions): kept with it, to go back with it. */
static bool keep_call(vm *v, slot dropped)
{
    lua_State *L = v->L;
    object *o = object_of(v, dropped);
    if (o == NULL || o->kind != O_OBJECT || o->off == 0 || count(v, o->off - 1) == 0) return true;
    slot target = item(v, o->off - 1, 0);
    if (!is_kind(v, target, O_OBJECT) || target.u.i == dropped.u.i) return true;
    if (!charge(v, 2 * sizeof(slot))) return false;
    lua_rawgeti(L, LS_OBJECTS, target.u.i);
    if (lua_rawgetp(L, -1, &satL_py_extra) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_createtable(L, 1, 0);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, -3, &satL_py_extra);
    }
    lua_rawgeti(L, LS_OBJECTS, dropped.u.i);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_settop(L, LS_TOP);
    return raise_height(v, (uint32_t)target.u.i, height_of(v, dropped));
}

static bool do_newobj(vm *v, slot class, slot args, slot kwargs, slot *out)
{
    if (!is_kind(v, class, O_GLOBAL) && !is_kind(v, class, O_OBJECT))
        return broken(v, "it makes an object of something that is no class");
    if (!is_kind(v, args, O_TUPLE)) return broken(v, "the arguments of a new object are no tuple");
    known what = is_kind(v, class, O_GLOBAL) ? (known)v->objects[class.u.i].known : K_NOTHING;
    satL_py type = PY_OBJECT;
    size_t n = count(v, (uint32_t)args.u.i);
    if (what == K_UUID && n == 0) {
        lua_createtable(v->L, 0, 1);
        return adopt_as(v, PY_UUID, O_UUID, out) == DONE;
    }
    if ((what == K_LIST || what == K_DICT || what == K_SET || what == K_ORDEREDDICT) && n == 0)
        return do_reduce(v, class, args, out);
    if (what == K_DATAFRAME || what == K_SERIES)
        return new_wrapped(v, class, args, kwargs, true, what == K_SERIES ? PY_SERIES : PY_DATAFRAME, out);
    if (what == K_EXCEPTION) type = PY_EXCEPTION;
    return new_inert(v, class, args, kwargs, true, type, out);
}

static bool do_build(vm *v, slot target, slot state)
{
    lua_State *L = v->L;
    object *o = object_of(v, target);
    outcome result = NOT_MINE;
    if (o == NULL) return broken(v, "it gives a state to something that has none");
    uint32_t index = (uint32_t)target.u.i;
    switch ((object_kind)o->kind) {
    case O_NDARRAY:
    case O_DTYPE:
        if (o->kind == O_NDARRAY && (o->flags & F_MADE)) break;
        result = o->kind == O_DTYPE ? build_dtype(v, index, state) : build_ndarray(v, index, state);
        lua_settop(L, LS_TOP);
        if (result == NOT_MINE && v->status == SAT_OK) return make_inert(v, index, state);
        break;
    case O_UUID:
        result = build_uuid(v, index, state);
        break;
    case O_WRAPPER:
        if (!do_build(v, slot_object(o->count), state)) return false;
        return raise_height(v, index, v->objects[v->objects[index].count].height);
    case O_OBJECT: {
        unsigned height = height_of(v, state);
        lua_rawgeti(L, LS_OBJECTS, index);
        if (!set_kept(v, "state", state)) return false;
        lua_settop(L, LS_TOP);
        return raise_height(v, index, height);
    }
    case O_LIST:
    case O_DICT:
    case O_SET:
    case O_VALUE:
        /* attributes of a subclass, which the plain value has no place for */
        if (is_kind(v, state, O_DICT) || is_kind(v, state, O_TUPLE) || state.kind == S_NONE) return true;
        break;
    case O_GLOBAL:
        return true; /* attributes of a class */
    case O_BYTES:
    case O_TUPLE:
    case O_BUFFER:
    case O_BYTEARRAY:
        break;
    }
    lua_settop(L, LS_TOP);
    if (result == DONE) return true;
    return v->status == SAT_OK ? broken(v, "it gives a value a state that does not fit it") : false;
}

/* ---------------------------------------------------------------- main loop */

/* A str that is made anew. With lone surrogates it is boxed: as a plain string it would go back as bytes. */
static bool push_text(vm *v, const uint8_t *data, size_t len)
{
    lua_State *L = v->L;
    slot s;
    lua_pushlstring(L, (const char *)data, len);
    if (sat_utf8_valid(data, len)) return adopt(v, O_VALUE, &s) && push(v, s);
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "value");
    return adopt_as(v, PY_STR, O_VALUE, &s) == DONE && push(v, s);
}

static bool do_string(vm *v, const sat_pickle_op *op)
{
    bool ok;
    slot s;
    sat_status status;
    sat_buf_clear(&v->text);
    switch (op->kind) {
    case SAT_PK_STR:
        if (!sat_utf8_valid(op->data, op->len)) return push_text(v, op->data, op->len);
        s = string_slot(v, op->data, op->len, S_STR, &ok);
        return ok && push(v, s);
    case SAT_PK_BYTES:
        s = string_slot(v, op->data, op->len, S_BYTES, &ok);
        return ok && push(v, s);
    case SAT_PK_UNICODE:
        if (memchr(op->data, '\\', op->len) == NULL) {
            /* only Latin-1 characters could differ from UTF-8 */
            bool ascii = true;
            for (size_t i = 0; i < op->len && ascii; i++) ascii = op->data[i] < 0x80;
            if (ascii) {
                s = string_slot(v, op->data, op->len, S_STR, &ok);
                return ok && push(v, s);
            }
        }
        status = sat_pickle_unescape_unicode(op->data, op->len, &v->text, v->err);
        break;
    default:
        if (memchr(op->data, '\\', op->len) == NULL) {
            s = string_slot(v, op->data, op->len, S_STR, &ok);
            return ok && push(v, s);
        }
        status = sat_pickle_unescape_string(op->data, op->len, &v->text, v->err);
        break;
    }
    if (status != SAT_OK) return fail(v, status);
    if (op->kind == SAT_PK_UNICODE) return push_text(v, v->text.len ? v->text.data : (const uint8_t *)"", v->text.len);
    lua_pushlstring(v->L, v->text.len ? (const char *)v->text.data : "", v->text.len);
    return adopt(v, O_VALUE, &s) && push(v, s);
}

static bool do_bigint(vm *v, const sat_pickle_op *op)
{
    lua_State *L = v->L;
    slot s;
    lua_createtable(L, 0, 1);
    if (op->kind == SAT_PK_BIGINT) {
        lua_pushlstring(L, (const char *)op->data, op->len);
    } else {
        sat_buf_clear(&v->text);
        sat_status status = sat_bigint_parse((const char *)op->data, op->len, &v->text, v->err);
        if (status != SAT_OK) return fail(v, status);
        lua_pushlstring(L, v->text.len ? (const char *)v->text.data : "", v->text.len);
    }
    lua_setfield(L, -2, "le");
    return adopt_as(v, PY_INT, O_VALUE, &s) == DONE && push(v, s);
}

static bool do_mark(vm *v)
{
    if (v->nmarks == v->marks_cap && !ROOM(v, v->marks, v->marks_cap, v->nmarks, 1)) return false;
    v->marks[v->nmarks++] = v->depth;
    return true;
}

/* Takes the topmost mark away; *items are the values above it. */
static bool pop_mark(vm *v, slot **items, size_t *n)
{
    if (v->nmarks == 0) return broken(v, "a mark is missing");
    size_t at = v->marks[--v->nmarks];
    *items = v->stack + at;
    *n = v->depth - at;
    v->depth = at;
    return true;
}

static bool do_append(vm *v, slot *items, size_t n, bool set)
{
    if (!need(v, 1)) return false;
    slot target = v->stack[v->depth - 1];
    object *o = object_of(v, target);
    bool ok = o != NULL && (o->kind == O_OBJECT || o->kind == (set ? O_SET : O_LIST));
    if (!ok)
        return broken(v, set ? "it adds items to something that is no set" : "it appends to something that is no list");
    return n == 0 || extend(v, (uint32_t)target.u.i, items, n);
}

static bool do_setitems(vm *v, slot *items, size_t n)
{
    if (!need(v, 1)) return false;
    slot target = v->stack[v->depth - 1];
    object *o = object_of(v, target);
    if (o == NULL || (o->kind != O_DICT && o->kind != O_OBJECT))
        return broken(v, "it sets items of something that is no dict");
    return n == 0 || set_items(v, (uint32_t)target.u.i, items, n);
}

static bool step(vm *v, const sat_pickle_op *op)
{
    slot *items, s;
    size_t n;
    uint32_t index;
    switch (op->kind) {
    case SAT_PK_NONE:
        return push(v, slot_none());
    case SAT_PK_FALSE:
        return push(v, (slot){.kind = S_FALSE});
    case SAT_PK_TRUE:
        return push(v, (slot){.kind = S_TRUE});
    case SAT_PK_INT:
        return push(v, slot_int(op->i));
    case SAT_PK_FLOAT:
        return push(v, (slot){.kind = S_FLOAT, .u.f = op->f});
    case SAT_PK_BIGINT:
    case SAT_PK_DECIMAL:
        return do_bigint(v, op);
    case SAT_PK_STR:
    case SAT_PK_BYTES:
    case SAT_PK_UNICODE:
    case SAT_PK_STRING:
        return do_string(v, op);
    case SAT_PK_BYTEARRAY: {
        bool ok;
        uint32_t off;
        s = string_slot(v, op->data, op->len, S_BYTES, &ok);
        if (!ok) return false;
        if (s.kind == S_OBJ) return fail(v, sat_fail(v->err, SAT_LIMIT, "a bytearray of more than 4 GiB in a pickle"));
        if (!to_pool(v, &s, 1, &off) || !new_object(v, O_BYTEARRAY, &index)) return false;
        v->objects[index].off = off;
        return push(v, slot_object(index));
    }
    case SAT_PK_NEXT_BUFFER:
        if (v->next_buffer >= v->nbuffers) return broken(v, "it needs more out-of-band buffers than came with it");
        if (!new_object(v, O_BUFFER, &index)) return false;
        v->objects[index].count = (uint32_t)v->next_buffer++;
        return push(v, slot_object(index));
    case SAT_PK_READONLY_BUFFER:
        if (!need(v, 1)) return false;
        s = v->stack[v->depth - 1];
        if (is_kind(v, s, O_BUFFER) && !(v->objects[s.u.i].flags & F_MADE)) v->objects[s.u.i].flags |= F_READONLY;
        return true;

    case SAT_PK_MARK:
        return do_mark(v);
    case SAT_PK_POP:
        if (v->nmarks > 0 && v->marks[v->nmarks - 1] == v->depth) {
            v->nmarks--;
            return true;
        }
        if (!need(v, 1)) return false;
        v->depth--;
        return keep_call(v, v->stack[v->depth]);
    case SAT_PK_POP_MARK:
        return pop_mark(v, &items, &n);
    case SAT_PK_DUP:
        return need(v, 1) && push(v, v->stack[v->depth - 1]);

    case SAT_PK_EMPTY_LIST:
    case SAT_PK_EMPTY_DICT:
    case SAT_PK_EMPTY_SET:
        if (!new_object(v, op->kind == SAT_PK_EMPTY_LIST ? O_LIST : op->kind == SAT_PK_EMPTY_DICT ? O_DICT : O_SET,
                        &index))
            return false;
        return push(v, slot_object(index));
    case SAT_PK_EMPTY_TUPLE:
        return new_tuple(v, NULL, 0, &s) && push(v, s);
    case SAT_PK_TUPLE:
        return pop_mark(v, &items, &n) && new_tuple(v, items, n, &s) && push(v, s);
    case SAT_PK_TUPLE_N:
        n = (size_t)op->i;
        if (!need(v, n)) return false;
        v->depth -= n;
        return new_tuple(v, v->stack + v->depth, n, &s) && push(v, s);
    case SAT_PK_LIST:
        if (!pop_mark(v, &items, &n) || !new_object(v, O_LIST, &index)) return false;
        return (n == 0 || extend(v, index, items, n)) && push(v, slot_object(index));
    case SAT_PK_DICT:
        if (!pop_mark(v, &items, &n) || !new_object(v, O_DICT, &index)) return false;
        return (n == 0 || set_items(v, index, items, n)) && push(v, slot_object(index));
    case SAT_PK_FROZENSET:
        if (!pop_mark(v, &items, &n) || !new_object(v, O_SET, &index)) return false;
        if (!extend(v, index, items, n)) return false;
        lua_rawgeti(v->L, LS_OBJECTS, index);
        satL_py_set(v->L, PY_FROZENSET);
        lua_pop(v->L, 1);
        v->objects[index].kind = O_VALUE;
        return push(v, slot_object(index));
    case SAT_PK_APPEND:
        if (!need(v, 2)) return false;
        v->depth--;
        return do_append(v, v->stack + v->depth, 1, false);
    case SAT_PK_APPENDS:
        return pop_mark(v, &items, &n) && do_append(v, items, n, false);
    case SAT_PK_ADDITEMS:
        return pop_mark(v, &items, &n) && do_append(v, items, n, true);
    case SAT_PK_SETITEM:
        if (!need(v, 3)) return false;
        v->depth -= 2;
        return do_setitems(v, v->stack + v->depth, 2);
    case SAT_PK_SETITEMS:
        return pop_mark(v, &items, &n) && do_setitems(v, items, n);

    case SAT_PK_GET:
        return memo_get(v, (uint64_t)op->i, &s) && push(v, s);
    case SAT_PK_PUT:
        return need(v, 1) && memo_put(v, (uint64_t)op->i, v->stack[v->depth - 1]);
    case SAT_PK_MEMOIZE:
        return need(v, 1) && memo_put(v, v->memo_len, v->stack[v->depth - 1]);

    case SAT_PK_GLOBAL:
    case SAT_PK_INST: {
        bool ok1, ok2;
        slot module = string_slot(v, op->data, op->len, S_STR, &ok1), callable, args;
        slot name = string_slot(v, op->data2, op->len2, S_STR, &ok2);
        if (!ok1 || !ok2 || !new_global(v, module, name, &callable)) return false;
        if (op->kind == SAT_PK_GLOBAL) return push(v, callable);
        return pop_mark(v, &items, &n) && new_tuple(v, items, n, &args) && do_reduce(v, callable, args, &s) &&
               push(v, s);
    }
    case SAT_PK_STACK_GLOBAL: {
        slot callable;
        if (!need(v, 2)) return false;
        v->depth -= 2;
        return new_global(v, v->stack[v->depth], v->stack[v->depth + 1], &callable) && push(v, callable);
    }
    case SAT_PK_OBJ: {
        slot args;
        if (!pop_mark(v, &items, &n)) return false;
        if (n == 0) return broken(v, "it takes more from the stack than is there");
        slot class = items[0];
        return new_tuple(v, items + 1, n - 1, &args) && do_reduce(v, class, args, &s) && push(v, s);
    }
    case SAT_PK_REDUCE:
    case SAT_PK_NEWOBJ:
        if (!need(v, 2)) return false;
        v->depth -= 2;
        items = v->stack + v->depth;
        if (op->kind == SAT_PK_REDUCE) return do_reduce(v, items[0], items[1], &s) && push(v, s);
        return do_newobj(v, items[0], items[1], slot_none(), &s) && push(v, s);
    case SAT_PK_NEWOBJ_EX:
        if (!need(v, 3)) return false;
        v->depth -= 3;
        items = v->stack + v->depth;
        return do_newobj(v, items[0], items[1], items[2], &s) && push(v, s);
    case SAT_PK_BUILD:
        if (!need(v, 2)) return false;
        v->depth--;
        return do_build(v, v->stack[v->depth - 1], v->stack[v->depth]);
    case SAT_PK_STOP:
        break;
    }
    return broken(v, "internal error");
}

/* Runs the machine at index LS_VM and leaves the value. Called in protected mode. */
static int run(lua_State *L)
{
    vm *v = lua_touserdata(L, LS_VM);
    sat_pickle_op op;
    luaL_checkstack(L, 40, "pickle");
    if (!ROOM(v, v->stack, v->stack_cap, 0, 32) || !ROOM(v, v->pool, v->pool_cap, 0, 32)) return 0;
    lua_newtable(L);
    static const satL_py hot[] = {PY_TUPLE, PY_DICT, PY_SET};
    for (size_t i = 0; i < sizeof hot / sizeof *hot; i++) {
        lua_newtable(L);
        satL_py_set(L, hot[i]);
        lua_getmetatable(L, -1);
        lua_remove(L, -2);
    }
    lua_pushnil(L); /* LS_BYTES: a table when it is needed */
    for (;;) {
        if (sat_pickle_quick(&v->scan, &op)) {
            bool ok;
            switch (op.kind) {
            case SAT_PK_INT:
                ok = push(v, slot_int(op.i));
                break;
            case SAT_PK_FLOAT:
                ok = push(v, (slot){.kind = S_FLOAT, .u.f = op.f});
                break;
            case SAT_PK_STR:
                ok = sat_utf8_valid(op.data, op.len)
                         ? push(v, (slot){.kind = S_STR, .len = (uint32_t)op.len, .u.s = op.data})
                         : step(v, &op);
                break;
            case SAT_PK_GET: {
                slot s;
                ok = memo_get(v, (uint64_t)op.i, &s) && push(v, s);
                break;
            }
            case SAT_PK_MEMOIZE:
                ok = need(v, 1) && memo_put(v, v->memo_len, v->stack[v->depth - 1]);
                break;
            default:
                ok = step(v, &op);
                break;
            }
            if (!ok) return 0;
            continue;
        }
        sat_status status = sat_pickle_next(&v->scan, &op, v->err);
        if (status != SAT_OK) {
            v->status = status;
            return 0;
        }
        if (op.kind == SAT_PK_STOP) break;
        if (!step(v, &op)) return 0;
    }
    if (!need(v, 1)) return 0;
    lua_settop(L, LS_TOP);
    if (!push_or_nil(v, v->stack[v->depth - 1])) return 0;
    return 1;
}

sat_status satL_unpickle(lua_State *L, sat_slice pickle, const sat_slice *buffers, size_t nbuffers,
                         const sat_limits *limits, sat_error *err)
{
    static const sat_limits defaults = SAT_LIMITS_DEFAULT;
    sat_error local;
    if (limits == NULL) limits = &defaults;
    if (err == NULL) err = &local;
    vm v = {.L = L,
            .pickle = pickle,
            .buffers = buffers,
            .nbuffers = nbuffers,
            .max_memo = limits->memo,
            .max_height = limits->depth > MAX_HEIGHT ? MAX_HEIGHT : (unsigned)limits->depth,
            .budget = pickle.len,
            .status = SAT_OK,
            .err = err};
    for (size_t i = 0; i < nbuffers; i++) v.budget += buffers[i].len;
    if (v.budget > UINT64_MAX / 32) v.budget = UINT64_MAX / 32;
    v.budget = v.budget * 8 + (UINT64_C(1) << 20);
    sat_pickle_scan_init(&v.scan, pickle.data, pickle.len, limits);
    /* Everything made here stays, so the collector would only walk it again and again. Protected, so that it is
     * switched on again and the C memory is freed whatever happens. Not for small ones: switching it on again makes
     * it start anew, which would cost more than it saves. */
    bool collecting = pickle.len >= PAUSE_COLLECTOR_BYTES && lua_gc(L, LUA_GCISRUNNING) != 0;
    if (!lua_checkstack(L, 4)) return sat_fail_nomem(err);
    if (collecting) lua_gc(L, LUA_GCSTOP);
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &v);
    int status = lua_pcall(L, 1, 1, 0);
    if (collecting) lua_gc(L, LUA_GCRESTART);
    free(v.stack);
    free(v.marks);
    free(v.memo);
    free(v.far);
    free(v.objects);
    free(v.pool);
    sat_buf_free(&v.text);
    sat_dtype_release(v.type);
    sat_dtype_release(v.record);
    for (size_t i = 0; i < v.ntypes; i++) sat_dtype_release(v.types[i]);
    free(v.types);
    if (status != LUA_OK) {
        if (status == LUA_ERRMEM) lua_error(L);
        sat_fail(err, SAT_PROTOCOL, "cannot read the pickle: %s",
                 lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "unknown error");
        lua_pop(L, 1);
        return SAT_PROTOCOL;
    }
    if (v.status != SAT_OK) lua_pop(L, 1);
    return v.status;
}
