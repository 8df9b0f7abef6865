#include "ndarray.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1024 }; /* numbers that a reduction holds at a time */

/* ---- layout ---- */

sat_status sat_nd_measure(const sat_dtype *type, int ndim, const int64_t *shape, int64_t *size, size_t *bytes,
                          sat_error *err)
{
    /* as NumPy, a dimension of 0 does not excuse the others from being a possible array */
    uint64_t product = type->itemsize > 0 ? type->itemsize : 1;
    bool empty = false;
    if (ndim < 0 || ndim > SAT_ND_MAX_DIMS)
        return sat_fail(err, SAT_LIMIT, "array: %d dimensions, more than %d", ndim, (int)SAT_ND_MAX_DIMS);
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return sat_fail(err, SAT_PROTOCOL, "array: a negative dimension");
        if (shape[i] == 0) {
            empty = true;
        } else {
            if ((uint64_t)shape[i] > (uint64_t)(PTRDIFF_MAX / 2) / product)
                return sat_fail(err, SAT_LIMIT, "array: the shape is larger than memory");
            product *= (uint64_t)shape[i];
        }
    }
    *size = empty ? 0 : (int64_t)(product / (type->itemsize > 0 ? type->itemsize : 1));
    *bytes = empty || type->itemsize == 0 ? 0 : (size_t)product;
    return SAT_OK;
}

void sat_nd_dense_strides(int ndim, const int64_t *shape, size_t itemsize, bool fortran, int64_t *strides)
{
    int64_t step = (int64_t)itemsize;
    for (int i = 0; i < ndim; i++) {
        int dim = fortran ? i : ndim - 1 - i;
        strides[dim] = step;
        if (shape[dim] > 0) step = (int64_t)((uint64_t)step * (uint64_t)shape[dim]); /* of no elements it may be any */
    }
}

sat_status sat_nd_layout(sat_ndarray *nd, int ndim, const int64_t *shape, const int64_t *strides, sat_error *err)
{
    size_t bytes;
    int64_t size;
    int64_t dense[SAT_ND_MAX_DIMS];
    sat_status status = sat_nd_measure(nd->type, ndim, shape, &size, &bytes, err);
    if (status != SAT_OK) return status;
    if (nd->offset > nd->base_len || nd->base_len > PTRDIFF_MAX / 2)
        return sat_fail(err, SAT_PROTOCOL, "array: it begins outside its bytes");

    sat_nd_dense_strides(ndim, shape, nd->type->itemsize, false, dense);
    uint64_t below = 0; /* bytes before the first element and after its start that the strides reach */
    uint64_t above = 0;
    for (int i = 0; i < ndim; i++) {
        int64_t stride = strides == NULL || size == 0 || shape[i] <= 1 ? dense[i] : strides[i];
        if (size > 0 && shape[i] > 1) {
            uint64_t distance = stride < 0 ? 0 - (uint64_t)stride : (uint64_t)stride;
            uint64_t steps = (uint64_t)shape[i] - 1;
            uint64_t *reach = stride < 0 ? &below : &above;
            if (distance > nd->base_len / steps || distance * steps > nd->base_len - *reach)
                return sat_fail(err, SAT_PROTOCOL, "array: the strides reach outside the %zu bytes that are there",
                                nd->base_len);
            *reach += distance * steps;
        }
        nd->shape[i] = shape[i];
        nd->strides[i] = stride;
    }
    if (size > 0) {
        size_t rest = nd->base_len - nd->offset;
        if (below > nd->offset || nd->type->itemsize > rest || above > rest - nd->type->itemsize)
            return sat_fail(err, SAT_PROTOCOL, "array: shape and type need more than the %zu bytes that are there",
                            rest);
    }
    nd->ndim = ndim;
    nd->size = size;
    return SAT_OK;
}

sat_status sat_nd_broadcast(int ndim, const int64_t *shape, const int64_t *strides, int to_ndim, const int64_t *to,
                            int64_t *out, sat_error *err)
{
    if (to_ndim < ndim || to_ndim > SAT_ND_MAX_DIMS || ndim < 0)
        return sat_fail(err, SAT_PROTOCOL, "array: cannot broadcast %d dimensions to %d", ndim, to_ndim);
    for (int i = 0; i < to_ndim; i++) {
        int from = i - (to_ndim - ndim);
        if (from >= 0 && shape[from] == to[i])
            out[i] = strides[from];
        else if (from < 0 || shape[from] == 1)
            out[i] = 0;
        else
            return sat_fail(err, SAT_PROTOCOL, "array: cannot broadcast a dimension of %" PRId64 " to %" PRId64,
                            shape[from], to[i]);
    }
    return SAT_OK;
}

int sat_nd_contiguous(const sat_ndarray *nd)
{
    int64_t c = (int64_t)nd->type->itemsize;
    int64_t f = c;
    bool is_c = true;
    bool is_f = true;
    if (nd->size == 0) return 'C';
    for (int i = 0; i < nd->ndim; i++) {
        int last = nd->ndim - 1 - i;
        if (nd->shape[last] != 1) {
            is_c = is_c && nd->strides[last] == c;
            c *= nd->shape[last];
        }
        if (nd->shape[i] != 1) {
            is_f = is_f && nd->strides[i] == f;
            f *= nd->shape[i];
        }
    }
    return is_c ? 'C' : is_f ? 'F' : 0;
}

static uint64_t magnitude(int64_t value)
{
    return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

/* Drops dimensions of one element, sorts by distance, widest first (when `sort`), and joins neighbours. */
static int simplify(int ndim, int64_t *shape, int64_t *strides, bool sort)
{
    int n = 0;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 1) continue;
        shape[n] = shape[i];
        strides[n++] = strides[i];
    }
    for (int i = 1; sort && i < n; i++) {
        int64_t count = shape[i];
        int64_t stride = strides[i];
        int j = i;
        for (; j > 0 && magnitude(strides[j - 1]) < magnitude(stride); j--) {
            shape[j] = shape[j - 1];
            strides[j] = strides[j - 1];
        }
        shape[j] = count;
        strides[j] = stride;
    }
    int kept = 0;
    for (int i = 1; i < n; i++) {
        if (strides[kept] == shape[i] * strides[i]) {
            shape[kept] *= shape[i];
            strides[kept] = strides[i];
        } else {
            kept++;
            shape[kept] = shape[i];
            strides[kept] = strides[i];
        }
    }
    return n == 0 ? 0 : kept + 1;
}

bool sat_nd_overlaps(const sat_ndarray *nd)
{
    int64_t shape[SAT_ND_MAX_DIMS];
    int64_t strides[SAT_ND_MAX_DIMS];
    if (nd->size <= 1 || nd->type->itemsize == 0) return false;
    memcpy(shape, nd->shape, (size_t)nd->ndim * sizeof *shape);
    memcpy(strides, nd->strides, (size_t)nd->ndim * sizeof *strides);
    for (int i = 0; i < nd->ndim; i++) strides[i] = (int64_t)magnitude(strides[i]);
    int n = simplify(nd->ndim, shape, strides, true);
    uint64_t inner = nd->type->itemsize; /* bytes that all dimensions further in cover */
    for (int i = n - 1; i >= 0; i--) {
        if ((uint64_t)strides[i] < inner) return true;
        inner += (uint64_t)strides[i] * ((uint64_t)shape[i] - 1);
    }
    return false;
}

/* ---- views ---- */

static size_t moved(size_t offset, int64_t steps, int64_t stride)
{
    return offset + (size_t)steps * (size_t)stride; /* modulo 2^n, as the sum of in-range parts is right */
}

size_t sat_nd_at(const sat_ndarray *nd, const int64_t *index)
{
    size_t at = nd->offset;
    for (int i = 0; i < nd->ndim; i++) at = moved(at, index[i], nd->strides[i]);
    return at;
}

static void recount(sat_ndarray *nd)
{
    nd->size = 1;
    for (int i = 0; i < nd->ndim; i++) {
        if (nd->shape[i] == 0) {
            nd->size = 0;
            return;
        }
    }
    for (int i = 0; i < nd->ndim; i++) nd->size *= nd->shape[i]; /* never more than it was */
}

void sat_nd_pick(sat_ndarray *nd, int dim, int64_t index)
{
    if (nd->size > 0) nd->offset = moved(nd->offset, index, nd->strides[dim]);
    for (int i = dim; i + 1 < nd->ndim; i++) {
        nd->shape[i] = nd->shape[i + 1];
        nd->strides[i] = nd->strides[i + 1];
    }
    nd->ndim--;
    recount(nd);
}

void sat_nd_slice(sat_ndarray *nd, int dim, int64_t first, int64_t count, int64_t step)
{
    if (nd->size > 0 && count > 0) nd->offset = moved(nd->offset, first, nd->strides[dim]);
    if (nd->size > 0 && count > 1) nd->strides[dim] *= step; /* within the reach that was checked */
    nd->shape[dim] = count;
    recount(nd);
}

void sat_nd_permute(sat_ndarray *nd, const int *order)
{
    int64_t shape[SAT_ND_MAX_DIMS];
    int64_t strides[SAT_ND_MAX_DIMS];
    for (int i = 0; i < nd->ndim; i++) {
        shape[i] = nd->shape[order[i]];
        strides[i] = nd->strides[order[i]];
    }
    memcpy(nd->shape, shape, (size_t)nd->ndim * sizeof *shape);
    memcpy(nd->strides, strides, (size_t)nd->ndim * sizeof *strides);
}

sat_status sat_nd_field(sat_ndarray *nd, const sat_field *field, sat_error *err)
{
    if (nd->ndim + field->ndim > SAT_ND_MAX_DIMS)
        return sat_fail(err, SAT_LIMIT, "array: more than %d dimensions", (int)SAT_ND_MAX_DIMS);
    sat_nd_dense_strides(field->ndim, field->shape, field->type->itemsize, false, nd->strides + nd->ndim);
    for (int i = 0; i < field->ndim; i++) nd->shape[nd->ndim + i] = field->shape[i];
    nd->ndim += field->ndim;
    if (nd->size > 0) nd->offset += field->offset;
    nd->size = field->count == 0 ? 0 : nd->size * (int64_t)field->count;
    nd->type = field->type;
    return SAT_OK;
}

/* ---- walking ---- */

void sat_nd_walk_begin(sat_nd_walk *walk, const sat_ndarray *nd, bool any_order)
{
    walk->left = 0;
    walk->more = nd->size > 0;
    walk->ndim = 0;
    if (!walk->more) return;
    memcpy(walk->shape, nd->shape, (size_t)nd->ndim * sizeof *walk->shape);
    memcpy(walk->strides, nd->strides, (size_t)nd->ndim * sizeof *walk->strides);
    walk->next = nd->offset;
    for (int i = 0; any_order && i < nd->ndim; i++) {
        if (walk->strides[i] >= 0) continue;
        walk->next = moved(walk->next, walk->shape[i] - 1, walk->strides[i]);
        walk->strides[i] = -walk->strides[i];
    }
    walk->ndim = simplify(nd->ndim, walk->shape, walk->strides, any_order);
    if (walk->ndim == 0) {
        walk->ndim = 1;
        walk->shape[0] = 1;
        walk->strides[0] = (int64_t)nd->type->itemsize;
    }
    memset(walk->index, 0, (size_t)walk->ndim * sizeof *walk->index);
    walk->stride = walk->strides[walk->ndim - 1];
}

int64_t sat_nd_walk_next(sat_nd_walk *walk, int64_t most, size_t *offset)
{
    if (walk->left == 0) {
        if (!walk->more) return 0;
        walk->offset = walk->next;
        walk->left = walk->shape[walk->ndim - 1];
        int i = walk->ndim - 2;
        for (; i >= 0; i--) {
            if (++walk->index[i] < walk->shape[i]) {
                walk->next += (size_t)walk->strides[i];
                break;
            }
            walk->index[i] = 0;
            walk->next = moved(walk->next, -(walk->shape[i] - 1), walk->strides[i]);
        }
        walk->more = i >= 0;
    }
    int64_t n = walk->left < most ? walk->left : most;
    *offset = walk->offset;
    walk->offset = moved(walk->offset, n, walk->stride);
    walk->left -= n;
    return n;
}

/* ---- numbers ---- */

double sat_half_to_double(uint16_t bits)
{
    uint64_t sign = (uint64_t)(bits & 0x8000u) << 48;
    unsigned exponent = bits >> 10 & 0x1Fu;
    uint64_t mantissa = bits & 0x3FFu;
    uint64_t out;
    double value;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 */
        value = (double)mantissa / 16777216.0;
        return sign != 0 ? -value : value;
    }
    if (exponent == 31)
        out = sign | UINT64_C(0x7FF0000000000000) | mantissa << 42;
    else
        out = sign | (uint64_t)(exponent + (1023 - 15)) << 52 | mantissa << 42;
    memcpy(&value, &out, sizeof value);
    return value;
}

/* bits >> shift, to nearest, ties to even */
static uint64_t shift_round(uint64_t bits, unsigned shift)
{
    uint64_t rest = bits & ((UINT64_C(1) << shift) - 1);
    uint64_t half = UINT64_C(1) << (shift - 1);
    uint64_t out = bits >> shift;
    if (rest > half || (rest == half && (out & 1) != 0)) out++;
    return out;
}

uint16_t sat_half_from_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 48 & 0x8000u);
    bits &= INT64_MAX;
    if (bits > UINT64_C(0x7FF0000000000000)) return (uint16_t)(sign | 0x7E00u | (bits >> 42 & 0x3FFu));
    if (bits >= UINT64_C(0x40EFFE0000000000)) return sign | 0x7C00u; /* 65520 and more */
    if (bits >= UINT64_C(0x3F10000000000000))                       /* 2^-14 and more: normal */
        return (uint16_t)(sign | shift_round(bits - (UINT64_C(1008) << 52), 42));
    if (bits <= UINT64_C(0x3E60000000000000)) return sign; /* 2^-25 and less */
    uint64_t mantissa = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    return (uint16_t)(sign | shift_round(mantissa, (unsigned)(1051 - (bits >> 52))));
}

static uint16_t load16(const uint8_t *p, bool swapped)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    if (swapped) v = (uint16_t)(v >> 8 | v << 8);
    return v;
}

static uint32_t swap32(uint32_t v)
{
    v = (v & UINT32_C(0x00FF00FF)) << 8 | (v >> 8 & UINT32_C(0x00FF00FF));
    return v << 16 | v >> 16;
}

static uint64_t swap64(uint64_t v)
{
    return (uint64_t)swap32((uint32_t)v) << 32 | swap32((uint32_t)(v >> 32));
}

static uint32_t load32(const uint8_t *p, bool swapped)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return swapped ? swap32(v) : v;
}

static uint64_t load64(const uint8_t *p, bool swapped)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return swapped ? swap64(v) : v;
}

static void store_bits(uint8_t *p, uint64_t bits, size_t size, bool swapped)
{
    if (size == 1) {
        *p = (uint8_t)bits;
    } else if (size == 2) {
        uint16_t v = (uint16_t)(swapped ? (bits >> 8 & 0xFF) | (bits & 0xFF) << 8 : bits);
        memcpy(p, &v, sizeof v);
    } else if (size == 4) {
        uint32_t v = swapped ? swap32((uint32_t)bits) : (uint32_t)bits;
        memcpy(p, &v, sizeof v);
    } else {
        uint64_t v = swapped ? swap64(bits) : bits;
        memcpy(p, &v, sizeof v);
    }
}

/* Two's complement without a conversion that the standard leaves open. */
static int64_t as_signed(uint64_t bits)
{
    int64_t v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static int64_t load_int(const sat_dtype *type, const uint8_t *p)
{
    bool is_signed = type->kind != 'u' && type->kind != 'b';
    switch (type->itemsize) {
    case 1: return is_signed ? (int64_t)as_signed((uint64_t)(*p ^ 0x80u) - 0x80u) : (int64_t)*p;
    case 2:
        return is_signed ? as_signed((uint64_t)(load16(p, type->swapped) ^ 0x8000u) - 0x8000u)
                         : (int64_t)load16(p, type->swapped);
    case 4:
        return is_signed ? as_signed((uint64_t)(load32(p, type->swapped) ^ UINT32_C(0x80000000)) - UINT32_C(0x80000000))
                         : (int64_t)load32(p, type->swapped);
    default: return as_signed(load64(p, type->swapped));
    }
}

static double load_float(const uint8_t *p, size_t size, bool swapped)
{
    if (size == 2) return sat_half_to_double(load16(p, swapped));
    if (size == 4) {
        uint32_t bits = load32(p, swapped);
        float value;
        memcpy(&value, &bits, sizeof value);
        return (double)value;
    }
    uint64_t bits = load64(p, swapped);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void store_float(uint8_t *p, double value, size_t size, bool swapped)
{
    uint64_t bits;
    if (size == 2) {
        bits = sat_half_from_double(value);
    } else if (size == 4) {
        float narrow = (float)value;
        uint32_t bits32;
        memcpy(&bits32, &narrow, sizeof bits32);
        bits = bits32;
    } else {
        memcpy(&bits, &value, sizeof bits);
    }
    store_bits(p, bits, size, swapped);
}

static sat_status refuse_kind(const sat_dtype *type, const char *what, sat_error *err)
{
    char name[SAT_DTYPE_TEXT];
    sat_dtype_name(type, name, sizeof name);
    if (type->opaque)
        return sat_fail(err, SAT_VALUE,
                        "%s of a %s array: its bytes depend on the machine that wrote them; convert on the worker, "
                        "as in x.astype('%s')",
                        what, name, type->kind == 'c' ? "c16" : "f8");
    return sat_fail(err, SAT_VALUE, "%s of a %s array is not defined", what, name);
}

sat_status sat_cell_load(const sat_dtype *type, const uint8_t *p, sat_cell *out, sat_error *err)
{
    if (type->opaque) return refuse_kind(type, "an element", err);
    *out = (sat_cell){.kind = type->kind};
    switch (type->kind) {
    case 'b': out->i = *p != 0; return SAT_OK;
    case 'M':
    case 'm': out->kind = 'i'; out->i = load_int(type, p); return SAT_OK;
    case 'i': out->i = load_int(type, p); return SAT_OK;
    case 'u': out->u = (uint64_t)load_int(type, p); return SAT_OK;
    case 'f': out->f = load_float(p, type->itemsize, type->swapped); return SAT_OK;
    case 'c':
        out->f = load_float(p, type->itemsize / 2, type->swapped);
        out->im = load_float(p + type->itemsize / 2, type->itemsize / 2, type->swapped);
        return SAT_OK;
    default: return refuse_kind(type, "a number", err);
    }
}

static sat_status out_of_range(const sat_dtype *type, const sat_cell *cell, sat_error *err)
{
    char name[SAT_DTYPE_TEXT];
    sat_dtype_name(type, name, sizeof name);
    if (cell->kind == 'f') return sat_fail(err, SAT_VALUE, "%.17g does not fit into %s", cell->f, name);
    if (cell->kind == 'u') return sat_fail(err, SAT_VALUE, "%" PRIu64 " does not fit into %s", cell->u, name);
    return sat_fail(err, SAT_VALUE, "%" PRId64 " does not fit into %s", cell->i, name);
}

static sat_status store_integer(const sat_dtype *type, uint8_t *p, const sat_cell *cell, bool cast, sat_error *err)
{
    static const double TWO63 = 9223372036854775808.0;
    unsigned bits = (unsigned)type->itemsize * 8;
    bool to_unsigned = type->kind == 'u';
    uint64_t most = to_unsigned ? UINT64_MAX >> (64 - bits) : UINT64_MAX >> (65 - bits);
    uint64_t value; /* two's complement */
    bool negative = false;

    if (cell->kind == 'f') {
        if (!(cell->f > -TWO63 - 1025.0 && cell->f < 2 * TWO63)) return out_of_range(type, cell, err);
        negative = cell->f < 0;
        if (negative && cell->f < -TWO63) return out_of_range(type, cell, err);
        value = negative ? (uint64_t)(int64_t)cell->f : (uint64_t)cell->f;
        double back = negative ? (double)as_signed(value) : (double)value;
        if (!cast && back != cell->f) {
            char name[SAT_DTYPE_TEXT];
            sat_dtype_name(type, name, sizeof name);
            return sat_fail(err, SAT_VALUE, "%.17g is not an integer, as %s needs", cell->f, name);
        }
        negative = negative && value != 0;
        cast = false; /* what does not fit has no agreed meaning */
    } else if (cell->kind == 'u') {
        value = cell->u;
    } else {
        value = (uint64_t)cell->i;
        /* 64 unsigned bits come to Lua as the integer of the same bits, and go back so */
        negative = cell->i < 0 && !(to_unsigned && bits == 64);
    }
    if (!cast) {
        if (negative ? to_unsigned || 0 - value > most + 1 : value > most) return out_of_range(type, cell, err);
    }
    store_bits(p, value, type->itemsize, type->swapped);
    return SAT_OK;
}

sat_status sat_cell_store(const sat_dtype *type, uint8_t *p, const sat_cell *cell, bool cast, sat_error *err)
{
    if (type->opaque) return refuse_kind(type, "an element", err);
    if (cell->kind == 'c' && type->kind != 'c') {
        char name[SAT_DTYPE_TEXT];
        sat_dtype_name(type, name, sizeof name);
        return sat_fail(err, SAT_VALUE, "a complex number does not fit into %s", name);
    }
    bool real = cell->kind == 'f' || cell->kind == 'c';
    double value = real ? cell->f : cell->kind == 'u' ? (double)cell->u : (double)cell->i;
    switch (type->kind) {
    case 'b':
        if (!cast && cell->kind != 'b' && value != 0 && value != 1) return out_of_range(type, cell, err);
        *p = real ? value != 0 : cell->kind == 'u' ? cell->u != 0 : cell->i != 0;
        return SAT_OK;
    case 'i':
    case 'u':
    case 'M':
    case 'm': return store_integer(type, p, cell, cast, err);
    case 'f': store_float(p, value, type->itemsize, type->swapped); return SAT_OK;
    case 'c': {
        size_t half = type->itemsize / 2;
        store_float(p, value, half, type->swapped);
        store_float(p + half, cell->kind == 'c' ? cell->im : 0.0, half, type->swapped);
        return SAT_OK;
    }
    default: return refuse_kind(type, "a number", err);
    }
}

/* ---- text ---- */

uint32_t sat_text_at(const sat_dtype *type, const uint8_t *p, size_t i)
{
    return type->kind == 'S' ? p[i] : load32(p + 4 * i, type->swapped);
}

size_t sat_text_len(const sat_dtype *type, const uint8_t *p)
{
    size_t n = type->kind == 'S' ? type->itemsize : type->itemsize / 4;
    while (n > 0 && sat_text_at(type, p, n - 1) == 0) n--;
    return n;
}

static sat_status text_too_long(const sat_dtype *type, sat_error *err)
{
    return sat_fail(err, SAT_VALUE, "a string is too long for %s", type->text + 1);
}

sat_status sat_text_store(const sat_dtype *type, uint8_t *p, const char *text, size_t len, sat_error *err)
{
    if (type->kind == 'S') {
        if (len > type->itemsize) return text_too_long(type, err);
        if (len > 0) memcpy(p, text, len);
        if (len < type->itemsize) memset(p + len, 0, type->itemsize - len);
        return SAT_OK;
    }
    size_t room = type->itemsize / 4;
    size_t count = 0;
    for (size_t at = 0; at < len; count++) { /* all of it is checked before anything changes */
        uint32_t code;
        size_t n = sat_utf8_decode((const uint8_t *)text + at, len - at, &code);
        if (n == 0) return sat_fail(err, SAT_VALUE, "a string is not UTF-8, as %s needs", type->text + 1);
        at += n;
    }
    if (count > room) return text_too_long(type, err);
    size_t at = 0;
    for (size_t i = 0; i < room; i++) {
        uint32_t code = 0;
        if (at < len) at += sat_utf8_decode((const uint8_t *)text + at, len - at, &code);
        store_bits(p + 4 * i, code, 4, type->swapped);
    }
    return SAT_OK;
}

/* ---- copies ---- */

static void copy_run(const uint8_t *p, int64_t stride, int64_t n, size_t size, uint8_t *out)
{
    if (stride == (int64_t)size) {
        memcpy(out, p, (size_t)n * size);
        return;
    }
    switch (size) { /* a memcpy of a fixed size is one move */
    case 1:
        for (int64_t i = 0; i < n; i++) out[i] = p[i * stride];
        break;
    case 4:
        for (int64_t i = 0; i < n; i++) memcpy(out + 4 * i, p + i * stride, 4);
        break;
    case 8:
        for (int64_t i = 0; i < n; i++) memcpy(out + 8 * i, p + i * stride, 8);
        break;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(out + size * (size_t)i, p + i * stride, size);
    }
}

void sat_nd_pack(const sat_ndarray *nd, uint8_t *out)
{
    sat_nd_walk walk;
    size_t offset;
    size_t size = nd->type->itemsize;
    int64_t n;
    if (size == 0) return;
    sat_nd_walk_begin(&walk, nd, false);
    while ((n = sat_nd_walk_next(&walk, INT64_MAX, &offset)) > 0) {
        copy_run(nd->base + offset, walk.stride, n, size, out);
        out += (size_t)n * size;
    }
}

void sat_nd_fill(const sat_ndarray *nd, const uint8_t *item)
{
    sat_nd_walk walk;
    size_t offset;
    int64_t n;
    size_t size = nd->type->itemsize;
    if (size == 0) return;
    sat_nd_walk_begin(&walk, nd, true);
    while ((n = sat_nd_walk_next(&walk, INT64_MAX, &offset)) > 0) {
        for (int64_t i = 0; i < n; i++) memcpy(nd->base + moved(offset, i, walk.stride), item, size);
    }
}

static bool is_number(const sat_dtype *type)
{
    return strchr("biufc", type->kind) != NULL && !type->opaque;
}

static bool is_time(const sat_dtype *type)
{
    return type->kind == 'M' || type->kind == 'm';
}

static bool is_text(const sat_dtype *type)
{
    return type->kind == 'S' || type->kind == 'U';
}

/* How many of one unit of time make another: value * num / den. */
typedef struct unit_ratio {
    int64_t num, den;
} unit_ratio;

static bool mul_int(int64_t a, int64_t b, int64_t *out)
{
    if (a != 0 && (b > INT64_MAX / a)) return false; /* both are positive */
    *out = a * b;
    return true;
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static bool split_unit(const char *unit, int64_t *count, int *rank)
{
    static const char *const RANKS[] = {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"};
    *count = 0;
    while (*unit >= '0' && *unit <= '9') *count = *count * 10 + (*unit++ - '0');
    if (*count == 0) *count = 1;
    for (int i = 0; i < (int)(sizeof RANKS / sizeof RANKS[0]); i++) {
        if (strcmp(unit, RANKS[i]) == 0) {
            *rank = i;
            return true;
        }
    }
    return false;
}

static sat_status ratio_of_units(const sat_dtype *from, const sat_dtype *to, unit_ratio *out, sat_error *err)
{
    static const int64_t STEPS[] = {12, 0, 7, 24, 60, 60, 1000, 1000, 1000, 1000, 1000, 1000}; /* rank to rank + 1 */
    int64_t from_count, to_count, factor = 1;
    int from_rank, to_rank;
    *out = (unit_ratio){1, 1};
    if (strcmp(from->unit, to->unit) == 0 || from->unit[0] == '\0' || to->unit[0] == '\0') return SAT_OK;
    bool ok = split_unit(from->unit, &from_count, &from_rank) && split_unit(to->unit, &to_count, &to_rank) &&
              (from_rank <= 1) == (to_rank <= 1);
    int low = 0, high = 0;
    if (ok) {
        low = from_rank < to_rank ? from_rank : to_rank;
        high = from_rank < to_rank ? to_rank : from_rank;
    }
    for (int i = low; ok && i < high; i++) ok = mul_int(factor, STEPS[i], &factor);
    if (ok) {
        int64_t num = from_count, den = to_count;
        ok = from_rank < to_rank ? mul_int(num, factor, &num) : mul_int(den, factor, &den);
        if (ok) {
            int64_t common = gcd(num, den);
            *out = (unit_ratio){num / common, den / common};
        }
    }
    if (!ok) return sat_fail(err, SAT_VALUE, "times in '%s' cannot be converted to '%s'", from->unit, to->unit);
    return SAT_OK;
}

static sat_status cast_time(const sat_dtype *from, const uint8_t *p, const sat_dtype *to, uint8_t *out,
                            unit_ratio ratio, sat_error *err)
{
    int64_t value = load_int(from, p);
    if (value != SAT_NAT) {
        if (ratio.num > 1 && (value > INT64_MAX / ratio.num || value < -(INT64_MAX / ratio.num)))
            return sat_fail(err, SAT_VALUE, "%" PRId64 " in '%s' does not fit into 64 bits of '%s'", value,
                            from->unit, to->unit);
        value *= ratio.num;
        int64_t quotient = value / ratio.den;
        if (value % ratio.den < 0) quotient--;
        value = quotient;
    }
    store_bits(out, (uint64_t)value, 8, to->swapped);
    return SAT_OK;
}

static sat_status cast_text(const sat_dtype *from, const uint8_t *p, const sat_dtype *to, uint8_t *out, sat_error *err)
{
    size_t n = sat_text_len(from, p);
    size_t room = to->kind == 'S' ? to->itemsize : to->itemsize / 4;
    if (n > room) return text_too_long(to, err);
    memset(out, 0, to->itemsize);
    for (size_t i = 0; i < n; i++) {
        uint32_t code = sat_text_at(from, p, i);
        if (from->kind != to->kind && code >= 0x80)
            return sat_fail(err, SAT_VALUE, "between bytes and text only ASCII is converted");
        store_bits(out + i * (to->kind == 'S' ? 1 : 4), code, to->kind == 'S' ? 1 : 4, to->swapped);
    }
    return SAT_OK;
}

sat_status sat_nd_cast(const sat_ndarray *nd, const sat_dtype *to, uint8_t *out, sat_error *err)
{
    const sat_dtype *from = nd->type;
    sat_nd_walk walk;
    size_t offset;
    int64_t n;
    unit_ratio ratio = {1, 1};
    char how;

    if (sat_dtype_same(from, to)) {
        sat_nd_pack(nd, out);
        return SAT_OK;
    }
    if (is_time(from) && from->kind == to->kind) {
        sat_status status = ratio_of_units(from, to, &ratio, err);
        if (status != SAT_OK) return status;
        how = 't';
    } else if ((is_number(from) && is_number(to)) || (is_time(from) && (to->kind == 'i' || to->kind == 'u')) ||
               ((from->kind == 'i' || from->kind == 'u') && is_time(to))) {
        how = 'n';
    } else if (is_text(from) && is_text(to)) {
        how = 's';
    } else {
        char a[SAT_DTYPE_TEXT], b[SAT_DTYPE_TEXT];
        sat_dtype_name(from, a, sizeof a);
        sat_dtype_name(to, b, sizeof b);
        return sat_fail(err, SAT_VALUE, "an array of %s cannot be converted to %s", a, b);
    }
    sat_nd_walk_begin(&walk, nd, false);
    while ((n = sat_nd_walk_next(&walk, INT64_MAX, &offset)) > 0) {
        for (int64_t i = 0; i < n; i++, out += to->itemsize) {
            const uint8_t *p = nd->base + moved(offset, i, walk.stride);
            sat_status status;
            sat_cell cell;
            if (how == 'n') {
                status = sat_cell_load(from, p, &cell, err);
                if (status == SAT_OK) status = sat_cell_store(to, out, &cell, true, err);
            } else {
                status = how == 't' ? cast_time(from, p, to, out, ratio, err) : cast_text(from, p, to, out, err);
            }
            if (status != SAT_OK) return status;
        }
    }
    return SAT_OK;
}

/* ---- equality ---- */

static bool cells_equal(const sat_cell *a, const sat_cell *b)
{
    bool a_real = a->kind == 'f' || a->kind == 'c';
    bool b_real = b->kind == 'f' || b->kind == 'c';
    if (!a_real && !b_real) {
        if ((a->kind == 'u') == (b->kind == 'u')) return a->kind == 'u' ? a->u == b->u : a->i == b->i;
        int64_t i = a->kind == 'u' ? b->i : a->i;
        uint64_t u = a->kind == 'u' ? a->u : b->u;
        return i >= 0 && (uint64_t)i == u;
    }
    double x = a_real ? a->f : a->kind == 'u' ? (double)a->u : (double)a->i;
    double y = b_real ? b->f : b->kind == 'u' ? (double)b->u : (double)b->i;
    return x == y && (a->kind == 'c' ? a->im : 0.0) == (b->kind == 'c' ? b->im : 0.0);
}

static bool comparable(const sat_dtype *a, const sat_dtype *b)
{
    if (sat_dtype_is_record(a) || sat_dtype_is_record(b) || a->kind == 'V' || b->kind == 'V' || a->opaque || b->opaque)
        return sat_dtype_same(a, b);
    if (is_time(a) || is_time(b)) return a->kind == b->kind && strcmp(a->unit, b->unit) == 0;
    if (is_text(a) || is_text(b)) return a->kind == b->kind;
    return is_number(a) && is_number(b);
}

static bool items_equal(const sat_dtype *a, const uint8_t *p, const sat_dtype *b, const uint8_t *q)
{
    if (sat_dtype_is_record(a)) { /* b is the same; as deep as SAT_DTYPE_MAX_DEPTH */
        for (size_t i = 0; i < a->nfields; i++) {
            const sat_field *field = &a->fields[i];
            for (size_t j = 0; j < field->count; j++) {
                size_t at = field->offset + j * field->type->itemsize;
                if (!items_equal(field->type, p + at, field->type, q + at)) return false;
            }
        }
        return true;
    }
    if (is_text(a)) {
        size_t n = sat_text_len(a, p);
        if (n != sat_text_len(b, q)) return false;
        for (size_t i = 0; i < n; i++) {
            if (sat_text_at(a, p, i) != sat_text_at(b, q, i)) return false;
        }
        return true;
    }
    if (a->kind == 'V' || a->opaque) return memcmp(p, q, a->itemsize) == 0;
    sat_cell x, y;
    if (sat_cell_load(a, p, &x, NULL) != SAT_OK || sat_cell_load(b, q, &y, NULL) != SAT_OK) return false;
    return cells_equal(&x, &y) && !(is_time(a) && x.i == SAT_NAT);
}

bool sat_nd_equal(const sat_ndarray *a, const sat_ndarray *b)
{
    if (a->ndim != b->ndim || !comparable(a->type, b->type)) return false;
    for (int i = 0; i < a->ndim; i++) {
        if (a->shape[i] != b->shape[i]) return false;
    }
    bool by_bytes = sat_dtype_same(a->type, b->type) && strchr("biu", a->type->kind) != NULL && a->type->kind != 'b';
    size_t size = a->type->itemsize;
    sat_nd_walk wa, wb;
    size_t p = 0, q = 0;
    int64_t in_a = 0, in_b = 0;
    sat_nd_walk_begin(&wa, a, false);
    sat_nd_walk_begin(&wb, b, false);
    for (int64_t left = a->size; left > 0;) {
        if (in_a == 0) in_a = sat_nd_walk_next(&wa, INT64_MAX, &p);
        if (in_b == 0) in_b = sat_nd_walk_next(&wb, INT64_MAX, &q);
        int64_t n = in_a < in_b ? in_a : in_b;
        if (n <= 0) return false; /* both have a->size elements: not reached */
        if (by_bytes && wa.stride == (int64_t)size && wb.stride == (int64_t)size) {
            if (memcmp(a->base + p, b->base + q, (size_t)n * size) != 0) return false;
        } else {
            for (int64_t i = 0; i < n; i++) {
                if (!items_equal(a->type, a->base + moved(p, i, wa.stride), b->type, b->base + moved(q, i, wb.stride)))
                    return false;
            }
        }
        p = moved(p, n, wa.stride);
        q = moved(q, n, wb.stride);
        in_a -= n;
        in_b -= n;
        left -= n;
    }
    return true;
}

/* ---- reductions ---- */

/* n numbers from p on as doubles or as integers (64 unsigned bits as the same bits). */
static void load_doubles(const sat_dtype *type, const uint8_t *p, int64_t stride, int64_t n, double *out)
{
    size_t size = type->kind == 'c' ? type->itemsize / 2 : type->itemsize;
    if (size == 8 && !type->swapped) {
        copy_run(p, stride, n, 8, (uint8_t *)out);
    } else if (size == 4 && !type->swapped) {
        for (int64_t i = 0; i < n; i++) {
            float value;
            memcpy(&value, p + i * stride, sizeof value);
            out[i] = (double)value;
        }
    } else {
        for (int64_t i = 0; i < n; i++) out[i] = load_float(p + i * stride, size, type->swapped);
    }
}

static void load_ints(const sat_dtype *type, const uint8_t *p, int64_t stride, int64_t n, int64_t *out)
{
    if (type->itemsize == 8 && !type->swapped) {
        copy_run(p, stride, n, 8, (uint8_t *)out);
    } else if (type->kind == 'b') {
        for (int64_t i = 0; i < n; i++) out[i] = p[i * stride] != 0;
    } else if (type->kind == 'i' && type->itemsize == 4 && !type->swapped) {
        for (int64_t i = 0; i < n; i++) {
            int32_t value;
            memcpy(&value, p + i * stride, sizeof value);
            out[i] = value;
        }
    } else {
        for (int64_t i = 0; i < n; i++) out[i] = load_int(type, p + i * stride);
    }
}

/* A sum in pairs: the error grows with log n. */
static double sum_pairwise(const double *v, size_t n)
{
    if (n > 128) {
        size_t half = n / 2 & ~(size_t)7;
        return sum_pairwise(v, half) + sum_pairwise(v + half, n - half); /* at most 4 deep for a chunk */
    }
    double acc[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (size_t j = 0; j < 8; j++) acc[j] += v[i + j];
    }
    double sum = ((acc[0] + acc[1]) + (acc[2] + acc[3])) + ((acc[4] + acc[5]) + (acc[6] + acc[7]));
    for (; i < n; i++) sum += v[i];
    return sum;
}

typedef struct pair_sum {
    double level[64];
    uint64_t count;
} pair_sum;

static void pair_sum_add(pair_sum *sum, double value)
{
    uint64_t full = sum->count++;
    int i = 0;
    for (; full & 1; full >>= 1) value += sum->level[i++];
    sum->level[i] = value;
}

static double pair_sum_total(const pair_sum *sum)
{
    double total = 0;
    uint64_t count = sum->count;
    for (int i = 0; count != 0; i++, count >>= 1) {
        if (count & 1) total += sum->level[i];
    }
    return total;
}

static double sum_floats(const sat_ndarray *nd, size_t part)
{
    double chunk[CHUNK];
    pair_sum sum = {.count = 0};
    size_t offset;
    int64_t filled = 0, n;
    sat_nd_walk walk;
    sat_nd_walk_begin(&walk, nd, true);
    while ((n = sat_nd_walk_next(&walk, CHUNK - filled, &offset)) > 0) {
        load_doubles(nd->type, nd->base + offset + part, walk.stride, n, chunk + filled);
        filled += n;
        if (filled < CHUNK) continue;
        pair_sum_add(&sum, sum_pairwise(chunk, CHUNK));
        filled = 0;
    }
    /* the rest is small and comes first, as the levels do */
    return sum_pairwise(chunk, (size_t)filled) + pair_sum_total(&sum);
}

/* A sum of 64-bit integers in 128 bits: high * 2^64 + low. */
typedef struct wide_sum {
    uint64_t low;
    int64_t high;
    bool nat;
} wide_sum;

static wide_sum sum_ints(const sat_ndarray *nd)
{
    int64_t chunk[CHUNK];
    wide_sum sum = {0, 0, false};
    bool is_unsigned = nd->type->kind == 'u';
    bool wide = nd->type->itemsize == 8;
    bool time = is_time(nd->type);
    size_t offset;
    int64_t n;
    sat_nd_walk walk;
    sat_nd_walk_begin(&walk, nd, true);
    while ((n = sat_nd_walk_next(&walk, CHUNK, &offset)) > 0) {
        load_ints(nd->type, nd->base + offset, walk.stride, n, chunk);
        if (!wide) { /* CHUNK numbers of 32 bits fit */
            int64_t small = 0;
            for (int64_t i = 0; i < n; i++) small += chunk[i];
            chunk[0] = small;
            n = 1;
        }
        for (int64_t i = 0; i < n; i++) {
            uint64_t value = (uint64_t)chunk[i];
            if (time && chunk[i] == SAT_NAT) sum.nat = true;
            sum.low += value;
            sum.high += (sum.low < value) - (chunk[i] < 0 && !is_unsigned);
        }
    }
    return sum;
}

static sat_status check_reducible(const sat_ndarray *nd, const char *what, const char *kinds, sat_error *err)
{
    if (nd->type->opaque || strchr(kinds, nd->type->kind) == NULL) return refuse_kind(nd->type, what, err);
    return SAT_OK;
}

sat_status sat_nd_sum(const sat_ndarray *nd, sat_cell *out, sat_error *err)
{
    sat_status status = check_reducible(nd, "the sum", "biufcm", err);
    if (status != SAT_OK) return status;
    *out = (sat_cell){.kind = nd->type->kind};
    if (nd->type->kind == 'f' || nd->type->kind == 'c') {
        out->f = sum_floats(nd, 0);
        if (nd->type->kind == 'c') out->im = sum_floats(nd, nd->type->itemsize / 2);
        return SAT_OK;
    }
    wide_sum sum = sum_ints(nd);
    if (nd->type->kind != 'u') out->kind = 'i';
    out->u = sum.low;
    out->i = sum.nat ? SAT_NAT : as_signed(sum.low);
    return SAT_OK;
}

sat_status sat_nd_mean(const sat_ndarray *nd, sat_cell *out, sat_error *err)
{
    sat_status status = check_reducible(nd, "the mean", "biufcm", err);
    if (status != SAT_OK) return status;
    static const double TWO64 = 18446744073709551616.0;
    double count = (double)nd->size;
    double nan = 0;
    uint64_t nan_bits = UINT64_C(0x7FF8000000000000);
    memcpy(&nan, &nan_bits, sizeof nan);
    *out = (sat_cell){.kind = nd->type->kind == 'c' ? 'c' : 'f', .f = nan, .im = nan};
    if (nd->size == 0) return SAT_OK;
    if (nd->type->kind == 'f' || nd->type->kind == 'c') {
        out->f = sum_floats(nd, 0) / count;
        if (nd->type->kind == 'c') out->im = sum_floats(nd, nd->type->itemsize / 2) / count;
        return SAT_OK;
    }
    wide_sum sum = sum_ints(nd);
    if (sum.nat) return SAT_OK;
    /* the negative as the positive, so that no digits are lost between the halves */
    bool negative = sum.high < 0;
    uint64_t low = negative ? 0 - sum.low : sum.low;
    uint64_t high = negative ? ~(uint64_t)sum.high + (sum.low == 0) : (uint64_t)sum.high;
    double total = (double)high * TWO64 + (double)low;
    out->f = (negative ? -total : total) / count;
    return SAT_OK;
}

sat_status sat_nd_extreme(const sat_ndarray *nd, bool greatest, sat_cell *out, sat_error *err)
{
    const char *what = greatest ? "the maximum" : "the minimum";
    sat_status status = check_reducible(nd, what, "biufMm", err);
    if (status != SAT_OK) return status;
    if (nd->size == 0) return sat_fail(err, SAT_VALUE, "%s of an empty array", what);

    union {
        double f[CHUNK];
        int64_t i[CHUNK];
    } chunk;
    bool real = nd->type->kind == 'f';
    bool first = true;
    double best_f = 0;
    int64_t best = 0;
    /* unsigned numbers compare like signed ones with the top bit turned */
    uint64_t turn = nd->type->kind == 'u' && nd->type->itemsize == 8 ? UINT64_C(1) << 63 : 0;
    size_t offset;
    int64_t n;
    sat_nd_walk walk;
    sat_nd_walk_begin(&walk, nd, true);
    while ((n = sat_nd_walk_next(&walk, CHUNK, &offset)) > 0) {
        const uint8_t *p = nd->base + offset;
        if (real) {
            load_doubles(nd->type, p, walk.stride, n, chunk.f);
            if (first) best_f = chunk.f[0];
            double best_here = best_f;
            bool nan = false;
            for (int64_t i = 0; i < n; i++) {
                double v = chunk.f[i];
                nan |= v != v;
                if (greatest ? v > best_here : v < best_here) best_here = v;
            }
            best_f = best_here;
            if (nan) { /* NaN wins, as in NumPy */
                for (int64_t i = 0; i < n; i++) {
                    if (chunk.f[i] != chunk.f[i]) best_f = chunk.f[i];
                }
                break;
            }
        } else {
            load_ints(nd->type, p, walk.stride, n, chunk.i);
            if (turn != 0) {
                for (int64_t i = 0; i < n; i++) chunk.i[i] = as_signed((uint64_t)chunk.i[i] ^ turn);
            }
            int64_t low = chunk.i[0], high = chunk.i[0];
            for (int64_t i = 1; i < n; i++) {
                low = chunk.i[i] < low ? chunk.i[i] : low;
                high = chunk.i[i] > high ? chunk.i[i] : high;
            }
            if (is_time(nd->type) && low == SAT_NAT) { /* and so does not-a-time */
                best = low;
                break;
            }
            int64_t here = greatest ? high : low;
            if (first || (greatest ? here > best : here < best)) best = here;
        }
        first = false;
    }
    *out = (sat_cell){.kind = is_time(nd->type) ? 'i' : nd->type->kind, .f = best_f};
    out->u = (uint64_t)best ^ turn;
    out->i = best;
    return SAT_OK;
}
