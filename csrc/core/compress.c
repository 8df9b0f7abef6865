#include "compress.h"

#include <dlfcn.h>
#include <lz4.h>
#include <string.h>
#include <zstd.h>
#if defined(HAVE_ZLIB)
#include <zlib.h>
#endif

/* lz4 and snappy cannot expand by more than this; a larger announced size is a lie that costs memory */
enum { MAX_RATIO = 255 };

static sat_status broken(const char *name, sat_error *err)
{
    return sat_fail(err, SAT_PROTOCOL, "a %s frame is damaged", name);
}

static sat_status make_room(const char *name, uint64_t size, const sat_limits *limits, sat_block **out, sat_error *err)
{
    if (size > limits->frame)
        return sat_fail(err, SAT_LIMIT, "a %s frame unpacks to %llu bytes, more than limits.frame (%llu)", name,
                        (unsigned long long)size, (unsigned long long)limits->frame);
    *out = sat_block_new((size_t)size);
    return *out ? SAT_OK : sat_fail_nomem(err);
}

static sat_status finish(const char *name, bool good, sat_block **out, sat_error *err)
{
    if (good) return SAT_OK;
    sat_block_release(*out);
    *out = NULL;
    return broken(name, err);
}

/* A block of lz4 behind its size as u32, as python-lz4's block format has it. */
static sat_status unpack_lz4(sat_slice frame, const sat_limits *limits, sat_block **out, sat_error *err)
{
    if (frame.len < 4 || frame.len > INT32_MAX) return broken("lz4", err);
    uint64_t size = sat_get_le32(frame.data);
    if (size > INT32_MAX || size / MAX_RATIO > frame.len) return broken("lz4", err);
    sat_status status = make_room("lz4", size, limits, out, err);
    if (status != SAT_OK) return status;
    int n = LZ4_decompress_safe((const char *)frame.data + 4, (char *)(*out)->data, (int)(frame.len - 4), (int)size);
    return finish("lz4", n >= 0 && (uint64_t)n == size, out, err);
}

static sat_status unpack_zstd(sat_slice frame, const sat_limits *limits, sat_block **out, sat_error *err)
{
    unsigned long long size = ZSTD_getFrameContentSize(frame.data, frame.len);
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN) return broken("zstd", err);
    sat_status status = make_room("zstd", size, limits, out, err);
    if (status != SAT_OK) return status;
    size_t n = ZSTD_decompress((*out)->data, (*out)->len, frame.data, frame.len);
    return finish("zstd", !ZSTD_isError(n) && n == size, out, err);
}

/* Snappy is rare on Dask's wire and its library brings the C++ runtime (a megabyte): it is loaded when a frame asks. */
typedef int (*snappy_length_fn)(const char *, size_t, size_t *);
typedef int (*snappy_unpack_fn)(const char *, size_t, char *, size_t *);

static void *open_snappy(void)
{
    static const char *const names[] = {"libsnappy.so.1", "libsnappy.1.dylib", "libsnappy.dylib", "libsnappy.so"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && library == NULL; i++)
        library = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL);
    return library;
}

static sat_status unpack_snappy_with(snappy_length_fn length, snappy_unpack_fn unpack, sat_slice frame,
                                     const sat_limits *limits, sat_block **out, sat_error *err)
{
    size_t size;
    const char *data = (const char *)frame.data;
    if (length(data, frame.len, &size) != 0 || size / MAX_RATIO > frame.len) return broken("snappy", err);
    sat_status status = make_room("snappy", size, limits, out, err);
    if (status != SAT_OK) return status;
    size_t n = size;
    bool good = unpack(data, frame.len, (char *)(*out)->data, &n) == 0;
    return finish("snappy", good && n == size, out, err);
}

static sat_status unpack_snappy(sat_slice frame, const sat_limits *limits, sat_block **out, sat_error *err)
{
    snappy_length_fn length;
    snappy_unpack_fn unpack;
    void *library = open_snappy();
    if (library == NULL)
        return sat_fail(err, SAT_VALUE, "the cluster compresses with snappy, whose library is not installed here: install "
                                        "libsnappy1v5 (Debian) or snappy");
    /* POSIX's way to turn an object pointer into a function pointer */
    *(void **)&length = dlsym(library, "snappy_uncompressed_length");
    *(void **)&unpack = dlsym(library, "snappy_uncompress");
    sat_status status = length && unpack ? unpack_snappy_with(length, unpack, frame, limits, out, err) : broken("snappy", err);
    dlclose(library);
    return status;
}

#if defined(HAVE_ZLIB)
/* zlib does not announce its size: the output grows with what really comes out. */
static sat_status unpack_zlib(sat_slice frame, const sat_limits *limits, sat_block **out, sat_error *err)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)frame.data, .avail_in = (uInt)frame.len};
    sat_buf buf = SAT_BUF_INIT;
    int code = Z_OK;
    if (frame.len > UINT32_MAX || inflateInit(&stream) != Z_OK) return broken("zlib", err);
    while (code == Z_OK && buf.len <= limits->frame && sat_buf_reserve(&buf, frame.len < 65536 ? 65536 : frame.len)) {
        size_t room = buf.cap - buf.len;
        uInt step = room > UINT32_MAX ? UINT32_MAX : (uInt)room;
        stream.next_out = buf.data + buf.len;
        stream.avail_out = step;
        code = inflate(&stream, Z_NO_FLUSH);
        buf.len += step - stream.avail_out;
        if (code == Z_OK && stream.avail_in == 0 && stream.avail_out > 0) break; /* cut off */
    }
    inflateEnd(&stream);
    sat_status status = SAT_OK;
    if (buf.failed)
        status = sat_fail_nomem(err);
    else if (buf.len > limits->frame)
        status = sat_fail(err, SAT_LIMIT, "a zlib frame unpacks to more than limits.frame (%llu bytes)",
                          (unsigned long long)limits->frame);
    else if (code != Z_STREAM_END)
        status = broken("zlib", err);
    *out = status == SAT_OK ? sat_block_adopt(buf.data, buf.len, NULL, NULL) : NULL;
    if (*out) return SAT_OK;
    sat_buf_free(&buf);
    return status == SAT_OK ? sat_fail_nomem(err) : status;
}
#endif

static bool is(const char *name, size_t len, const char *known)
{
    return strlen(known) == len && memcmp(name, known, len) == 0;
}

sat_status sat_decompress(const char *name, size_t name_len, sat_slice frame, const sat_limits *limits, sat_block **out,
                          sat_error *err)
{
    *out = NULL;
    if (is(name, name_len, "lz4")) return unpack_lz4(frame, limits, out, err);
    if (is(name, name_len, "zstd")) return unpack_zstd(frame, limits, out, err);
    if (is(name, name_len, "snappy")) return unpack_snappy(frame, limits, out, err);
#if defined(HAVE_ZLIB)
    if (is(name, name_len, "zlib")) return unpack_zlib(frame, limits, out, err);
#endif
    return sat_fail(err, SAT_PROTOCOL, "frames compressed with '%.*s' cannot be read: set distributed.comm.compression on "
                                       "the cluster to null, lz4 or zstd", (int)(name_len < 40 ? name_len : 40), name);
}
