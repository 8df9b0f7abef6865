#include "serialized.h"

#include <stdlib.h>
#include <string.h>

#include "compress.h"
#include "msgpack.h"

bool sat_slice_is(sat_slice slice, const char *text)
{
    size_t len = strlen(text);
    return slice.len == len && memcmp(slice.data, text, len) == 0;
}

static sat_slice text_of(const sat_mp_token *token)
{
    if (token->type != SAT_MP_STR) return (sat_slice){NULL, NULL, 0};
    return (sat_slice){NULL, token->as.bytes.data, token->as.bytes.len};
}

static void set_field(sat_header *header, const sat_mp_token *name, const sat_mp_token *token, sat_slice value)
{
    if (token->type == SAT_MP_NIL && !sat_mp_is(name, "key")) return;
    if (sat_mp_is(name, "serializer"))
        header->serializer = text_of(token);
    else if (sat_mp_is(name, "type"))
        header->type = text_of(token);
    else if (sat_mp_is(name, "type-serialized"))
        header->collection = text_of(token);
    else if (sat_mp_is(name, "sub-header"))
        header->sub_header = value;
    else if (sat_mp_is(name, "compression"))
        header->compression = value;
    else if (sat_mp_is(name, "split-num-sub-frames"))
        header->split_counts = value;
    else if (sat_mp_is(name, "split-offsets"))
        header->split_offsets = value;
    else if (sat_mp_is(name, "frame-lengths"))
        header->frame_lengths = value;
    else if (sat_mp_is(name, "sub-headers"))
        header->sub_headers = value;
    else if (sat_mp_is(name, "key"))
        header->key = value;
    else if (sat_mp_is(name, "num-sub-frames") && token->type == SAT_MP_INT && token->as.integer >= 0)
        header->frames = (size_t)token->as.integer;
    else if (sat_mp_is(name, "is-collection"))
        header->is_collection = token->type == SAT_MP_BOOL && token->as.boolean;
}

sat_status sat_header_read(struct sat_mp *scan, sat_header *header, sat_error *err)
{
    sat_mp_token token, name;
    memset(header, 0, sizeof *header);
    sat_status status = sat_mp_next(scan, &token, err);
    if (status != SAT_OK || token.type != SAT_MP_MAP)
        return sat_fail(err, SAT_PROTOCOL, "the header of a serialized value is not a map");
    for (size_t i = token.as.count; i > 0; i--) {
        sat_slice value;
        status = sat_mp_next(scan, &name, err);
        if (status == SAT_OK) status = sat_mp_value(scan, &value, err);
        if (status != SAT_OK)
            return sat_fail(err, SAT_PROTOCOL, "the header of a serialized value is cut off");
        sat_mp inner = sat_mp_over(value.data, value.len);
        if (sat_mp_next(&inner, &token, NULL) == SAT_OK) set_field(header, &name, &token, value);
    }
    return SAT_OK;
}

void sat_frame_list_free(sat_frame_list *list)
{
    for (size_t i = 0; i < list->count; i++) sat_block_release(list->items[i].block);
    free(list->items);
    *list = (sat_frame_list){NULL, 0};
}

static bool list_reserve(sat_frame_list *list, size_t count)
{
    list->items = count <= SIZE_MAX / sizeof *list->items ? malloc((count ? count : 1) * sizeof *list->items) : NULL;
    list->count = 0;
    return list->items != NULL;
}

static void list_add(sat_frame_list *list, sat_slice frame)
{
    sat_block_retain(frame.block);
    list->items[list->count++] = frame;
}

/* Opens a msgpack list; an absent one has no items. */
static size_t open_list(sat_slice value, sat_mp *scan)
{
    sat_mp_token token;
    *scan = sat_mp_over(value.data, value.len);
    if (value.len == 0 || sat_mp_next(scan, &token, NULL) != SAT_OK || token.type != SAT_MP_ARRAY) return 0;
    return token.as.count;
}

/* Unpacks one frame; all of one value together are bounded like a message, or many small frames would grow past it. */
static sat_status unpack(const sat_mp_token *name, sat_slice frame, const sat_limits *limits, uint64_t *total,
                         sat_block **block, sat_error *err)
{
    sat_limits left = *limits;
    bool by_message = limits->message - *total < limits->frame;
    if (by_message) left.frame = limits->message - *total;
    sat_status status = sat_decompress((const char *)name->as.bytes.data, name->as.bytes.len, frame, &left, block, err);
    if (status == SAT_LIMIT && by_message)
        return sat_fail(err, SAT_LIMIT, "the frames of a value unpack to more than limits.message (%llu bytes)",
                        (unsigned long long)limits->message);
    if (status == SAT_OK) *total += (*block)->len;
    return status;
}

static sat_status take_frames(const sat_header *header, const sat_message *message, size_t first,
                              const sat_limits *limits, sat_frame_list *list, sat_error *err)
{
    sat_mp scan;
    uint64_t total = 0;
    size_t compressions = open_list(header->compression, &scan);
    if (!list_reserve(list, header->frames)) return sat_fail_nomem(err);
    for (size_t i = 0; i < header->frames; i++) {
        sat_slice frame = message->frames[first + i];
        sat_mp_token token = {.type = SAT_MP_NIL};
        if (i < compressions) (void)sat_mp_next(&scan, &token, NULL);
        if (token.type == SAT_MP_STR) {
            sat_block *block;
            sat_status status = unpack(&token, frame, limits, &total, &block, err);
            if (status != SAT_OK) return status;
            list_add(list, (sat_slice){block, block->data, block->len});
            sat_block_release(block);
        } else {
            list_add(list, frame);
        }
    }
    return SAT_OK;
}

static bool adjacent(const sat_slice *parts, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (parts[i].block != parts[0].block || parts[i].data != parts[i - 1].data + parts[i - 1].len) return false;
    return true;
}

/* Joins the parts of one frame: as they lie where they follow each other in memory, else by a copy. */
static sat_status join(const sat_slice *parts, size_t count, const sat_limits *limits, sat_frame_list *list,
                       sat_error *err)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        if (!sat_add(total, parts[i].len, &total) || total > limits->frame)
            return sat_fail(err, SAT_LIMIT, "a frame is larger than limits.frame (%llu bytes)",
                            (unsigned long long)limits->frame);
    if (count > 0 && adjacent(parts, count)) {
        list_add(list, (sat_slice){parts[0].block, parts[0].data, total});
        return SAT_OK;
    }
    sat_block *block = sat_block_new(total);
    if (block == NULL) return sat_fail_nomem(err);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len > 0) memcpy(block->data + at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    list_add(list, (sat_slice){block, block->data, total});
    sat_block_release(block);
    return SAT_OK;
}

static bool next_size(sat_mp *scan, size_t *value)
{
    sat_mp_token token;
    if (sat_mp_next(scan, &token, NULL) != SAT_OK || token.type != SAT_MP_INT || token.as.integer < 0) return false;
    *value = (size_t)token.as.integer;
    return true;
}

static sat_status join_splits(const sat_header *header, sat_frame_list *parts, const sat_limits *limits,
                              sat_frame_list *list, sat_error *err)
{
    sat_mp counts, offsets;
    size_t n = open_list(header->split_counts, &counts);
    if (open_list(header->split_offsets, &offsets) != n)
        return sat_fail(err, SAT_PROTOCOL, "a serialized value has broken split offsets");
    if (!list_reserve(list, n)) return sat_fail_nomem(err);
    size_t end = 0;
    for (size_t i = 0; i < n; i++) {
        size_t count, offset;
        /* in order and without overlap, so that what is copied is bounded by what came */
        if (!next_size(&counts, &count) || !next_size(&offsets, &offset) || offset != end ||
            count > parts->count - offset)
            return sat_fail(err, SAT_PROTOCOL, "a serialized value has broken split offsets");
        end += count;
        sat_status status = join(parts->items + offset, count, limits, list, err);
        if (status != SAT_OK) return status;
    }
    return SAT_OK;
}

sat_status sat_header_frames(const sat_header *header, const sat_message *message, size_t index,
                             const sat_limits *limits, sat_frame_list *list, sat_error *err)
{
    *list = (sat_frame_list){NULL, 0};
    if (index >= message->count || header->frames > message->count - index - 1)
        return sat_fail(err, SAT_PROTOCOL, "a serialized value refers to frames that the message does not have");
    sat_status status = take_frames(header, message, index + 1, limits, list, err);
    if (status == SAT_OK && header->split_counts.len > 0) {
        sat_frame_list parts = *list;
        *list = (sat_frame_list){NULL, 0};
        status = join_splits(header, &parts, limits, list, err);
        sat_frame_list_free(&parts);
    }
    if (status != SAT_OK) sat_frame_list_free(list);
    return status;
}
