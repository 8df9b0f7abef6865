/* The Lua shapes of Python values: names of the metatables, shared by the reader and the writer of pickles.
 *
 * Each metatable lives in the registry of its Lua state under "saturn.py.<name>"; satL_open_pickle makes them all,
 * lua/saturn/py.lua gives them methods. docs/values.md describes the shapes. */
#ifndef SATURN_LUA_PYVALUE_H
#define SATURN_LUA_PYVALUE_H

#include "saturn_lua.h"

typedef enum satL_py {
    PY_NONE_ = 0, /* a table without one of our metatables */
    PY_LIST,
    PY_DICT,
    PY_TUPLE,
    PY_SET,
    PY_FROZENSET,
    PY_ORDEREDDICT,
    PY_DEFAULTDICT,
    PY_COUNTER,
    PY_DEQUE,
    PY_CARRAY,
    PY_INT,
    PY_FLOAT,
    PY_STR,
    PY_BYTES,
    PY_BYTEARRAY,
    PY_COMPLEX,
    PY_DECIMAL,
    PY_FRACTION,
    PY_UUID,
    PY_RANGE,
    PY_SLICE,
    PY_DATETIME,
    PY_DATE,
    PY_TIME,
    PY_TIMEDELTA,
    PY_TIMEZONE,
    PY_ZONEINFO,
    PY_PATH,
    PY_DTYPE,
    PY_DATETIME64,
    PY_REF,
    PY_FN,
    PY_KW,
    PY_OBJECT,
    PY_EXCEPTION,
    PY_TRACEBACK,
    PY_DATAFRAME,
    PY_SERIES,
    PY_INDEX,
    PY_TIMESTAMP,
    PY_PANDAS_TIMEDELTA,
    PY_COUNT_
} satL_py;

/* The metatable's name in the registry. */
const char *satL_py_name(satL_py type);

/* What kind of Python value the table at idx is: by its metatable. Pushes nothing, raises nothing. */
satL_py satL_py_type(lua_State *L, int idx);

/* Gives the table on top of the stack its metatable. */
void satL_py_set(lua_State *L, satL_py type);

/* Pushes an integer, or where Lua's are too small a py.int. */
void satL_py_push_uint(lua_State *L, uint64_t value);

/* Details that a user does not want to meet in pairs(): the order of an OrderedDict, the factory of a defaultdict.
 * They are kept in the table itself under this address as a light userdata. */
extern const char satL_py_extra;

#endif
