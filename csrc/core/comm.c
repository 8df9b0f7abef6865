#include "comm.h"

#include <stdlib.h>
#include <string.h>

#include "msgpack.h"

enum { SCRATCH = 1 << 16, DIRECT = 1 << 15, ROUND_BYTES = 16 << 20, JOIN = 1 << 16 };

typedef struct piece {
    sat_slice slice; /* holds one reference */
} piece;

struct sat_comm {
    sat_stream *stream;
    sat_frame_reader reader;
    sat_comm_handler handler;
    sat_buf queue; /* of piece, [first, count) not sent yet */
    size_t first;
    size_t offset; /* sent bytes of the first piece */
    bool greeted;  /* the server's handshake came */
    bool busy; /* inside a callback: free is put off */
    bool dead;
    bool news; /* since `ready` was called: a message came, or the handler was told that all has left */
    bool closed;
};

static size_t queue_count(const sat_comm *comm)
{
    return comm->queue.len / sizeof(piece);
}

static piece *queue_at(const sat_comm *comm, size_t i)
{
    return (piece *)(void *)comm->queue.data + i;
}

static void destroy(sat_comm *comm)
{
    for (size_t i = comm->first; i < queue_count(comm); i++) sat_block_release(queue_at(comm, i)->slice.block);
    sat_buf_free(&comm->queue);
    sat_frames_free(&comm->reader);
    sat_stream_free(comm->stream);
    free(comm);
}

static void fail(sat_comm *comm, const sat_error *why)
{
    if (comm->closed || comm->dead) return;
    comm->closed = true;
    comm->handler.closed(comm->handler.arg, why);
}

static sat_status queue_piece(sat_comm *comm, sat_slice slice)
{
    piece item = {slice};
    sat_buf_append(&comm->queue, &item, sizeof item);
    if (!comm->queue.failed) return SAT_OK;
    comm->queue.failed = false;
    sat_block_release(slice.block);
    return SAT_NOMEM;
}

/* Hands the memory of buf over to a piece. */
static sat_status queue_buf(sat_comm *comm, sat_buf *buf)
{
    if (buf->len == 0) return SAT_OK;
    sat_block *block = buf->failed ? NULL : sat_block_adopt(buf->data, buf->len, NULL, NULL);
    if (block == NULL) return SAT_NOMEM;
    sat_buf_init(buf);
    return queue_piece(comm, (sat_slice){block, block->data, block->len});
}

static sat_status queue_message(sat_comm *comm, sat_outgoing *out)
{
    sat_buf joined = SAT_BUF_INIT;
    sat_status status = SAT_OK;
    sat_outgoing_prelude(out, &joined);
    if (out->head.len > JOIN) {
        status = queue_buf(comm, &joined);
        if (status == SAT_OK) status = queue_buf(comm, &out->head);
    } else {
        sat_buf_append(&joined, out->head.data, out->head.len);
    }
    for (size_t i = 0; status == SAT_OK && i < out->count; i++) {
        sat_slice frame = out->frames[i];
        if (frame.len < JOIN) {
            sat_buf_append(&joined, frame.data, frame.len);
            continue;
        }
        status = queue_buf(comm, &joined);
        if (status != SAT_OK) break;
        sat_block_retain(frame.block);
        status = queue_piece(comm, frame);
    }
    if (status == SAT_OK) status = queue_buf(comm, &joined);
    sat_buf_free(&joined);
    return status;
}

static sat_status send_queue(sat_comm *comm, sat_error *err)
{
    while (comm->first < queue_count(comm)) {
        piece *item = queue_at(comm, comm->first);
        size_t sent = 0;
        sat_status status = sat_stream_send(comm->stream, item->slice.data + comm->offset,
                                            item->slice.len - comm->offset, &sent, err);
        if (status == SAT_AGAIN) return sat_stream_want_write(comm->stream, true, err);
        if (status != SAT_OK) return status;
        comm->offset += sent;
        if (comm->offset < item->slice.len) continue;
        sat_block_release(item->slice.block);
        comm->offset = 0;
        comm->first++;
    }
    if (comm->first > 0) {
        sat_buf_clear(&comm->queue);
        comm->first = 0;
        return sat_stream_want_write(comm->stream, false, err);
    }
    return SAT_OK;
}

/* The server's half of the handshake is a map; anything else is not Dask. */
static sat_status check_greeting(const sat_message *message, sat_error *err)
{
    sat_mp scan = {message->frames[0].data, message->frames[0].data + message->frames[0].len};
    sat_mp_token token;
    if (sat_mp_next(&scan, &token, NULL) == SAT_OK && token.type == SAT_MP_MAP) return SAT_OK;
    return sat_fail(err, SAT_PROTOCOL, "the first message is no map");
}

static sat_status take_message(sat_comm *comm, sat_error *err)
{
    comm->news = true;
    sat_message *message = sat_frames_take(&comm->reader);
    sat_status status = SAT_OK;
    if (comm->greeted) {
        comm->handler.message(comm->handler.arg, message);
    } else {
        status = check_greeting(message, err);
        comm->greeted = status == SAT_OK;
    }
    sat_message_release(message);
    return status;
}

static sat_status feed(sat_comm *comm, const uint8_t *data, size_t len, sat_error *err)
{
    while (len > 0 && !comm->dead) {
        size_t used = 0;
        sat_status status = sat_frames_feed(&comm->reader, data, len, &used, err);
        data += used;
        len -= used;
        if (status == SAT_OK) status = take_message(comm, err);
        if (status != SAT_OK && status != SAT_AGAIN) return status;
    }
    return SAT_OK;
}

/* SAT_AGAIN instead of SAT_OK when what came was all there is: it saves the read that would say so. */
static sat_status drained(const sat_comm *comm, size_t asked, size_t got)
{
    return !comm->dead && sat_stream_drained_by(comm->stream, asked, got) ? SAT_AGAIN : SAT_OK;
}

static sat_status receive_some(sat_comm *comm, size_t *got, sat_error *err)
{
    uint8_t scratch[SCRATCH];
    uint8_t *dst;
    size_t room = sat_frames_room(&comm->reader, &dst);
    if (room == 0) return sat_fail_nomem(err);
    if (room < DIRECT) {
        sat_status status = sat_stream_recv(comm->stream, scratch, sizeof scratch, got, err);
        if (status == SAT_OK) status = feed(comm, scratch, *got, err);
        return status == SAT_OK ? drained(comm, sizeof scratch, *got) : status;
    }
    sat_status status = sat_stream_recv(comm->stream, dst, room, got, err);
    if (status != SAT_OK) return status;
    status = sat_frames_fill(&comm->reader, *got, err);
    if (status == SAT_OK)
        status = take_message(comm, err);
    else if (status == SAT_AGAIN)
        status = SAT_OK;
    return status == SAT_OK ? drained(comm, room, *got) : status;
}

static sat_status end_of_stream(const sat_comm *comm, sat_error *err)
{
    bool middle = comm->reader.have > 0 || comm->reader.lengths.len > 0;
    if (middle) return sat_fail(err, SAT_CLOSED, "the peer closed the connection in the middle of a message");
    return sat_fail(err, SAT_CLOSED, "the peer closed the connection");
}

/* What goes wrong before the peer's first message does so for a reason that the user can mend. */
static void explain(const sat_comm *comm, sat_error *err)
{
    if (comm->greeted) return;
    if (err->status == SAT_CLOSED)
        (void)sat_fail(err, SAT_CLOSED, "%s closed the connection during the handshake: is it a Dask scheduler, and does the "
                                        "address say tcp or tls as it does?", sat_stream_name(comm->stream));
    if (err->status == SAT_PROTOCOL || err->status == SAT_LIMIT)
        (void)sat_fail(err, SAT_PROTOCOL, "%s does not speak Dask's protocol: is this the scheduler's port (not its "
                                          "dashboard's)?", sat_stream_name(comm->stream));
}

static sat_status receive(sat_comm *comm, sat_error *err)
{
    size_t total = 0;
    while (!comm->dead && total < ROUND_BYTES) {
        size_t got = 0;
        sat_status status = receive_some(comm, &got, err);
        if (status == SAT_AGAIN) return SAT_OK;
        if (status == SAT_EOF) return end_of_stream(comm, err);
        if (status != SAT_OK) return status;
        total += got;
    }
    if (!comm->dead) sat_stream_again(comm->stream); /* others get their turn */
    return SAT_OK;
}

static void ready(void *arg, int events)
{
    sat_comm *comm = arg;
    sat_error err = {SAT_OK, ""};
    if (comm->closed) return;
    comm->busy = true;
    comm->news = false;
    sat_status status = sat_stream_state(comm->stream, &err);
    if (status == SAT_OK && events & SAT_READ) status = receive(comm, &err);
    if (status == SAT_OK && !comm->dead) status = send_queue(comm, &err);
    if (status == SAT_OK && !comm->dead && sat_comm_idle(comm) && comm->handler.drained) {
        comm->news = true;
        comm->handler.drained(comm->handler.arg);
    }
    if (status != SAT_OK && status != SAT_AGAIN) {
        explain(comm, &err);
        fail(comm, &err);
    }
    comm->busy = false;
    if (status == SAT_OK && !comm->dead && !comm->news) sat_stream_quiet(comm->stream);
    if (comm->dead) destroy(comm);
}

static void pack_handshake(sat_buf *buf)
{
    msgpack_packer packer;
    sat_mp_packer(&packer, buf);
    msgpack_pack_map(&packer, 3);
    sat_mp_pack_text(&packer, "compression");
    msgpack_pack_nil(&packer);
    sat_mp_pack_text(&packer, "python");
    msgpack_pack_array(&packer, 3);
    msgpack_pack_int(&packer, 3);
    msgpack_pack_int(&packer, 9);
    msgpack_pack_int(&packer, 0);
    sat_mp_pack_text(&packer, "pickle-protocol");
    msgpack_pack_int(&packer, 5);
}

sat_comm *sat_comm_open(sat_reactor *reactor, const sat_endpoint *endpoint, const sat_limits *limits,
                        const sat_comm_handler *handler, sat_error *err)
{
    sat_outgoing hello;
    sat_comm *comm = calloc(1, sizeof *comm);
    if (comm == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    comm->handler = *handler;
    sat_frames_init(&comm->reader, limits);
    comm->stream = sat_stream_open(reactor, endpoint, ready, comm, err);
    if (comm->stream == NULL) {
        destroy(comm);
        return NULL;
    }
    sat_outgoing_init(&hello);
    pack_handshake(&hello.head);
    sat_status status = hello.head.failed ? SAT_NOMEM : queue_message(comm, &hello);
    sat_outgoing_free(&hello);
    if (status != SAT_OK) {
        sat_fail_nomem(err);
        destroy(comm);
        return NULL;
    }
    return comm;
}

void sat_comm_free(sat_comm *comm)
{
    if (comm == NULL || comm->dead) return;
    comm->dead = true;
    if (!comm->busy) destroy(comm);
}

sat_status sat_comm_send(sat_comm *comm, sat_outgoing *out, sat_error *err)
{
    sat_status status = SAT_OK;
    if (comm->closed)
        status = sat_fail(err, SAT_CLOSED, "the connection is closed");
    else if (out->head.failed || queue_message(comm, out) != SAT_OK)
        status = sat_fail_nomem(err);
    sat_outgoing_free(out);
    if (status == SAT_OK && sat_stream_state(comm->stream, NULL) == SAT_OK && send_queue(comm, NULL) != SAT_OK)
        sat_stream_again(comm->stream); /* broken: the reader meets the reason in the next round */
    return status;
}

bool sat_comm_connected(const sat_comm *comm)
{
    return comm->greeted;
}

bool sat_comm_idle(const sat_comm *comm)
{
    return comm->first == queue_count(comm) && sat_stream_state(comm->stream, NULL) == SAT_OK;
}

void sat_comm_wake(sat_comm *comm)
{
    if (!comm->closed && sat_stream_state(comm->stream, NULL) == SAT_OK) sat_stream_again(comm->stream);
}
