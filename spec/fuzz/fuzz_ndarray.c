/* Array types, .npy files and layouts from hostile bytes. The first byte says which. */
#include <stdlib.h>
#include <string.h>

#include "ndarray.h"
#include "npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(sat_ndarray *nd)
{
    sat_cell cell;
    sat_nd_walk walk;
    size_t at;
    if (nd->size > 4096 || nd->type->itemsize > 4096) return;
    (void)sat_nd_sum(nd, &cell, NULL);
    (void)sat_nd_mean(nd, &cell, NULL);
    (void)sat_nd_extreme(nd, true, &cell, NULL);
    (void)sat_nd_equal(nd, nd);
    (void)sat_nd_overlaps(nd);
    uint8_t *copy = malloc((size_t)nd->size * nd->type->itemsize + 1);
    if (copy == NULL) return;
    sat_nd_pack(nd, copy);
    free(copy);
    sat_nd_walk_begin(&walk, nd, true);
    while (sat_nd_walk_next(&walk, 3, &at) > 0) {
        if (nd->type->kind == 'U' || nd->type->kind == 'S') (void)sat_text_len(nd->type, nd->base + at);
    }
    for (size_t i = 0; i < nd->type->nfields; i++) {
        sat_ndarray column = *nd;
        if (sat_nd_field(&column, &nd->type->fields[i], NULL) == SAT_OK) (void)sat_nd_sum(&column, &cell, NULL);
    }
    for (int i = 0; i < nd->ndim; i++) {
        if (nd->shape[i] > 1) sat_nd_slice(nd, i, nd->shape[i] - 1, nd->shape[i] / 2, -2);
    }
    if (nd->ndim > 0 && nd->shape[0] > 0) sat_nd_pick(nd, 0, nd->shape[0] - 1);
    (void)sat_nd_sum(nd, &cell, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sat_error err;
    if (size < 1) return 0;
    uint8_t what = *data++;
    size--;
    if (what % 3 == 0) {
        sat_dtype *type = NULL, *again = NULL;
        if (sat_dtype_parse((const char *)data, size, &type, &err) != SAT_OK) return 0;
        const char *text = sat_dtype_str(type);
        if (sat_dtype_parse(text, strlen(text), &again, &err) != SAT_OK || !sat_dtype_same(type, again)) abort();
        sat_dtype_release(type);
        sat_dtype_release(again);
    } else if (what % 3 == 1) {
        sat_npy npy;
        int64_t strides[SAT_ND_MAX_DIMS], elements;
        size_t bytes;
        if (sat_npy_parse(data, size, &npy, &err) != SAT_OK) return 0;
        sat_ndarray nd = {.type = npy.type, .base = (uint8_t *)(uintptr_t)data, .base_len = size, .offset = npy.data};
        if (sat_nd_measure(npy.type, npy.ndim, npy.shape, &elements, &bytes, &err) == SAT_OK) {
            sat_nd_dense_strides(npy.ndim, npy.shape, npy.type->itemsize, npy.fortran, strides);
            if (sat_nd_layout(&nd, npy.ndim, npy.shape, strides, &err) == SAT_OK) use(&nd);
        }
        sat_dtype_release(npy.type);
    } else {
        static const char *const TYPES[] = {"<f8", ">f2", "|u1", "<i8", "<M8[s]", "<U2", "|S3", "<c8", "|b1",
                                            "[('a', '<i2'), ('b', '<f4', (2,))]"};
        int64_t shape[4], strides[4];
        sat_dtype *type = NULL;
        if (size < 2 + sizeof shape + sizeof strides) return 0;
        const char *text = TYPES[data[0] % (sizeof TYPES / sizeof TYPES[0])];
        size_t offset = data[1] % 16;
        memcpy(shape, data + 2, sizeof shape);
        memcpy(strides, data + 2 + sizeof shape, sizeof strides);
        data += 2 + sizeof shape + sizeof strides;
        size -= 2 + sizeof shape + sizeof strides;
        if (what & 0x80) { /* small ones, which may well fit */
            for (int i = 0; i < 4; i++) {
                shape[i] &= 7;
                strides[i] = (int8_t)strides[i];
            }
        }
        if (sat_dtype_parse(text, strlen(text), &type, &err) != SAT_OK) return 0;
        sat_ndarray nd = {.type = type, .base = (uint8_t *)(uintptr_t)data, .base_len = size, .offset = offset};
        if (sat_nd_layout(&nd, what >> 2 & 3, shape, strides, &err) == SAT_OK) use(&nd);
        sat_dtype_release(type);
    }
    return 0;
}
