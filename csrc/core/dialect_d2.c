/* Dask 2025.4 on: a pickled LLGExpr that holds Task objects, all by reference to public constructors. */
#include "dialect_task.h"
#include "random.h"

static const char spec[] = "dask._task_spec";

/* key: Task(key, function, argument, ...). With keyword arguments, which REDUCE does not know, the call goes through
 * functools.partial, whose state (function, args, kwargs, dict) holds them. */
void sat_task_open(sat_graph *graph, const sat_task *task)
{
    sat_pickler *pickle = &graph->pickle;
    sat_pickle_msgpack(pickle, task->key);
    if (task->has_kwargs) {
        sat_pickle_global(pickle, "functools", "partial");
        sat_pickle_global(pickle, spec, "Task");
        sat_pickle_tuple(pickle, 1);
        sat_pickle_reduce(pickle);
        sat_pickle_mark(pickle);
    }
    sat_pickle_global(pickle, spec, "Task");
    sat_pickle_mark(pickle);
    sat_pickle_msgpack(pickle, task->key);
    sat_pickle_global(pickle, task->module, task->name);
}

void sat_task_kwargs(sat_graph *graph, const sat_task *task)
{
    (void)task;
    sat_pickle_tuple_mark(&graph->pickle);
    sat_pickle_empty_dict(&graph->pickle);
    sat_pickle_mark(&graph->pickle);
}

void sat_task_close(sat_graph *graph, const sat_task *task)
{
    sat_pickler *pickle = &graph->pickle;
    if (task->has_kwargs) {
        sat_pickle_setitems(pickle);
        sat_pickle_none(pickle);
        sat_pickle_tuple_mark(pickle);
        sat_pickle_build(pickle);
        sat_pickle_tuple(pickle, 0);
    } else {
        sat_pickle_tuple_mark(pickle);
    }
    sat_pickle_reduce(pickle);
}

void sat_task_ref(sat_graph *graph, sat_slice key)
{
    sat_pickle_global(&graph->pickle, spec, "TaskRef");
    sat_pickle_msgpack(&graph->pickle, key);
    sat_pickle_tuple(&graph->pickle, 1);
    sat_pickle_reduce(&graph->pickle);
}

static void begin(sat_graph *graph)
{
    sat_pickler *pickle = &graph->pickle;
    pickle->protocol = 5;
    pickle->oob = pickle->oob_copy = true; /* the scheduler passes buffers on as they are */
    sat_pickle_proto(pickle);
    sat_pickle_global(pickle, "dask._expr", "Expr._reconstruct");
    sat_pickle_mark(pickle);
    sat_pickle_global(pickle, "dask._expr", "LLGExpr");
    sat_pickle_empty_dict(pickle);
    sat_pickle_mark(pickle);
}

/* The expression's token; without one the scheduler hashes the whole graph. */
static void pickle_token(sat_graph *graph)
{
    char text[32];
    if (!sat_random_hex(text, sizeof text / 2)) graph->failed = true;
    sat_pickle_str(&graph->pickle, text, sizeof text);
}

static void finish_pickle(sat_graph *graph)
{
    sat_pickler *pickle = &graph->pickle;
    sat_pickle_setitems(pickle);
    pickle_token(graph);
    sat_pickle_empty_dict(pickle);
    sat_pickle_tuple_mark(pickle);
    sat_pickle_reduce(pickle);
    sat_pickle_stop(pickle);
}

/* The sub-header: of a pickle and so many buffers, all of which may be written to. */
static size_t add_header(size_t nbuffers, sat_outgoing *out)
{
    sat_buf header = SAT_BUF_INIT;
    msgpack_packer packer;
    sat_mp_packer(&packer, &header);
    msgpack_pack_map(&packer, 3);
    sat_mp_pack_text(&packer, "serializer");
    sat_mp_pack_text(&packer, "pickle");
    sat_mp_pack_text(&packer, "writeable");
    msgpack_pack_array(&packer, nbuffers);
    for (size_t i = 0; i < nbuffers; i++) msgpack_pack_true(&packer);
    sat_mp_pack_text(&packer, "num-sub-frames");
    msgpack_pack_uint64(&packer, nbuffers + 1);
    size_t index = header.failed ? 0 : sat_outgoing_copy(out, header.data, header.len);
    sat_buf_free(&header);
    return index;
}

/* Frame k: the sub-header; frame k + 1: the pickle, whose memory moves into the message; behind it its buffers. */
static size_t add_expression(sat_graph *graph, sat_outgoing *out)
{
    size_t index = add_header(graph->pickle.nbuffers, out);
    sat_buf *pickle = &graph->pickle.out;
    sat_block *block = index ? sat_block_adopt(pickle->data, pickle->len, NULL, NULL) : NULL;
    if (block == NULL) return 0;
    sat_buf_init(pickle);
    size_t next = sat_outgoing_frame(out, (sat_slice){block, block->data, block->len});
    sat_block_release(block);
    for (size_t i = 0; next && i < graph->pickle.nbuffers; i++) next = sat_outgoing_frame(out, graph->pickle.buffers[i]);
    return next ? index : 0;
}

static sat_status message(sat_graph *graph, sat_outgoing *out, sat_error *err)
{
    msgpack_packer packer;
    finish_pickle(graph);
    sat_status status = sat_pickler_status(&graph->pickle, err);
    if (status != SAT_OK) return status;
    size_t index = graph->failed ? 0 : add_expression(graph, out);
    if (index == 0) return sat_fail_nomem(err);
    status = sat_graph_fields(graph, out, 1, &packer, err);
    sat_mp_pack_text(&packer, "expr_ser");
    msgpack_pack_map(&packer, 1);
    sat_mp_pack_text(&packer, "__Serialized__");
    msgpack_pack_uint64(&packer, index);
    return status;
}

const sat_dialect sat_dialect_d2 = {
    "d2", true, begin, sat_task_open, sat_task_kwargs, sat_task_close, sat_task_ref, message};
