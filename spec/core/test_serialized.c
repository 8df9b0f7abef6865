#include <lz4.h>

#include "bytes.h"
#include "check.h"
#include "msgpack.h"
#include "serialized.h"

static const sat_limits defaults = SAT_LIMITS_DEFAULT;

/* A message of frames that each were allocated by themselves or lie one behind the other in one block. */
static sat_message *message_of(const sat_slice *parts, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += parts[i].len;
    sat_message *message = calloc(1, sizeof *message);
    if (message == NULL) exit(EXIT_FAILURE);
    message->refs = 1;
    message->count = count;
    message->frames = calloc(count ? count : 1, sizeof *message->frames);
    message->block = sat_block_new(total);
    if (message->frames == NULL || message->block == NULL) exit(EXIT_FAILURE);
    uint8_t *at = message->block->data;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len) memcpy(at, parts[i].data, parts[i].len);
        message->frames[i] = (sat_slice){message->block, at, parts[i].len};
        at += parts[i].len;
    }
    return message;
}

static sat_slice text(const char *bytes, size_t len)
{
    return (sat_slice){NULL, (const uint8_t *)bytes, len};
}

#define TEXT(literal) text(literal, sizeof literal - 1)

static sat_status read_header(const sat_message *message, size_t index, sat_header *header)
{
    sat_slice frame = message->frames[index];
    sat_mp scan = {frame.data, frame.data + frame.len};
    return sat_header_read(&scan, header, NULL);
}

static void test_golden_header(void)
{
    sat_buf bytes = SAT_BUF_INIT;
    sat_header header;
    bytes_hex(&bytes, "86aa73657269616c697a6572a67069636b6c65a9777269746561626c6590b473706c69742d6e756d2d7375622d6672616d"
                      "65739101ad73706c69742d6f6666736574739100ab636f6d7072657373696f6e91c0ae6e756d2d7375622d6672616d657301");
    sat_slice parts[] = {TEXT("\x80"), text((const char *)bytes.data, bytes.len), TEXT("\x80\x04K\x03.")};
    sat_message *message = message_of(parts, 3);
    REQUIRE(read_header(message, 1, &header) == SAT_OK);
    CHECK(sat_slice_is(header.serializer, "pickle"));
    CHECK(!sat_slice_is(header.serializer, "pickl"));
    CHECK_UINT(header.frames, 1);
    CHECK(!header.is_collection);
    CHECK_UINT(header.type.len, 0);
    sat_frame_list list;
    CHECK_INT(sat_header_frames(&header, message, 1, &defaults, &list, NULL), SAT_OK);
    CHECK_UINT(list.count, 1);
    CHECK(list.items[0].data == message->frames[2].data); /* not copied */
    sat_message_release(message);
    CHECK_MEM(list.items[0].data, list.items[0].len, "\x80\x04K\x03.", 5);
    sat_frame_list_free(&list);
    sat_buf_free(&bytes);
}

static void test_all_fields(void)
{
    static const char header_text[] =
        "\x8b\xaaserializer\xa4" "dask\xa4type\xad" "numpy.ndarray\xafnum-sub-frames?\xc0"
        "\xaenum-sub-frames\x02\xadis-collection\xc3\xaftype-serialized\xa4list\xaasub-header\x81\xa1x\x01"
        "\xabsub-headers\x92\x80\x80\xad" "frame-lengths\x92\x01\x01\xa3key\xc0\xa7unknown\x93\x01\x02\x03";
    sat_header header;
    sat_mp scan = {(const uint8_t *)header_text, (const uint8_t *)header_text + sizeof header_text - 1};
    REQUIRE(sat_header_read(&scan, &header, NULL) == SAT_OK);
    CHECK(scan.pos == scan.end);
    CHECK(sat_slice_is(header.type, "numpy.ndarray"));
    CHECK(sat_slice_is(header.collection, "list"));
    CHECK(header.is_collection);
    CHECK_UINT(header.frames, 2);
    CHECK_MEM(header.sub_header.data, header.sub_header.len, "\x81\xa1x\x01", 4);
    CHECK_MEM(header.sub_headers.data, header.sub_headers.len, "\x92\x80\x80", 3);
    CHECK_MEM(header.frame_lengths.data, header.frame_lengths.len, "\x92\x01\x01", 3);
    CHECK_MEM(header.key.data, header.key.len, "\xc0", 1); /* None is a key like another */
    for (size_t len = 0; len + 1 < sizeof header_text; len++) {
        uint8_t *part = bytes_exact((const uint8_t *)header_text, len);
        REQUIRE(part != NULL);
        scan = (sat_mp){part, part + len};
        CHECK_INT(sat_header_read(&scan, &header, NULL), SAT_PROTOCOL);
        free(part);
    }
}

/* The frames of a value with this header in front of the given frames; CHECKs the status. */
static sat_frame_list frames_of(sat_slice header_text, const sat_slice *frames, size_t count, const sat_limits *limits,
                                sat_status want)
{
    sat_slice parts[16] = {TEXT("\xc0"), header_text};
    sat_frame_list list = {NULL, 0};
    sat_header header;
    for (size_t i = 0; i < count; i++) parts[2 + i] = frames[i];
    sat_message *message = message_of(parts, 2 + count);
    if (CHECK(read_header(message, 1, &header) == SAT_OK))
        CHECK_INT(sat_header_frames(&header, message, 1, limits, &list, NULL), want);
    if (want != SAT_OK) CHECK(list.items == NULL && list.count == 0);
    sat_message_release(message);
    return list;
}

static void test_splits(void)
{
    const sat_slice frames[] = {TEXT("ab"), TEXT("cd"), TEXT(""), TEXT("e")};
    sat_frame_list list = frames_of(TEXT("\x83\xaenum-sub-frames\x04\xb4split-num-sub-frames\x92\x03\x01"
                                         "\xadsplit-offsets\x92\x00\x03"), frames, 4, &defaults, SAT_OK);
    REQUIRE(list.count == 2);
    CHECK_MEM(list.items[0].data, list.items[0].len, "abcd", 4);
    CHECK_MEM(list.items[1].data, list.items[1].len, "e", 1);
    sat_frame_list_free(&list);
    /* a frame of no parts */
    list = frames_of(TEXT("\x83\xaenum-sub-frames\x01\xb4split-num-sub-frames\x92\x00\x01\xadsplit-offsets\x92\x00\x00"),
                     frames, 1, &defaults, SAT_OK);
    REQUIRE(list.count == 2);
    CHECK_UINT(list.items[0].len, 0);
    sat_frame_list_free(&list);
    /* behind the end, overlapping, back and forth, of different counts, of other types, negative, huge */
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
#define BAD(tail) {"\x83\xaenum-sub-frames\x04\xb4split-num-sub-frames" tail, sizeof "\x83\xaenum-sub-frames\x04\xb4split-num-sub-frames" tail - 1}
        BAD("\x91\x05\xadsplit-offsets\x91\x00"), BAD("\x92\x03\x02\xadsplit-offsets\x92\x00\x02"),
        BAD("\x92\x01\x01\xadsplit-offsets\x92\x01\x00"), BAD("\x92\x03\x01\xadsplit-offsets\x91\x00"),
        BAD("\x91\xc0\xadsplit-offsets\x91\x00"), BAD("\x91\xff\xadsplit-offsets\x91\x00"),
        BAD("\x91\x01\xadsplit-offsets\x91\xff"),
        BAD("\x91\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xadsplit-offsets\x91\x00"),
        BAD("\x91\x01\xadsplit-offsets\x91\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"),
        BAD("\x91\x01\xadsplit-offsets\x91\x04"), BAD("\xc3\xadsplit-offsets\x91\x00"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        (void)frames_of(text(bad[i].text, bad[i].len), frames, 4, &defaults, SAT_PROTOCOL);
    sat_limits small = defaults;
    small.frame = 3;
    (void)frames_of(TEXT("\x83\xaenum-sub-frames\x04\xb4split-num-sub-frames\x92\x03\x01\xadsplit-offsets\x92\x00\x03"),
                    frames, 4, &small, SAT_LIMIT);
}

static void test_compression(void)
{
    char data[20000], packed[20000];
    memset(data, 'a', sizeof data);
    memcpy(packed, "\x20\x4e\0\0", 4);
    int n = LZ4_compress_default(data, packed + 4, sizeof data, sizeof packed - 4);
    REQUIRE(n > 0);
    const sat_slice frames[] = {TEXT("plain"), text(packed, 4 + (size_t)n), TEXT("more")};
    sat_frame_list list = frames_of(TEXT("\x82\xaenum-sub-frames\x03\xab" "compression\x92\xc0\xa3lz4"), frames, 3,
                                    &defaults, SAT_OK);
    REQUIRE(list.count == 3);
    CHECK_MEM(list.items[0].data, list.items[0].len, "plain", 5);
    CHECK_MEM(list.items[1].data, list.items[1].len, data, sizeof data);
    CHECK_MEM(list.items[2].data, list.items[2].len, "more", 4); /* the list is shorter than the frames */
    sat_frame_list_free(&list);
    /* parts are unpacked before they are joined */
    list = frames_of(TEXT("\x84\xaenum-sub-frames\x02\xab" "compression\x92\xc0\xa3lz4\xb4split-num-sub-frames\x91\x02"
                          "\xadsplit-offsets\x91\x00"), frames, 2, &defaults, SAT_OK);
    REQUIRE(list.count == 1);
    CHECK_UINT(list.items[0].len, 5 + sizeof data);
    sat_frame_list_free(&list);
    (void)frames_of(TEXT("\x82\xaenum-sub-frames\x01\xab" "compression\x91\xa3lz4"), frames, 1, &defaults, SAT_PROTOCOL);
    (void)frames_of(TEXT("\x82\xaenum-sub-frames\x01\xab" "compression\x91\xa5" "blosc"), frames, 1, &defaults, SAT_PROTOCOL);
    /* each frame is within limits.frame, all together are more than limits.message */
    const sat_slice twice[] = {frames[1], frames[1]};
    sat_limits small = defaults;
    small.message = 2 * sizeof data - 1;
    (void)frames_of(TEXT("\x82\xaenum-sub-frames\x02\xab" "compression\x92\xa3lz4\xa3lz4"), twice, 2, &small, SAT_LIMIT);
    small.message++;
    list = frames_of(TEXT("\x82\xaenum-sub-frames\x02\xab" "compression\x92\xa3lz4\xa3lz4"), twice, 2, &small, SAT_OK);
    CHECK_UINT(list.count, 2);
    sat_frame_list_free(&list);
}

static void test_counts(void)
{
    const sat_slice frames[] = {TEXT("x")};
    sat_header header;
    (void)frames_of(TEXT("\x81\xaenum-sub-frames\x02"), frames, 1, &defaults, SAT_PROTOCOL);
    (void)frames_of(TEXT("\x81\xaenum-sub-frames\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), frames, 1, &defaults, SAT_PROTOCOL);
    sat_frame_list list = frames_of(TEXT("\x81\xaenum-sub-frames\xff"), frames, 1, &defaults, SAT_OK); /* not a count: 0 */
    CHECK_UINT(list.count, 0);
    sat_frame_list_free(&list);
    sat_message *message = message_of(frames, 1);
    memset(&header, 0, sizeof header);
    CHECK_INT(sat_header_frames(&header, message, 1, &defaults, &list, NULL), SAT_PROTOCOL);
    CHECK_INT(sat_header_frames(&header, message, SIZE_MAX, &defaults, &list, NULL), SAT_PROTOCOL);
    CHECK_INT(read_header(message, 0, &header), SAT_PROTOCOL);
    sat_message_release(message);
}

int main(void)
{
    RUN(test_golden_header);
    RUN(test_all_fields);
    RUN(test_splits);
    RUN(test_compression);
    RUN(test_counts);
    return check_done();
}
