/* N-dimensional arrays over bytes: layout checks, views, elements, copies, reductions.
 *
 * A sat_ndarray owns nothing: whoever holds it keeps `base` alive and an owner of `type`. Once sat_nd_layout has
 * passed, every element lies within base_len, and views made from it here do too. Data need not be aligned. */
#ifndef SATURN_NDARRAY_H
#define SATURN_NDARRAY_H

#include "dtype.h"

typedef struct sat_ndarray {
    sat_dtype *type;
    uint8_t *base;    /* NULL for an array of objects, which has only the layout */
    size_t base_len;
    size_t offset;    /* of the first element */
    int ndim;
    int64_t size;     /* elements */
    int64_t shape[SAT_ND_MAX_DIMS];
    int64_t strides[SAT_ND_MAX_DIMS]; /* bytes */
} sat_ndarray;

/* Fills shape, strides (NULL: C order), size and ndim after checking that every element lies in nd->base_len;
 * type, base_len and offset must be set. Nothing is read. Strides that are never used are replaced by C order's. */
sat_status sat_nd_layout(sat_ndarray *nd, int ndim, const int64_t *shape, const int64_t *strides, sat_error *err);

/* Elements and bytes of a dense array of this shape. */
sat_status sat_nd_measure(const sat_dtype *type, int ndim, const int64_t *shape, int64_t *size, size_t *bytes,
                          sat_error *err);

/* Strides of a dense array, in C or (fortran) in F order. */
void sat_nd_dense_strides(int ndim, const int64_t *shape, size_t itemsize, bool fortran, int64_t *strides);

/* The strides by which an array of shape and strides is seen as `to` (numpy.broadcast_to); out has to_ndim entries. */
sat_status sat_nd_broadcast(int ndim, const int64_t *shape, const int64_t *strides, int to_ndim, const int64_t *to,
                            int64_t *out, sat_error *err);

/* 'C' or 'F' when the elements lie without gaps in that order ('C' when both), else 0. */
int sat_nd_contiguous(const sat_ndarray *nd);
/* Two elements share bytes, as in a broadcast array. May say yes for some exotic strides where no is true. */
bool sat_nd_overlaps(const sat_ndarray *nd);

/* Byte offset from base of the element at these 0-based indices, which must be in range. */
size_t sat_nd_at(const sat_ndarray *nd, const int64_t *index);

/* Views, changed in place. */
void sat_nd_pick(sat_ndarray *nd, int dim, int64_t index);  /* drops the dimension */
void sat_nd_slice(sat_ndarray *nd, int dim, int64_t first, int64_t count, int64_t step);
void sat_nd_permute(sat_ndarray *nd, const int *order);
sat_status sat_nd_field(sat_ndarray *nd, const sat_field *field, sat_error *err); /* type is set, not retained */

/* Walks the elements as runs of equal distance: in C order, or in the order of memory when any order will do. */
typedef struct sat_nd_walk {
    int ndim;
    bool more;
    int64_t shape[SAT_ND_MAX_DIMS];
    int64_t strides[SAT_ND_MAX_DIMS];
    int64_t index[SAT_ND_MAX_DIMS];
    size_t next;     /* offset of the next run */
    int64_t left;    /* of the current run */
    size_t offset;
    int64_t stride;  /* distance in the current run */
} sat_nd_walk;

void sat_nd_walk_begin(sat_nd_walk *walk, const sat_ndarray *nd, bool any_order);
/* At most `most` elements from *offset on, walk->stride apart; their number, 0 at the end. */
int64_t sat_nd_walk_next(sat_nd_walk *walk, int64_t most, size_t *offset);

/* A number: b and i in `i` (b: 0 or 1), u in `u`, f in `f`, c in `f` and `im`. Times are i. */
typedef struct sat_cell {
    char kind;
    int64_t i;
    uint64_t u;
    double f, im;
} sat_cell;

static const int64_t SAT_NAT = INT64_MIN; /* not a time */

/* For the kinds b i u f c M m; a SAT_VALUE error for the others and for long double. Storing refuses what the type
 * cannot hold; with `cast` integers wrap, floats are cut to integers and complex stays refused for real. */
sat_status sat_cell_load(const sat_dtype *type, const uint8_t *p, sat_cell *out, sat_error *err);
sat_status sat_cell_store(const sat_dtype *type, uint8_t *p, const sat_cell *cell, bool cast, sat_error *err);

/* For S and U: characters without the NULs at the end, one of them, and storing (UTF-8 for U). */
size_t sat_text_len(const sat_dtype *type, const uint8_t *p);
uint32_t sat_text_at(const sat_dtype *type, const uint8_t *p, size_t i);
sat_status sat_text_store(const sat_dtype *type, uint8_t *p, const char *text, size_t len, sat_error *err);

/* The elements in C order without gaps into out, which has room for size * itemsize bytes. */
void sat_nd_pack(const sat_ndarray *nd, uint8_t *out);
/* The same, converted. Not for objects. */
sat_status sat_nd_cast(const sat_ndarray *nd, const sat_dtype *type, uint8_t *out, sat_error *err);
/* Every element becomes a copy of the item. */
void sat_nd_fill(const sat_ndarray *nd, const uint8_t *item);
/* Same shape, equal elements; NaN and not-a-time equal nothing. Not for objects. */
bool sat_nd_equal(const sat_ndarray *a, const sat_ndarray *b);

sat_status sat_nd_sum(const sat_ndarray *nd, sat_cell *out, sat_error *err);
sat_status sat_nd_mean(const sat_ndarray *nd, sat_cell *out, sat_error *err); /* f, or c */
sat_status sat_nd_extreme(const sat_ndarray *nd, bool greatest, sat_cell *out, sat_error *err);

uint16_t sat_half_from_double(double value);
double sat_half_to_double(uint16_t bits);

#endif
