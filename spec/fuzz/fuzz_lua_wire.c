/* Hostile messages through the Lua face: the bytes are cut into frames, the first is read, and every serialized value
 * in it is decoded and written again. An allocation that fails leaks nothing. */
#include "../../csrc/lua/wire.h"
#include "lua_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char use[] = "local count\n"
                          "local function touch(value, depth)\n"
                          "  if type(value) == 'table' and depth < 10 then\n"
                          "    for k, v in next, value do touch(k, depth + 1) touch(v, depth + 1) end\n"
                          "  elseif core.array.is(value) then\n"
                          "    if value.nbytes < 4096 then\n"
                          "      tostring(value) pcall(value.totable, value) core.pickle.dumps(value)\n"
                          "    end\n"
                          "  elseif type(value) == 'userdata' and value ~= core.null and count < 10 then\n"
                          "    count = count + 1\n"
                          "    local inner, kind, message = value:value()\n"
                          "    assert(inner ~= nil or kind == nil or #message > 0)\n"
                          "    touch(inner, 0)\n"
                          "    if inner ~= nil and not core.array.is(inner) then core.pickle.dumps(inner) end\n"
                          "  end\n"
                          "end\n"
                          "return function(value) count = 0 touch(value, 0) end\n";

static const sat_limits limits = {.message = 1 << 20, .frame = 1 << 18, .depth = 50, .nodes = 20000, .memo = 1000};

static int decode(lua_State *L)
{
    sat_message *message = lua_touserdata(L, 1);
    sat_error err = {SAT_OK, ""};
    sat_status status = satL_push_msgpack(L, message, message->frames[0], &limits, 1, &err);
    return state_use(L, status, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sat_frame_reader reader;
    if (size < 1) return 0;
    sat_frames_init(&reader, &limits);
    for (size_t at = 1; at < size;) {
        size_t used;
        sat_status status = sat_frames_feed(&reader, data + at, size - at, &used, NULL);
        at += used;
        if (status == SAT_AGAIN) continue;
        if (status != SAT_OK) break;
        sat_message *message = sat_frames_take(&reader);
        state_run(state_open(use), decode, message, data[0]);
        sat_message_release(message);
    }
    sat_frames_free(&reader);
    return 0;
}
