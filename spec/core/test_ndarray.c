#include "ndarray.h"

#include "check.h"
#include "npy.h"

/* A type, or NULL when it is refused. */
static sat_dtype *dtype(const char *text)
{
    sat_dtype *type = NULL;
    sat_error err;
    sat_status status = sat_dtype_parse(text, strlen(text), &type, &err);
    CHECK((status == SAT_OK) == (type != NULL));
    return type;
}

/* Lays an array over `len` bytes that are never touched. */
static sat_status layout(const char *text, size_t len, size_t offset, int ndim, const int64_t *shape,
                         const int64_t *strides, sat_ndarray *out)
{
    static uint8_t byte;
    sat_error err = {SAT_OK, ""};
    *out = (sat_ndarray){.type = dtype(text), .base = &byte, .base_len = len, .offset = offset};
    sat_status status = sat_nd_layout(out, ndim, shape, strides, &err);
    CHECK(status == SAT_OK || err.text[0] != '\0');
    sat_dtype_release(out->type);
    out->type = NULL;
    return status;
}

#define DIMS(...) ((const int64_t[]){__VA_ARGS__})

static void test_layouts_that_fit(void)
{
    sat_ndarray nd;
    CHECK_INT(layout("<f8", 48, 0, 2, DIMS(2, 3), NULL, &nd), SAT_OK);
    CHECK_INT(nd.size, 6);
    CHECK_INT(nd.strides[0], 24);
    CHECK_INT(layout("<f8", 48, 0, 2, DIMS(2, 3), DIMS(8, 16), &nd), SAT_OK);
    CHECK_INT(layout("<f8", 48, 40, 2, DIMS(2, 3), DIMS(-24, -8), &nd), SAT_OK);
    CHECK_INT(layout("<f8", 8, 0, 2, DIMS(1000000, 1000000), DIMS(0, 0), &nd), SAT_OK);
    CHECK_INT(layout("<f8", 8, 0, 0, NULL, NULL, &nd), SAT_OK);
    CHECK_INT(nd.size, 1);
    CHECK_INT(layout("<f8", 0, 0, 1, DIMS(0), NULL, &nd), SAT_OK);
    CHECK_INT(nd.size, 0);
    /* strides that no element needs are not looked at, nor kept */
    CHECK_INT(layout("<f8", 8, 0, 2, DIMS(1, 1), DIMS(INT64_MIN, INT64_MAX), &nd), SAT_OK);
    CHECK_INT(nd.strides[0], 8);
    CHECK_INT(layout("<f8", 0, 0, 2, DIMS(0, 5), DIMS(INT64_MIN, INT64_MAX), &nd), SAT_OK);
    CHECK_INT(nd.strides[1], 8);
    CHECK_INT(layout("|S0", 0, 0, 1, DIMS(1000), NULL, &nd), SAT_OK);
}

static void test_layouts_that_do_not(void)
{
    sat_ndarray nd;
    int64_t ones[40];
    for (int i = 0; i < 40; i++) ones[i] = 1;
    CHECK_INT(layout("<f8", 47, 0, 2, DIMS(2, 3), NULL, &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 1, 2, DIMS(2, 3), NULL, &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 49, 1, DIMS(0), NULL, &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 0, 2, DIMS(2, 3), DIMS(24, 16), &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 0, 2, DIMS(2, 3), DIMS(-24, 8), &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 39, 2, DIMS(2, 3), DIMS(-24, -8), &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 0, 1, DIMS(-1), NULL, &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 0, 1, DIMS(INT64_MIN), NULL, &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 0, 2, DIMS(2, 2), DIMS(INT64_MAX, INT64_MAX), &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 48, 2, DIMS(2, 2), DIMS(INT64_MIN, INT64_MIN), &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 0, 2, DIMS(3, 3), DIMS(INT64_MIN / 2, INT64_MIN / 2), &nd), SAT_PROTOCOL);
    CHECK_INT(layout("<f8", 48, 0, 1, DIMS(INT64_MAX), DIMS(0), &nd), SAT_LIMIT);
    CHECK_INT(layout("<f8", 48, 0, 2, DIMS(INT64_C(1) << 32, INT64_C(1) << 32), NULL, &nd), SAT_LIMIT);
    CHECK_INT(layout("|S0", 0, 0, 2, DIMS(INT64_C(1) << 40, INT64_C(1) << 40), NULL, &nd), SAT_LIMIT);
    CHECK_INT(layout("<f8", 48, 0, 3, DIMS(0, INT64_MAX, INT64_MAX), NULL, &nd), SAT_LIMIT);
    CHECK_INT(layout("<f8", 48, 0, 40, ones, NULL, &nd), SAT_LIMIT);
    CHECK_INT(layout("<f8", 48, 0, -1, ones, NULL, &nd), SAT_LIMIT);
    CHECK_INT(layout("|u1", SIZE_MAX, 0, 1, DIMS(5), NULL, &nd), SAT_PROTOCOL);
}

/* Every layout that passes keeps its elements in bounds: compared with the addresses themselves. */
static void test_random_layouts(void)
{
    uint32_t seed = 12345;
    int accepted = 0;
    sat_dtype *type = dtype("<i4");
    for (int round = 0; round < 20000; round++) {
        int64_t shape[3], strides[3];
        int ndim = (int)((seed = seed * 1664525u + 1013904223u) >> 16) % 4;
        for (int i = 0; i < ndim; i++) {
            shape[i] = (int64_t)((seed = seed * 1664525u + 1013904223u) >> 16) % 4;
            strides[i] = (int64_t)((seed = seed * 1664525u + 1013904223u) >> 16) % 25 - 12;
        }
        size_t len = ((seed = seed * 1664525u + 1013904223u) >> 16) % 50;
        size_t offset = ((seed = seed * 1664525u + 1013904223u) >> 16) % 20;
        int64_t low = (int64_t)offset, high = (int64_t)offset;
        bool empty = false;
        for (int i = 0; i < ndim; i++) {
            if (shape[i] == 0) empty = true;
            int64_t reach = (shape[i] - 1) * strides[i];
            *(reach < 0 ? &low : &high) += reach;
        }
        bool fits = offset <= len && (empty || (low >= 0 && high + 4 <= (int64_t)len));
        uint8_t *bytes = calloc(len + 1, 1);
        REQUIRE(bytes != NULL);
        sat_ndarray nd = {.type = type, .base = bytes, .base_len = len, .offset = offset};
        sat_status status = sat_nd_layout(&nd, ndim, shape, strides, NULL);
        CHECK((status == SAT_OK) == fits);
        if (status == SAT_OK) {
            sat_cell sum;
            int64_t n, seen = 0;
            size_t at;
            sat_nd_walk walk;
            accepted++;
            for (int order = 0; order < 2; order++) {
                sat_nd_walk_begin(&walk, &nd, order);
                while ((n = sat_nd_walk_next(&walk, 2, &at)) > 0) {
                    for (int64_t i = 0; i < n; i++, at += (size_t)walk.stride) CHECK(at <= len - 4);
                    seen += n;
                }
            }
            CHECK_INT(seen, 2 * nd.size);
            CHECK_INT(sat_nd_sum(&nd, &sum, NULL), SAT_OK);
        }
        free(bytes);
    }
    sat_dtype_release(type);
    CHECK(accepted > 1000);
}

static void test_broadcast_and_overlap(void)
{
    int64_t out[3];
    uint8_t bytes[64] = {0};
    CHECK_INT(sat_nd_broadcast(1, DIMS(3), DIMS(8), 2, DIMS(5, 3), out, NULL), SAT_OK);
    CHECK_INT(out[0], 0);
    CHECK_INT(out[1], 8);
    CHECK_INT(sat_nd_broadcast(2, DIMS(4, 1), DIMS(8, 8), 2, DIMS(4, 9), out, NULL), SAT_OK);
    CHECK_INT(out[0], 8);
    CHECK_INT(out[1], 0);
    CHECK_INT(sat_nd_broadcast(1, DIMS(3), DIMS(8), 1, DIMS(4), out, NULL), SAT_PROTOCOL);
    CHECK_INT(sat_nd_broadcast(2, DIMS(3, 1), DIMS(8, 8), 1, DIMS(3), out, NULL), SAT_PROTOCOL);

    sat_ndarray nd = {.type = dtype("<f8"), .base = bytes, .base_len = sizeof bytes};
    REQUIRE(nd.type != NULL);
    CHECK_INT(sat_nd_layout(&nd, 2, DIMS(2, 4), DIMS(32, 8), NULL), SAT_OK);
    CHECK(!sat_nd_overlaps(&nd));
    CHECK_INT(sat_nd_contiguous(&nd), 'C');
    CHECK_INT(sat_nd_layout(&nd, 2, DIMS(4, 2), DIMS(8, 32), NULL), SAT_OK);
    CHECK(!sat_nd_overlaps(&nd));
    CHECK_INT(sat_nd_contiguous(&nd), 'F');
    CHECK_INT(sat_nd_layout(&nd, 2, DIMS(4, 4), DIMS(8, 8), NULL), SAT_OK);
    CHECK(sat_nd_overlaps(&nd));
    CHECK_INT(sat_nd_layout(&nd, 1, DIMS(9), DIMS(0), NULL), SAT_OK);
    CHECK(sat_nd_overlaps(&nd));
    CHECK_INT(sat_nd_layout(&nd, 1, DIMS(4), DIMS(4), NULL), SAT_OK);
    CHECK(sat_nd_overlaps(&nd));
    CHECK_INT(sat_nd_layout(&nd, 1, DIMS(4), DIMS(16), NULL), SAT_OK);
    CHECK(!sat_nd_overlaps(&nd));
    CHECK_INT(sat_nd_contiguous(&nd), 0);
    sat_dtype_release(nd.type);
}

/* Unaligned data in both byte orders. */
static void test_cells(void)
{
    static const char *const TYPES[] = {"<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "|i1"};
    uint8_t bytes[24];
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        sat_dtype *type = dtype(TYPES[i]);
        sat_cell in = {.kind = 'i', .i = -100}, out;
        REQUIRE(type != NULL);
        CHECK_INT(sat_cell_store(type, bytes + 1, &in, false, NULL), SAT_OK);
        CHECK_INT(sat_cell_load(type, bytes + 1, &out, NULL), SAT_OK);
        CHECK_INT(out.i, -100);
        sat_dtype_release(type);
    }
    sat_dtype *type = dtype(">c16");
    REQUIRE(type != NULL);
    sat_cell in = {.kind = 'c', .f = 1.5, .im = -2}, out;
    CHECK_INT(sat_cell_store(type, bytes + 3, &in, false, NULL), SAT_OK);
    CHECK_MEM(bytes + 3, 16, "\x3f\xf8\0\0\0\0\0\0\xc0\0\0\0\0\0\0\0", 16);
    CHECK_INT(sat_cell_load(type, bytes + 3, &out, NULL), SAT_OK);
    CHECK(out.f == 1.5 && out.im == -2);
    sat_dtype_release(type);
}

static void test_record_types(void)
{
    sat_dtype *record = NULL, *f4 = dtype("<f4"), *object = dtype("O");
    sat_error err;
    REQUIRE(f4 != NULL && object != NULL);
    CHECK_INT(sat_dtype_record_begin(16, &record, &err), SAT_OK);
    CHECK_INT(sat_dtype_record_add(record, "b", 1, 8, f4, 1, DIMS(2), &err), SAT_OK);
    CHECK_INT(sat_dtype_record_add(record, "it's", 4, 0, f4, 0, NULL, &err), SAT_OK);
    CHECK_INT(sat_dtype_record_add(record, "c", 1, 13, f4, 0, NULL, &err), SAT_VALUE);
    CHECK_INT(sat_dtype_record_add(record, "c", 1, SIZE_MAX, f4, 0, NULL, &err), SAT_VALUE);
    CHECK_INT(sat_dtype_record_add(record, "c", 1, 0, f4, 2, DIMS(INT32_MAX, INT32_MAX), &err), SAT_VALUE);
    CHECK_INT(sat_dtype_record_add(record, "c", 1, 0, f4, 1, DIMS(-1), &err), SAT_VALUE);
    CHECK_INT(sat_dtype_record_add(record, "c", 1, 0, object, 0, NULL, &err), SAT_VALUE);
    CHECK_INT(sat_dtype_record_finish(record, &err), SAT_OK);
    CHECK_STR(record->descr,
              "{'names': ['b', \"it's\"], 'formats': [('<f4', (2,)), '<f4'], 'offsets': [8, 0], 'itemsize': 16}");
    sat_dtype *again = dtype(record->descr);
    REQUIRE(again != NULL);
    CHECK(sat_dtype_same(record, again));
    CHECK(sat_dtype_field(again, "it's", 4) != NULL);
    CHECK(sat_dtype_field(again, "nothing", 7) == NULL);
    CHECK(sat_dtype_same(again->fields[0].type, f4));
    sat_dtype_release(again);
    sat_dtype_release(record);
    sat_dtype_release(object);
    sat_dtype_release(f4);
}

static void test_npy_header(void)
{
    sat_buf text = SAT_BUF_INIT;
    sat_npy npy;
    sat_dtype *type = dtype("<f8");
    REQUIRE(type != NULL);
    CHECK_INT(sat_npy_header(type, 2, DIMS(3, 4), true, &text, NULL), SAT_OK);
    CHECK_UINT(text.len % 64, 0);
    CHECK_INT(sat_npy_parse(text.data, text.len, &npy, NULL), SAT_OK);
    CHECK_INT(npy.ndim, 2);
    CHECK_INT(npy.shape[1], 4);
    CHECK(npy.fortran);
    CHECK_UINT(npy.data, text.len);
    sat_dtype_release(npy.type);
    for (size_t n = 0; n < text.len; n++) {
        uint8_t *part = malloc(n + 1); /* exactly so long, so that a tool sees a step too far */
        REQUIRE(part != NULL);
        memcpy(part, text.data, n);
        CHECK(sat_npy_parse(part, n, &npy, NULL) != SAT_OK);
        free(part);
    }
    sat_buf_free(&text);
    sat_dtype_release(type);
}

static void test_utf8(void)
{
    char out[4];
    uint32_t code;
    for (uint32_t c = 0; c <= 0x10FFFF; c += 7) {
        size_t n = sat_utf8_encode(c, out);
        CHECK_UINT(sat_utf8_decode((const uint8_t *)out, n, &code), n);
        CHECK_UINT(code, c);
        if (n > 1) CHECK_UINT(sat_utf8_decode((const uint8_t *)out, n - 1, &code), 0);
    }
    CHECK_UINT(sat_utf8_encode(0x110000, out), 0);
    CHECK_UINT(sat_utf8_decode((const uint8_t *)"\xc0\x80", 2, &code), 0);
    CHECK_UINT(sat_utf8_decode((const uint8_t *)"\xf4\x90\x80\x80", 4, &code), 0);
    CHECK_UINT(sat_utf8_decode((const uint8_t *)"\x80", 1, &code), 0);
}

int main(void)
{
    RUN(test_layouts_that_fit);
    RUN(test_layouts_that_do_not);
    RUN(test_random_layouts);
    RUN(test_broadcast_and_overlap);
    RUN(test_cells);
    RUN(test_record_types);
    RUN(test_npy_header);
    RUN(test_utf8);
    return check_done();
}
