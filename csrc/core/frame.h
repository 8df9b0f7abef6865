/* Dask's framing. A message is a list of frames:
 *
 *   u64 total (not reliable since 2023.11, ignored) · u64 N · N × u64 length · the N frames      all little endian
 *
 * The reader is pure: it says where the next bytes go (sat_frames_room) and is told how many came
 * (sat_frames_fill), so that a large frame is received into the memory that the array made of it will own. */
#ifndef SATURN_FRAME_H
#define SATURN_FRAME_H

#include "buf.h"
#include "limits.h"
#include "status.h"

/* One received message; shared by whoever reads values out of it. All frames lie in one block, in order. */
typedef struct sat_message {
    size_t refs;
    sat_block *block;
    size_t count;
    sat_slice *frames; /* each borrows `block` */
} sat_message;

sat_message *sat_message_retain(sat_message *message);
void sat_message_release(sat_message *message); /* NULL is fine */

typedef struct sat_frame_reader {
    sat_limits limits;
    int state;
    uint8_t head[16];
    size_t have;       /* bytes of the part being read */
    uint64_t count;    /* announced frames */
    sat_buf lengths;   /* the length table, as received */
    size_t total;      /* bytes of all frames */
    uint8_t *body;     /* grows with what has arrived */
    size_t capacity;
    sat_message *ready;
} sat_frame_reader;

void sat_frames_init(sat_frame_reader *reader, const sat_limits *limits);
void sat_frames_free(sat_frame_reader *reader);

/* Room for the next bytes: *dst, and how many may be put there (> 0). 0 when out of memory. */
size_t sat_frames_room(sat_frame_reader *reader, uint8_t **dst);

/* `n` bytes were put into the room. SAT_OK: a message is ready for sat_frames_take; SAT_AGAIN: more bytes are needed. */
sat_status sat_frames_fill(sat_frame_reader *reader, size_t n, sat_error *err);

/* Copies bytes in until one message is ready or the bytes are used up; *used tells how many were taken. */
sat_status sat_frames_feed(sat_frame_reader *reader, const uint8_t *data, size_t len, size_t *used, sat_error *err);

/* The ready message (the caller owns one reference); NULL when there is none. */
sat_message *sat_frames_take(sat_frame_reader *reader);

/* A message being made: frame 0 (msgpack) in `head`, the others behind it. */
typedef struct sat_outgoing {
    sat_buf head;
    sat_slice *frames; /* frames 1.. ; each holds one reference to its block */
    size_t count;
    size_t capacity;
} sat_outgoing;

void sat_outgoing_init(sat_outgoing *out);
void sat_outgoing_free(sat_outgoing *out);
/* Adds a frame and retains its block; returns its index in the message, 0 when out of memory. */
size_t sat_outgoing_frame(sat_outgoing *out, sat_slice frame);
/* Adds a copy of the bytes as a frame. */
size_t sat_outgoing_copy(sat_outgoing *out, const void *data, size_t len);
/* Appends the length table of the message (all that stands before frame 0). */
void sat_outgoing_prelude(const sat_outgoing *out, sat_buf *prelude);

#endif
