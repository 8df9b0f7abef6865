/* Files of arrays: NumPy's .npy format, and the bytes of a file as a block, read or mapped. */
#ifndef SATURN_NPY_H
#define SATURN_NPY_H

#include "ndarray.h"

typedef struct sat_npy {
    sat_dtype *type; /* the caller releases it */
    int ndim;
    int64_t shape[SAT_ND_MAX_DIMS];
    bool fortran;
    size_t data; /* where the elements begin */
} sat_npy;

/* True when the bytes begin as an .npy file does. */
bool sat_npy_is(const uint8_t *bytes, size_t len);

/* Reads the header (versions 1 to 3) of a whole file in memory; that the elements are there is for sat_nd_layout to
 * see. On failure nothing is to be released. */
sat_status sat_npy_parse(const uint8_t *bytes, size_t len, sat_npy *out, sat_error *err);

/* Appends the header of an array. */
sat_status sat_npy_header(const sat_dtype *type, int ndim, const int64_t *shape, bool fortran, sat_buf *out,
                          sat_error *err);

/* Writes the array to a new file, in F order when it lies so. */
sat_status sat_npy_save(const char *path, const sat_ndarray *nd, sat_error *err);

/* The whole file as a block of one owner. Mapped: read-only, or shared with the file ('+'), or private ('c'); a
 * mapped file must not be made shorter while the block lives. */
sat_status sat_file_read(const char *path, sat_block **out, sat_error *err);
sat_status sat_file_map(const char *path, char mode, sat_block **out, sat_error *err);

#endif
