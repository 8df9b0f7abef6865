/* The sub-header of a serialized value on hostile bytes, with a few frames behind it: what is made whole lies inside
 * what came or is no longer than the limit. The first byte says how the rest is cut into frames. */
#include <stdlib.h>
#include <string.h>

#include "msgpack.h"
#include "serialized.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FRAMES = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sat_limits limits = {.message = 1 << 20, .frame = 1 << 16, .depth = 10, .nodes = 1000, .memo = 1000};
    sat_slice frames[FRAMES];
    sat_frame_list list;
    sat_header header;
    if (size < 1) return 0;
    size_t tail = data[0] < size - 1 ? data[0] : size - 1;
    sat_block *block = sat_block_new(size);
    if (block == NULL) return 0;
    memcpy(block->data, data, size);
    /* frame 0 is the message itself, 1 the header, the others share the tail */
    frames[0] = (sat_slice){block, block->data, 1};
    frames[1] = (sat_slice){block, block->data + 1, size - 1 - tail};
    frames[2] = (sat_slice){block, block->data + size - tail, tail / 2};
    frames[3] = (sat_slice){block, block->data + size - tail + tail / 2, tail - tail / 2};
    sat_message message = {.refs = 1, .block = block, .count = FRAMES, .frames = frames};
    sat_mp scan = {frames[1].data, frames[1].data + frames[1].len};
    if (sat_header_read(&scan, &header, NULL) == SAT_OK) {
        if (scan.pos > scan.end) abort();
        sat_error err = {SAT_OK, ""};
        sat_status status = sat_header_frames(&header, &message, 1, &limits, &list, &err);
        if ((status == SAT_OK) != (list.items != NULL) || (status != SAT_OK && err.status != status)) abort();
        for (size_t i = 0; i < list.count; i++) {
            volatile uint8_t sum = 0;
            if (list.items[i].len > limits.frame + size) abort();
            for (size_t j = 0; j < list.items[i].len; j++) sum = (uint8_t)(sum + list.items[i].data[j]);
        }
        sat_frame_list_free(&list);
    }
    if (block->refs != 1) abort();
    sat_block_release(block);
    return 0;
}
