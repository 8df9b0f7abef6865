/* Decompression of single frames. Nothing is allocated before the announced size was checked against the limit, and
 * what comes out must have just that size. */
#ifndef SATURN_COMPRESS_H
#define SATURN_COMPRESS_H

#include "buf.h"
#include "limits.h"
#include "status.h"

/* name: "lz4", "zstd", "snappy" or "zlib". *out is a new block with one owner. */
sat_status sat_decompress(const char *name, size_t name_len, sat_slice frame, const sat_limits *limits, sat_block **out,
                          sat_error *err);

#endif
