#include "rpc.h"

#include <stdlib.h>
#include <string.h>

#include "msgpack.h"

/* A comm of the pool; in use while `call` is set. */
typedef struct line {
    sat_rpc *rpc; /* borrowed: lines die with their pool */
    sat_comm *comm;
    sat_call *call;
    struct line *next;
} line;

struct sat_rpc {
    size_t refs;
    sat_reactor *reactor;
    sat_endpoint endpoint;
    sat_limits limits;
    line *lines;
    bool closed;
};

struct sat_call {
    sat_rpc *rpc; /* one reference */
    line *line;   /* NULL when finished */
    sat_message *reply;
    sat_status state;
    sat_error failure;
    bool ack;
};

sat_rpc *sat_rpc_new(sat_reactor *reactor, const sat_endpoint *endpoint, const sat_limits *limits, sat_error *err)
{
    sat_rpc *rpc = calloc(1, sizeof *rpc);
    if (rpc == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    if (sat_endpoint_copy(&rpc->endpoint, endpoint, err) != SAT_OK) {
        free(rpc);
        return NULL;
    }
    rpc->refs = 1;
    rpc->reactor = sat_reactor_retain(reactor);
    rpc->limits = *limits;
    return rpc;
}

sat_rpc *sat_rpc_retain(sat_rpc *rpc)
{
    rpc->refs++;
    return rpc;
}

static void finish(sat_call *call, sat_status state, const sat_error *why)
{
    call->state = state;
    call->line = NULL;
    if (why) call->failure = *why;
}

static void drop_line(line *old)
{
    line **link = &old->rpc->lines;
    while (*link != old) link = &(*link)->next;
    *link = old->next;
    sat_comm_free(old->comm);
    free(old);
}

void sat_rpc_close(sat_rpc *rpc, const char *reason)
{
    sat_error why;
    (void)sat_fail(&why, SAT_CLOSED, "%s", reason);
    rpc->closed = true;
    while (rpc->lines) {
        if (rpc->lines->call) finish(rpc->lines->call, SAT_CLOSED, &why);
        drop_line(rpc->lines);
    }
}

void sat_rpc_release(sat_rpc *rpc)
{
    if (rpc == NULL || --rpc->refs > 0) return;
    sat_rpc_close(rpc, "the connection was closed");
    sat_endpoint_free(&rpc->endpoint);
    sat_reactor_release(rpc->reactor);
    free(rpc);
}

static sat_status send_ok(sat_comm *comm, sat_error *err)
{
    sat_outgoing out;
    msgpack_packer packer;
    sat_outgoing_init(&out);
    sat_mp_packer(&packer, &out.head);
    sat_mp_pack_text(&packer, "OK");
    return sat_comm_send(comm, &out, err);
}

static void on_message(void *arg, sat_message *message)
{
    line *from = arg;
    sat_call *call = from->call;
    if (call == NULL) { /* nobody asked: this peer is out of step */
        drop_line(from);
        return;
    }
    call->reply = sat_message_retain(message);
    finish(call, SAT_OK, NULL);
    from->call = NULL;
    if (call->ack && send_ok(from->comm, NULL) != SAT_OK) drop_line(from);
}

static void on_closed(void *arg, const sat_error *why)
{
    line *from = arg;
    if (from->call) finish(from->call, why->status, why);
    drop_line(from);
}

static line *open_line(sat_rpc *rpc, sat_error *err)
{
    line *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) {
        sat_fail_nomem(err);
        return NULL;
    }
    sat_comm_handler handler = {.message = on_message, .closed = on_closed, .arg = fresh};
    fresh->rpc = rpc;
    fresh->comm = sat_comm_open(rpc->reactor, &rpc->endpoint, &rpc->limits, &handler, err);
    if (fresh->comm == NULL) {
        free(fresh);
        return NULL;
    }
    fresh->next = rpc->lines;
    rpc->lines = fresh;
    return fresh;
}

static line *free_line(sat_rpc *rpc, sat_error *err)
{
    for (line *each = rpc->lines; each; each = each->next)
        if (each->call == NULL) return each;
    return open_line(rpc, err);
}

sat_call *sat_rpc_call(sat_rpc *rpc, sat_outgoing *request, bool ack, sat_error *err)
{
    sat_call *call = NULL;
    line *via = NULL;
    if (rpc->closed)
        sat_fail(err, SAT_CLOSED, "the connection was closed");
    else if ((call = calloc(1, sizeof *call)) == NULL)
        sat_fail_nomem(err);
    else
        via = free_line(rpc, err);
    if (via == NULL || sat_comm_send(via->comm, request, err) != SAT_OK) {
        sat_outgoing_free(request);
        free(call);
        return NULL;
    }
    call->rpc = sat_rpc_retain(rpc);
    call->line = via;
    call->state = SAT_AGAIN;
    call->ack = ack;
    via->call = call;
    return call;
}

sat_status sat_call_state(const sat_call *call, sat_error *err)
{
    if (call->state != SAT_OK && call->state != SAT_AGAIN && err) *err = call->failure;
    return call->state;
}

sat_message *sat_call_reply(const sat_call *call)
{
    return call->reply;
}

void sat_call_free(sat_call *call)
{
    if (call == NULL) return;
    if (call->line) drop_line(call->line);
    sat_message_release(call->reply);
    sat_rpc_release(call->rpc);
    free(call);
}
