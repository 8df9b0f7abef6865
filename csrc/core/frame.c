#include "frame.h"

#include <stdlib.h>
#include <string.h>

enum { READ_HEAD, READ_LENGTHS, READ_BODY };
enum { FIRST_BODY = 1 << 20, LENGTHS_STEP = 1 << 16 };

sat_message *sat_message_retain(sat_message *message)
{
    message->refs++;
    return message;
}

void sat_message_release(sat_message *message)
{
    if (message == NULL || --message->refs > 0) return;
    sat_block_release(message->block);
    free(message->frames);
    free(message);
}

void sat_frames_init(sat_frame_reader *reader, const sat_limits *limits)
{
    memset(reader, 0, sizeof *reader);
    reader->limits = *limits;
    reader->state = READ_HEAD;
}

void sat_frames_free(sat_frame_reader *reader)
{
    sat_buf_free(&reader->lengths);
    free(reader->body);
    sat_message_release(reader->ready);
    reader->body = NULL;
    reader->ready = NULL;
}

/* Room grows with what has arrived, so that an announced size alone costs nothing; behind the first megabyte the
 * sender has shown that it means it, and the rest is had at once. */
static bool grow_body(sat_frame_reader *reader)
{
    uint8_t *body;
    size_t capacity = reader->total;
    if (reader->have < reader->capacity) return true;
    if (reader->have == 0 && capacity > FIRST_BODY) capacity = FIRST_BODY;
    body = malloc(capacity ? capacity : 1);
    sat_large_pages(body, capacity);
    if (body == NULL) return false;
    if (reader->have > 0) memcpy(body, reader->body, reader->have);
    free(reader->body);
    reader->body = body;
    reader->capacity = capacity;
    return true;
}

size_t sat_frames_room(sat_frame_reader *reader, uint8_t **dst)
{
    if (reader->state == READ_HEAD) {
        *dst = reader->head + reader->have;
        return sizeof reader->head - reader->have;
    }
    if (reader->state == READ_LENGTHS) {
        size_t left = (size_t)reader->count * 8 - reader->lengths.len;
        if (left > LENGTHS_STEP) left = LENGTHS_STEP;
        if (!sat_buf_reserve(&reader->lengths, left)) return 0;
        *dst = reader->lengths.data + reader->lengths.len;
        return left;
    }
    if (!grow_body(reader)) return 0;
    *dst = reader->body + reader->have;
    return reader->capacity - reader->have;
}

static sat_status check_head(sat_frame_reader *reader, sat_error *err)
{
    reader->count = sat_get_le64(reader->head + 8);
    if (reader->count == 0) return sat_fail(err, SAT_PROTOCOL, "a message without frames: the peer does not speak Dask");
    if (reader->count > reader->limits.message / 8 || reader->count > SIZE_MAX / sizeof(sat_slice))
        return sat_fail(err, SAT_LIMIT, "a message announces %llu frames, more than limits.message (%llu bytes) allows",
                        (unsigned long long)reader->count, (unsigned long long)reader->limits.message);
    reader->state = READ_LENGTHS;
    return SAT_AGAIN;
}

static sat_status finish_message(sat_frame_reader *reader, sat_error *err)
{
    sat_message *message = calloc(1, sizeof *message);
    if (message == NULL) return sat_fail_nomem(err);
    message->refs = 1;
    message->count = (size_t)reader->count;
    message->frames = malloc(message->count * sizeof *message->frames);
    if (reader->body == NULL) reader->body = malloc(1);
    if (message->frames && reader->body)
        message->block = sat_block_adopt(reader->body, reader->total, NULL, NULL);
    if (message->block == NULL) {
        sat_message_release(message);
        return sat_fail_nomem(err);
    }
    uint8_t *data = reader->body;
    for (size_t i = 0; i < message->count; i++) {
        size_t len = (size_t)sat_get_le64(reader->lengths.data + 8 * i);
        message->frames[i] = (sat_slice){message->block, data, len};
        data += len;
    }
    reader->body = NULL;
    reader->capacity = reader->have = 0;
    sat_buf_clear(&reader->lengths);
    if (reader->lengths.cap > LENGTHS_STEP) sat_buf_free(&reader->lengths);
    reader->state = READ_HEAD;
    reader->ready = message;
    return SAT_OK;
}

static sat_status check_lengths(sat_frame_reader *reader, sat_error *err)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < reader->count; i++) {
        uint64_t len = sat_get_le64(reader->lengths.data + 8 * i);
        if (len > reader->limits.frame)
            return sat_fail(err, SAT_LIMIT, "a frame of %llu bytes is larger than limits.frame (%llu)",
                            (unsigned long long)len, (unsigned long long)reader->limits.frame);
        if (len > reader->limits.message - total)
            return sat_fail(err, SAT_LIMIT, "a message is larger than limits.message (%llu bytes)",
                            (unsigned long long)reader->limits.message);
        total += len;
    }
    if (total > SIZE_MAX / 2) return sat_fail(err, SAT_LIMIT, "a message is larger than the address space");
    reader->total = (size_t)total;
    reader->state = READ_BODY;
    return total == 0 ? finish_message(reader, err) : SAT_AGAIN;
}

sat_status sat_frames_fill(sat_frame_reader *reader, size_t n, sat_error *err)
{
    if (reader->state == READ_LENGTHS) {
        reader->lengths.len += n;
        if (reader->lengths.len < reader->count * 8) return SAT_AGAIN;
        reader->have = 0;
        return check_lengths(reader, err);
    }
    reader->have += n;
    if (reader->state == READ_HEAD) {
        if (reader->have < sizeof reader->head) return SAT_AGAIN;
        reader->have = 0;
        return check_head(reader, err);
    }
    return reader->have < reader->total ? SAT_AGAIN : finish_message(reader, err);
}

sat_status sat_frames_feed(sat_frame_reader *reader, const uint8_t *data, size_t len, size_t *used, sat_error *err)
{
    *used = 0;
    while (*used < len) {
        uint8_t *dst;
        size_t room = sat_frames_room(reader, &dst);
        if (room == 0) return sat_fail_nomem(err);
        if (room > len - *used) room = len - *used;
        memcpy(dst, data + *used, room);
        *used += room;
        sat_status status = sat_frames_fill(reader, room, err);
        if (status != SAT_AGAIN) return status;
    }
    return SAT_AGAIN;
}

sat_message *sat_frames_take(sat_frame_reader *reader)
{
    sat_message *message = reader->ready;
    reader->ready = NULL;
    return message;
}

void sat_outgoing_init(sat_outgoing *out)
{
    memset(out, 0, sizeof *out);
}

void sat_outgoing_free(sat_outgoing *out)
{
    for (size_t i = 0; i < out->count; i++) sat_block_release(out->frames[i].block);
    free(out->frames);
    sat_buf_free(&out->head);
    sat_outgoing_init(out);
}

size_t sat_outgoing_frame(sat_outgoing *out, sat_slice frame)
{
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 8;
        sat_slice *frames = realloc(out->frames, capacity * sizeof *frames);
        if (frames == NULL) return 0;
        out->frames = frames;
        out->capacity = capacity;
    }
    sat_block_retain(frame.block);
    out->frames[out->count++] = frame;
    return out->count;
}

size_t sat_outgoing_copy(sat_outgoing *out, const void *data, size_t len)
{
    sat_block *block = sat_block_new(len);
    if (block == NULL) return 0;
    if (len > 0) memcpy(block->data, data, len);
    size_t index = sat_outgoing_frame(out, (sat_slice){block, block->data, len});
    sat_block_release(block);
    return index;
}

void sat_outgoing_prelude(const sat_outgoing *out, sat_buf *prelude)
{
    uint64_t total = 8 * (2 + (uint64_t)out->count) + out->head.len;
    for (size_t i = 0; i < out->count; i++) total += out->frames[i].len;
    sat_buf_le64(prelude, total);
    sat_buf_le64(prelude, out->count + 1);
    sat_buf_le64(prelude, out->head.len);
    for (size_t i = 0; i < out->count; i++) sat_buf_le64(prelude, out->frames[i].len);
}
