#include "bytes.h"
#include "check.h"
#include "frame.h"

/* As Dask sends and takes them. */
static const char identity[] = "2400000000000000 0100000000000000 1400000000000000"
                               "82a26f70a86964656e74697479a57265706c79c3";
static const char gather_reply[] =
    "b300000000000000 0300000000000000 2b00000000000000 6300000000000000 0500000000000000"
    "82a6737461747573a24f4ba46461746181a8612d35666134353481ae5f5f53657269616c697a65645f5f01"
    "86aa73657269616c697a6572a67069636b6c65a9777269746561626c6590b473706c69742d6e756d2d7375622d6672616d65739101"
    "ad73706c69742d6f6666736574739100ab636f6d7072657373696f6e91c0ae6e756d2d7375622d6672616d6573018004 4b032e";

static const sat_limits defaults = SAT_LIMITS_DEFAULT;

/* Feeds all bytes in pieces of `step`; the last status. *used: how many were taken. */
static sat_status feed(sat_frame_reader *reader, const uint8_t *data, size_t len, size_t step, size_t *used, sat_error *err)
{
    sat_status status = SAT_AGAIN;
    *used = 0;
    while (*used < len && status == SAT_AGAIN) {
        size_t took = 0, piece = len - *used < step ? len - *used : step;
        status = sat_frames_feed(reader, data + *used, piece, &took, err);
        *used += took;
    }
    return status;
}

static void test_pieces_of_any_size(void)
{
    sat_buf bytes = SAT_BUF_INIT;
    bytes_hex(&bytes, gather_reply);
    size_t first = bytes.len;
    bytes_hex(&bytes, identity);
    for (size_t step = 1; step <= bytes.len; step++) {
        sat_frame_reader reader;
        size_t used;
        sat_frames_init(&reader, &defaults);
        CHECK_INT(feed(&reader, bytes.data, bytes.len, step, &used, NULL), SAT_OK);
        CHECK_UINT(used, first);
        sat_message *message = sat_frames_take(&reader);
        REQUIRE(message != NULL);
        CHECK(sat_frames_take(&reader) == NULL);
        CHECK_UINT(message->count, 3);
        CHECK_UINT(message->frames[0].len, 0x2b);
        CHECK_UINT(message->frames[1].len, 0x63);
        CHECK_MEM(message->frames[2].data, message->frames[2].len, "\x80\x04K\x03.", 5);
        CHECK(message->frames[2].block == message->block);
        CHECK_INT(feed(&reader, bytes.data + first, bytes.len - first, step, &used, NULL), SAT_OK);
        sat_message *next = sat_frames_take(&reader);
        REQUIRE(next != NULL);
        CHECK_UINT(next->count, 1);
        sat_message_release(sat_message_retain(message));
        sat_message_release(message);
        sat_message_release(next);
        sat_frames_free(&reader);
    }
    sat_buf_free(&bytes);
}

static void test_empty_frames(void)
{
    sat_frame_reader reader;
    sat_buf bytes = SAT_BUF_INIT;
    size_t used;
    bytes_hex(&bytes, "0000000000000000 0300000000000000 0000000000000000 0000000000000000 0000000000000000");
    bytes_hex(&bytes, "0000000000000000 0300000000000000 0000000000000000 0100000000000000 0000000000000000 aa");
    sat_frames_init(&reader, &defaults);
    CHECK_INT(feed(&reader, bytes.data, bytes.len, bytes.len, &used, NULL), SAT_OK);
    CHECK_UINT(used, 40);
    sat_message *message = sat_frames_take(&reader);
    REQUIRE(message != NULL);
    CHECK_UINT(message->count, 3);
    for (size_t i = 0; i < 3; i++) CHECK_UINT(message->frames[i].len, 0);
    sat_message_release(message);
    CHECK_INT(feed(&reader, bytes.data + used, bytes.len - used, 1, &used, NULL), SAT_OK);
    message = sat_frames_take(&reader);
    REQUIRE(message != NULL);
    CHECK_MEM(message->frames[1].data, message->frames[1].len, "\xaa", 1);
    sat_message_release(message);
    sat_frames_free(&reader);
    sat_buf_free(&bytes);
}

static void refused(const char *hex, const sat_limits *limits, sat_status status, const char *text)
{
    sat_frame_reader reader;
    sat_buf bytes = SAT_BUF_INIT;
    sat_error err = {SAT_OK, ""};
    size_t used;
    bytes_hex(&bytes, hex);
    sat_frames_init(&reader, limits);
    CHECK_INT(feed(&reader, bytes.data, bytes.len, 3, &used, &err), status);
    CHECK_INT(err.status, status);
    if (strstr(err.text, text) == NULL) CHECK_STR(err.text, text);
    CHECK(reader.capacity <= 1 << 20);
    sat_frames_free(&reader);
    sat_buf_free(&bytes);
}

static void test_limits(void)
{
    sat_limits small = SAT_LIMITS_DEFAULT;
    small.message = 100;
    small.frame = 50;
    refused("0000000000000000 0000000000000000", &defaults, SAT_PROTOCOL, "without frames");
    refused("0000000000000000 0000000000000010", &defaults, SAT_LIMIT, "limits.message"); /* 2 to the 60 frames */
    refused("0000000000000000 ffffffffffffffff", &defaults, SAT_LIMIT, "limits.message");
    refused("0000000000000000 0100000000000000 ffffffffffffffff", &defaults, SAT_LIMIT, "limits.frame");
    refused("0000000000000000 0200000000000000 0000000000000080 0000000000000080", &defaults, SAT_LIMIT, "limits.frame");
    refused("0000000000000000 0d00000000000000", &small, SAT_LIMIT, "limits.message (100 bytes)");
    refused("0000000000000000 0100000000000000 3300000000000000", &small, SAT_LIMIT, "limits.frame (50)");
    refused("0000000000000000 0300000000000000 3200000000000000 3200000000000000 0100000000000000", &small, SAT_LIMIT,
            "limits.message");
}

static void test_memory_follows_the_bytes(void)
{
    sat_frame_reader reader;
    sat_buf head = SAT_BUF_INIT;
    uint8_t *room;
    size_t used;
    bytes_hex(&head, "0000000000000000 0100000000000000 0000000001000000"); /* one frame of 4 GiB: nothing for that alone */
    sat_frames_init(&reader, &defaults);
    CHECK_INT(feed(&reader, head.data, head.len, 8, &used, NULL), SAT_AGAIN);
    size_t n = sat_frames_room(&reader, &room);
    CHECK(n > 0 && n <= 1 << 20);
    sat_frames_free(&reader);
    sat_buf_clear(&head);
    bytes_hex(&head, "0000000000000000 0100000000000000 0000300000000000"); /* 3 MiB: what came is kept when it grows */
    sat_frames_init(&reader, &defaults);
    CHECK_INT(feed(&reader, head.data, head.len, 8, &used, NULL), SAT_AGAIN);
    n = sat_frames_room(&reader, &room);
    REQUIRE(n > 0 && n <= 1 << 20);
    memset(room, 'a', n);
    CHECK_INT(sat_frames_fill(&reader, n, NULL), SAT_AGAIN);
    for (size_t have = n; have < 3 << 20; have += n) {
        n = sat_frames_room(&reader, &room);
        REQUIRE(n > 0 && n <= (3 << 20) - have);
        memset(room, 'b', n);
        CHECK_INT(sat_frames_fill(&reader, n, NULL), have + n < 3 << 20 ? SAT_AGAIN : SAT_OK);
    }
    sat_message *message = sat_frames_take(&reader);
    REQUIRE(message != NULL);
    CHECK(message->frames[0].data[0] == 'a' && message->frames[0].data[(3 << 20) - 1] == 'b');
    sat_message_release(message);
    sat_frames_free(&reader);
    sat_buf_free(&head);
}

static void test_cut_off_is_no_leak(void)
{
    sat_buf bytes = SAT_BUF_INIT;
    bytes_hex(&bytes, gather_reply);
    for (size_t len = 0; len < bytes.len; len++) {
        sat_frame_reader reader;
        size_t used;
        uint8_t *part = bytes_exact(bytes.data, len);
        REQUIRE(part != NULL);
        sat_frames_init(&reader, &defaults);
        CHECK_INT(feed(&reader, part, len, 7, &used, NULL), SAT_AGAIN);
        CHECK(sat_frames_take(&reader) == NULL);
        sat_frames_free(&reader);
        free(part);
    }
    sat_buf_free(&bytes);
}

static void test_outgoing(void)
{
    sat_outgoing out;
    sat_buf bytes = SAT_BUF_INIT, want = SAT_BUF_INIT;
    sat_outgoing_init(&out);
    bytes_hex(&out.head, "82a26f70a86964656e74697479a57265706c79c3");
    bytes_hex(&want, identity);
    sat_outgoing_prelude(&out, &bytes);
    sat_buf_append(&bytes, out.head.data, out.head.len);
    CHECK_MEM(bytes.data, bytes.len, want.data, want.len);

    sat_block *block = sat_block_new(4);
    REQUIRE(block != NULL);
    memcpy(block->data, "abcd", 4);
    CHECK_UINT(sat_outgoing_frame(&out, (sat_slice){block, block->data + 1, 2}), 1);
    CHECK_UINT(block->refs, 2);
    CHECK_UINT(sat_outgoing_copy(&out, "", 0), 2);
    for (size_t i = 3; i < 40; i++) CHECK_UINT(sat_outgoing_copy(&out, "xyz", 3), i);
    sat_buf_clear(&bytes);
    sat_outgoing_prelude(&out, &bytes);
    CHECK_UINT(bytes.len, 8 * (2 + 40));
    CHECK_UINT(sat_get_le64(bytes.data + 8), 40);
    CHECK_UINT(sat_get_le64(bytes.data + 24), 2);
    CHECK_UINT(sat_get_le64(bytes.data), bytes.len - 8 + out.head.len + 2 + 37 * 3);
    sat_outgoing_free(&out);
    CHECK_UINT(out.count, 0);
    CHECK_UINT(block->refs, 1);
    sat_block_release(block);
    sat_buf_free(&bytes);
    sat_buf_free(&want);
}

int main(void)
{
    RUN(test_pieces_of_any_size);
    RUN(test_empty_frames);
    RUN(test_limits);
    RUN(test_memory_follows_the_bytes);
    RUN(test_cut_off_is_no_leak);
    RUN(test_outgoing);
    return check_done();
}
