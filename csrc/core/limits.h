/* Bounds on what a peer can make this process do; the `limits` option of a client sets them by these names. */
#ifndef SATURN_LIMITS_H
#define SATURN_LIMITS_H

#include <stdint.h>

typedef struct sat_limits {
    uint64_t message; /* bytes of one message, all frames together */
    uint64_t frame;   /* bytes of one frame, also after decompression */
    uint64_t depth;   /* nesting of containers in a value */
    uint64_t nodes;   /* values and opcodes in one pickle or msgpack text */
    uint64_t memo;    /* entries in a pickle's memo */
} sat_limits;

#define SAT_LIMITS_DEFAULT                                                                        \
    {                                                                                             \
        .message = UINT64_C(16) << 30, .frame = UINT64_C(8) << 30, .depth = 200,                  \
        .nodes = UINT64_C(500000000), .memo = UINT64_C(100000000)                                 \
    }

#endif
