/* saturn.core.process: spawn({program, ...}, {env={NAME=value}, stderr="inherit"|"null"|"pipe", group=true}) → process.
 *
 * process:pid(), :fd(), :read() and :read_stderr() → text | nil, "again" | nil, "eof", :write(text) → bytes taken |
 * nil, "again", :close_stdin(), :poll() → nil | status, "exit"|"signal", :kill(signal?), :close(). */
#include "../core/process.h"

#include <signal.h>
#include <string.h>

#include "saturn_lua.h"

#define PROCESS "saturn.process"

typedef struct box {
    sat_process *process; /* NULL once closed */
    lua_Integer pid;
} box;

static sat_process *check_process(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, PROCESS);
    if (b->process == NULL) luaL_error(L, "this process object is closed");
    return b->process;
}

/* A userdata of n + 1 pointers, the last NULL, left on the stack. */
static const char **new_list(lua_State *L, lua_Unsigned n)
{
    if (n > 65536) luaL_error(L, "too many texts for a process");
    const char **list = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *list, 0);
    for (size_t i = 0; i <= n; i++) list[i] = NULL;
    return list;
}

static const char *check_text(lua_State *L, int idx, const char *what)
{
    size_t len;
    if (lua_type(L, idx) != LUA_TSTRING) luaL_error(L, "%s must be a string, not %s", what, luaL_typename(L, idx));
    const char *text = lua_tolstring(L, idx, &len);
    if (strlen(text) != len) luaL_error(L, "%s holds a zero byte", what);
    return text;
}

/* argv at idx, a sequence of strings that stays on the stack and keeps them alive. */
static const char **check_argv(lua_State *L, int idx)
{
    luaL_checktype(L, idx, LUA_TTABLE);
    lua_Unsigned n = lua_rawlen(L, idx);
    luaL_argcheck(L, n > 0, idx, "no program to start");
    const char **argv = new_list(L, n);
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, idx, (lua_Integer)i);
        argv[i - 1] = check_text(L, -1, "an argument");
        lua_pop(L, 1);
    }
    return argv;
}

/* The table of names and values on top of the stack; leaves the texts "NAME=value" and the list on the stack. */
static const char **check_env(lua_State *L)
{
    int from = lua_gettop(L), texts;
    lua_Unsigned n = 0;
    luaL_argexpected(L, lua_istable(L, from), 2, "table of names and values in env");
    lua_newtable(L);
    texts = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, from);) {
        const char *name = check_text(L, -2, "a name in env");
        const char *value = check_text(L, -1, "a value in env");
        if (name[0] == '\0' || strchr(name, '=')) luaL_error(L, "'%s' is no name for env", name);
        lua_pushfstring(L, "%s=%s", name, value);
        lua_rawseti(L, texts, (lua_Integer)++n);
        lua_pop(L, 1);
    }
    const char **env = new_list(L, n);
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, texts, (lua_Integer)i);
        env[i - 1] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    return env;
}

static int check_flags(lua_State *L)
{
    static const char *const names[] = {"inherit", "null", "pipe", NULL};
    static const int values[] = {0, SAT_PROCESS_STDERR_NULL, SAT_PROCESS_STDERR_PIPE};
    int flags = 0;
    if (lua_getfield(L, 2, "stderr") != LUA_TNIL) {
        const char *word = check_text(L, -1, "stderr");
        int i = 0;
        while (names[i] && strcmp(names[i], word) != 0) i++;
        if (names[i] == NULL) luaL_error(L, "stderr must be 'inherit', 'null' or 'pipe', not '%s'", word);
        flags |= values[i];
    }
    lua_pop(L, 1);
    lua_getfield(L, 2, "group");
    if (lua_toboolean(L, -1)) flags |= SAT_PROCESS_GROUP;
    lua_pop(L, 1);
    return flags;
}

static int process_spawn(lua_State *L)
{
    sat_error err;
    int flags = 0;
    const char **env = NULL;
    lua_settop(L, 2);
    const char **argv = check_argv(L, 1);
    if (!lua_isnil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        flags = check_flags(L);
        if (lua_getfield(L, 2, "env") != LUA_TNIL) env = check_env(L);
    }
    box *b = lua_newuserdatauv(L, sizeof *b, 0);
    b->process = NULL;
    b->pid = 0;
    luaL_setmetatable(L, PROCESS);
    if (sat_process_spawn(argv, env, flags, &b->process, &err) != SAT_OK) return satL_fail(L, &err);
    b->pid = (lua_Integer)sat_process_pid(b->process);
    return 1;
}

static int process_close(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, PROCESS);
    sat_process_free(b->process);
    b->process = NULL;
    return 0;
}

static int process_tostring(lua_State *L)
{
    const box *b = luaL_checkudata(L, 1, PROCESS);
    lua_pushfstring(L, "%s %I%s", PROCESS, (LUAI_UACINT)b->pid, b->process ? "" : " (closed)");
    return 1;
}

static int process_pid(lua_State *L)
{
    const box *b = luaL_checkudata(L, 1, PROCESS);
    lua_pushinteger(L, b->pid);
    return 1;
}

static int process_fd(lua_State *L)
{
    static const char *const names[] = {"stdout", "stderr", NULL};
    sat_process *process = check_process(L);
    int fd = sat_process_fd(process, luaL_checkoption(L, 2, "stdout", names) ? SAT_STDERR : SAT_STDOUT);
    if (fd < 0) return 0;
    lua_pushinteger(L, fd);
    return 1;
}

static int push_again(lua_State *L, const char *word)
{
    lua_pushnil(L);
    lua_pushstring(L, word);
    return 2;
}

static int read_from(lua_State *L, int which)
{
    char data[4096];
    size_t len;
    sat_error err;
    switch (sat_process_read(check_process(L), which, data, sizeof data, &len, &err)) {
    case SAT_OK: lua_pushlstring(L, data, len); return 1;
    case SAT_AGAIN: return push_again(L, "again");
    case SAT_EOF: return push_again(L, "eof");
    default: return satL_fail(L, &err);
    }
}

static int process_read(lua_State *L)
{
    return read_from(L, SAT_STDOUT);
}

static int process_read_stderr(lua_State *L)
{
    return read_from(L, SAT_STDERR);
}

static int process_write(lua_State *L)
{
    size_t len, written;
    sat_error err;
    sat_process *process = check_process(L);
    const char *text = luaL_checklstring(L, 2, &len);
    sat_status status = sat_process_write(process, text, len, &written, &err);
    if (status == SAT_AGAIN) return push_again(L, "again");
    if (status != SAT_OK) return satL_fail(L, &err);
    lua_pushinteger(L, (lua_Integer)written);
    return 1;
}

static int process_close_stdin(lua_State *L)
{
    sat_process_close_stdin(check_process(L));
    return 0;
}

static int process_poll(lua_State *L)
{
    int code;
    bool signalled;
    if (sat_process_poll(check_process(L), &code, &signalled) == SAT_AGAIN) return 0;
    lua_pushinteger(L, code);
    lua_pushstring(L, signalled ? "signal" : "exit");
    return 2;
}

static int process_kill(lua_State *L)
{
    sat_error err;
    sat_process *process = check_process(L);
    lua_Integer number = luaL_optinteger(L, 2, SIGTERM);
    luaL_argcheck(L, number >= 0 && number < 128, 2, "not a signal");
    if (sat_process_kill(process, (int)number, &err) != SAT_OK) return satL_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

int satL_open_process(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"pid", process_pid},
        {"fd", process_fd},
        {"read", process_read},
        {"read_stderr", process_read_stderr},
        {"write", process_write},
        {"close_stdin", process_close_stdin},
        {"poll", process_poll},
        {"kill", process_kill},
        {"close", process_close},
        {NULL, NULL},
    };
    static const luaL_Reg meta[] = {
        {"__gc", process_close},
        {"__close", process_close},
        {"__tostring", process_tostring},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {{"spawn", process_spawn}, {NULL, NULL}};
    satL_class(L, PROCESS, methods, meta);
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
