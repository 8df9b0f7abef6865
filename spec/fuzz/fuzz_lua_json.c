/* Answers of the service: any JSON as what a call of the control plane gets, see answers.lua. Run it from the root of a
 * checkout. No allocation fails, since lua-cjson leaks then. */
#include "lua_state.h"

typedef struct answer {
    const char *text;
    size_t len;
} answer;

/* The lines of Lua that run count as coverage. */
#ifdef __ELF__
__attribute__((section("__libfuzzer_extra_counters")))
#endif
static uint8_t lines[1 << 13];

static void count_line(lua_State *L, lua_Debug *at)
{
    lua_getinfo(L, "S", at);
    uint32_t hash = (uint32_t)at->currentline * 2654435761u;
    for (const char *c = at->short_src; *c != '\0'; c++) hash = (hash ^ (uint8_t)*c) * 16777619u;
    lines[(hash >> 16) % sizeof lines]++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int give(lua_State *L)
{
    const answer *given = lua_touserdata(L, 1);
    lua_pushlstring(L, given->text, given->len);
    lua_call(L, 1, 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    answer given = {(const char *)data, size};
    lua_State *L = state_open("return dofile 'spec/fuzz/answers.lua'");
    lua_sethook(L, count_line, LUA_MASKLINE, 0);
    if (size > 0) state_run(L, give, &given, 0);
    return 0;
}
