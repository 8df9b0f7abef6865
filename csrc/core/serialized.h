/* Serialized values inside a message: the sub-header that describes one, and its frames made whole (decompressed,
 * and joined where the sender split them). */
#ifndef SATURN_SERIALIZED_H
#define SATURN_SERIALIZED_H

#include "frame.h"

/* A parsed sub-header. Slices point into the message; the msgpack ones are one value each, len 0 when absent. */
typedef struct sat_header {
    sat_slice serializer;      /* text: "pickle", "dask", "msgpack", "error" */
    sat_slice type;            /* text: "numpy.ndarray", "bytes", ... */
    sat_slice collection;      /* text: "list", "tuple", "set", "dict"; only of a collection */
    sat_slice sub_header;      /* msgpack map: what the type's own deserializer reads */
    sat_slice compression;     /* msgpack list */
    sat_slice split_counts;    /* msgpack list */
    sat_slice split_offsets;   /* msgpack list */
    sat_slice frame_lengths;   /* msgpack list: frames of each item of a collection */
    sat_slice sub_headers;     /* msgpack list of maps: one an item */
    sat_slice key;             /* msgpack value: an item's key in a dict */
    size_t frames;             /* that follow in the message */
    bool is_collection;
} sat_header;

/* Reads one msgpack map from *scan. */
struct sat_mp;
sat_status sat_header_read(struct sat_mp *scan, sat_header *header, sat_error *err);

/* Frames made whole; each holds one reference to its block. */
typedef struct sat_frame_list {
    sat_slice *items;
    size_t count;
} sat_frame_list;

/* The frames of the value whose sub-header is frame `index` of the message. On failure *list is empty. */
sat_status sat_header_frames(const sat_header *header, const sat_message *message, size_t index,
                             const sat_limits *limits, sat_frame_list *list, sat_error *err);
void sat_frame_list_free(sat_frame_list *list);

bool sat_slice_is(sat_slice slice, const char *text);

#endif
