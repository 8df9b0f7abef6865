/* Framing on hostile bytes: however they are cut into pieces the messages are the same, their frames lie inside, and
 * memory follows what came. */
#include <stdlib.h>
#include <string.h>

#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const sat_limits limits = {.message = 1 << 20, .frame = 1 << 19, .depth = 10, .nodes = 1000, .memo = 1000};

/* A number that tells what was read; touches every byte of every frame. */
static uint64_t read_all(const uint8_t *data, size_t size, size_t step, sat_status *status)
{
    sat_frame_reader reader;
    uint64_t sum = 0;
    sat_error err = {SAT_OK, ""};
    sat_frames_init(&reader, &limits);
    *status = SAT_AGAIN;
    for (size_t at = 0; at < size;) {
        size_t used, piece = size - at < step ? size - at : step;
        *status = sat_frames_feed(&reader, data + at, piece, &used, &err);
        if (used > piece || reader.capacity > (2 << 20)) abort();
        at += used;
        if (*status == SAT_OK) {
            sat_message *message = sat_frames_take(&reader);
            if (message == NULL || message->count == 0) abort();
            for (size_t i = 0; i < message->count; i++)
                for (size_t j = 0; j < message->frames[i].len; j++) sum = sum * 31 + message->frames[i].data[j] + i;
            sat_message_release(message);
        } else if (*status != SAT_AGAIN) {
            if (err.status != *status || err.text[0] == '\0') abort();
            break;
        }
    }
    sat_frames_free(&reader);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sat_status whole, pieces;
    if (size < 1) return 0;
    size_t step = (size_t)data[0] + 1;
    data++;
    size--;
    uint64_t sum = read_all(data, size, size ? size : 1, &whole);
    if (read_all(data, size, step, &pieces) != sum || whole != pieces) abort();
    return 0;
}
