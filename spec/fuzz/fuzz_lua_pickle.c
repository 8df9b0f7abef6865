/* Hostile pickles through the reader of the Lua face: they are refused with a reason or become a value, which can be
 * written again; memory follows what came, and an allocation that fails leaks nothing. */
#include "../../csrc/lua/pickle.h"
#include "lua_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char use[] = "local function touch(value, depth)\n"
                          "  if core.array.is(value) and value.nbytes < 4096 then\n"
                          "    tostring(value) pcall(value.totable, value)\n"
                          "  end\n"
                          "  if type(value) == 'table' and depth < 10 then\n"
                          "    for k, v in next, value do touch(k, depth + 1) touch(v, depth + 1) end\n"
                          "  end\n"
                          "end\n"
                          "return function(value)\n"
                          "  touch(value, 0)\n"
                          "  local text, kind, message = core.pickle.dumps(value)\n"
                          "  assert(text or kind == 'value' or kind == 'limit', kind)\n"
                          "  assert(text or #message > 0)\n"
                          "end\n";

static int decode(lua_State *L)
{
    const sat_limits limits = {.message = 1 << 20, .frame = 1 << 20, .depth = 50, .nodes = 20000, .memo = 1000};
    const sat_slice *pickle = lua_touserdata(L, 1);
    sat_error err = {SAT_OK, ""};
    /* a buffer for those that are out of band: the input itself */
    sat_status status = satL_unpickle(L, *pickle, pickle, 1, &limits, &err);
    return state_use(L, status, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    sat_slice pickle = {NULL, data + 1, size - 1};
    state_run(state_open(use), decode, &pickle, data[0]);
    return 0;
}
