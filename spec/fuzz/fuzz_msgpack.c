/* The msgpack scanner on hostile bytes: tokens stay inside the input, skipping a value reads the same as walking it. */
#include <stdlib.h>

#include "graph.h"
#include "msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(const uint8_t *data, size_t size, const sat_mp_token *token)
{
    if (token->type != SAT_MP_STR && token->type != SAT_MP_BIN) return;
    const uint8_t *part = token->as.bytes.data;
    if (part < data || part > data + size || token->as.bytes.len > (size_t)(data + size - part)) abort();
}

/* One value, walked token by token; where it ends, or NULL. */
static const uint8_t *walk(const uint8_t *data, size_t size, sat_mp scan)
{
    size_t open = 1;
    while (open > 0) {
        sat_mp_token token;
        if (sat_mp_next(&scan, &token, NULL) != SAT_OK) return NULL;
        if (scan.pos > data + size) abort();
        inside(data, size, &token);
        open--;
        if (token.type == SAT_MP_ARRAY) open += token.as.count;
        if (token.type == SAT_MP_MAP) open += 2 * token.as.count;
    }
    return scan.pos;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sat_mp scan = {data, data + size};
    sat_slice value;
    while (scan.pos < scan.end) {
        const uint8_t *end = walk(data, size, scan);
        sat_error err = {SAT_OK, ""};
        sat_status status = sat_mp_value(&scan, &value, &err);
        if ((status == SAT_OK) != (end != NULL) || (end && scan.pos != end)) abort();
        if (status != SAT_OK) break;
        if (value.data + value.len != end) abort();
        sat_pickler pickle; /* keys and annotations take this way into a graph */
        sat_pickler_init(&pickle);
        sat_pickle_msgpack(&pickle, value);
        sat_pickler_free(&pickle);
    }
    return 0;
}
