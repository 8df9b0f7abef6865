#include "pyvalue.h"

const char satL_py_extra = 0;

static const char *const NAMES[PY_COUNT_] = {
    [PY_NONE_] = "",
    [PY_LIST] = "saturn.py.list",
    [PY_DICT] = "saturn.py.dict",
    [PY_TUPLE] = "saturn.py.tuple",
    [PY_SET] = "saturn.py.set",
    [PY_FROZENSET] = "saturn.py.frozenset",
    [PY_ORDEREDDICT] = "saturn.py.OrderedDict",
    [PY_DEFAULTDICT] = "saturn.py.defaultdict",
    [PY_COUNTER] = "saturn.py.Counter",
    [PY_DEQUE] = "saturn.py.deque",
    [PY_CARRAY] = "saturn.py.array",
    [PY_INT] = "saturn.py.int",
    [PY_FLOAT] = "saturn.py.float",
    [PY_STR] = "saturn.py.str",
    [PY_BYTES] = "saturn.py.bytes",
    [PY_BYTEARRAY] = "saturn.py.bytearray",
    [PY_COMPLEX] = "saturn.py.complex",
    [PY_DECIMAL] = "saturn.py.Decimal",
    [PY_FRACTION] = "saturn.py.Fraction",
    [PY_UUID] = "saturn.py.UUID",
    [PY_RANGE] = "saturn.py.range",
    [PY_SLICE] = "saturn.py.slice",
    [PY_DATETIME] = "saturn.py.datetime",
    [PY_DATE] = "saturn.py.date",
    [PY_TIME] = "saturn.py.time",
    [PY_TIMEDELTA] = "saturn.py.timedelta",
    [PY_TIMEZONE] = "saturn.py.timezone",
    [PY_ZONEINFO] = "saturn.py.ZoneInfo",
    [PY_PATH] = "saturn.py.path",
    [PY_DTYPE] = "saturn.py.dtype",
    [PY_DATETIME64] = "saturn.py.datetime64",
    [PY_REF] = "saturn.py.ref",
    [PY_FN] = "saturn.py.fn",
    [PY_KW] = "saturn.py.kw",
    [PY_OBJECT] = "saturn.py.object",
    [PY_EXCEPTION] = "saturn.py.exception",
    [PY_TRACEBACK] = "saturn.py.traceback",
    [PY_DATAFRAME] = "saturn.py.DataFrame",
    [PY_SERIES] = "saturn.py.Series",
    [PY_INDEX] = "saturn.py.Index",
    [PY_TIMESTAMP] = "saturn.py.Timestamp",
    [PY_PANDAS_TIMEDELTA] = "saturn.py.Timedelta",
};

const char *satL_py_name(satL_py type)
{
    return NAMES[type];
}

/* The type is kept in the metatable under this address, so that finding it costs no string comparison. */
static const char type_tag = 0;

satL_py satL_py_type(lua_State *L, int idx)
{
    satL_py type = PY_NONE_;
    if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return type;
    lua_rawgetp(L, -1, &type_tag);
    int isnum;
    lua_Integer value = lua_tointegerx(L, -1, &isnum);
    if (isnum && value > PY_NONE_ && value < PY_COUNT_) type = (satL_py)value;
    lua_pop(L, 2);
    return type;
}

void satL_py_set(lua_State *L, satL_py type)
{
    const char *name = NAMES[type];
    if (luaL_newmetatable(L, name)) {
        lua_pushinteger(L, type);
        lua_rawsetp(L, -2, &type_tag);
    }
    lua_setmetatable(L, -2);
}

void satL_py_push_uint(lua_State *L, uint64_t value)
{
    char le[9] = {0};
    if (value <= (uint64_t)INT64_MAX) {
        lua_pushinteger(L, (lua_Integer)value);
        return;
    }
    for (int i = 0; i < 8; i++) le[i] = (char)(uint8_t)(value >> (8 * i));
    lua_createtable(L, 0, 1);
    lua_pushlstring(L, le, sizeof le);
    lua_setfield(L, -2, "le");
    satL_py_set(L, PY_INT);
}
