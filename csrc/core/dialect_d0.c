/* Dask to 2023.3: a msgpack map of tasks, function and arguments pickled one by one. A reference is the key itself,
 * which the worker replaces wherever a string equal to a dependency's key stands. */
#include "graph.h"

static void fragment_begin(sat_graph *graph)
{
    sat_pickler_reset(&graph->pickle);
    sat_pickle_proto(&graph->pickle);
}

static void fragment_end(sat_graph *graph, sat_buf *to, const char *field)
{
    msgpack_packer packer;
    sat_pickle_stop(&graph->pickle);
    sat_mp_packer(&packer, to);
    sat_mp_pack_text(&packer, field);
    sat_mp_pack_bin(&packer, graph->pickle.out.data, graph->pickle.out.len);
    if (sat_pickler_status(&graph->pickle, NULL) != SAT_OK) graph->failed = true;
}

static void begin(sat_graph *graph)
{
    (void)graph;
}

static void open(sat_graph *graph, const sat_task *task)
{
    sat_buf_clear(&graph->args);
    fragment_begin(graph);
    sat_pickle_global(&graph->pickle, task->module, task->name);
    fragment_end(graph, &graph->args, "function");
    fragment_begin(graph);
    sat_pickle_mark(&graph->pickle);
}

static void kwargs(sat_graph *graph, const sat_task *task)
{
    (void)task;
    sat_pickle_tuple_mark(&graph->pickle);
    fragment_end(graph, &graph->args, "args");
    fragment_begin(graph);
    sat_pickle_empty_dict(&graph->pickle);
    sat_pickle_mark(&graph->pickle);
}

static void close(sat_graph *graph, const sat_task *task)
{
    msgpack_packer packer;
    if (task->has_kwargs)
        sat_pickle_setitems(&graph->pickle);
    else
        sat_pickle_tuple_mark(&graph->pickle);
    fragment_end(graph, &graph->args, task->has_kwargs ? "kwargs" : "args");
    sat_buf_append(&graph->task_map, task->key.data, task->key.len);
    sat_mp_packer(&packer, &graph->task_map);
    msgpack_pack_map(&packer, task->has_kwargs ? 3 : 2);
    sat_buf_append(&graph->task_map, graph->args.data, graph->args.len);

    sat_buf_append(&graph->deps_map, task->key.data, task->key.len);
    sat_mp_packer(&packer, &graph->deps_map);
    sat_mp_pack_set(&packer, graph->dep_count);
    sat_buf_append(&graph->deps_map, graph->deps.data, graph->deps.len);
}

static void ref(sat_graph *graph, sat_slice key)
{
    sat_pickle_msgpack(&graph->pickle, key);
    sat_buf_append(&graph->deps, key.data, key.len);
    graph->dep_count++;
}

/* {name: {key: value for every task}} */
static void pack_annotations(const sat_graph *graph, sat_buf *head, msgpack_packer *packer)
{
    sat_mp scan = sat_mp_over(graph->annotations.data, graph->annotations.len);
    sat_mp_pack_text(packer, "annotations");
    msgpack_pack_map(packer, graph->annotation_count);
    for (size_t i = 0; i < graph->annotation_count; i++) {
        sat_slice name = {NULL, NULL, 0}, value = {NULL, NULL, 0}, key;
        (void)sat_mp_value(&scan, &name, NULL);
        (void)sat_mp_value(&scan, &value, NULL);
        sat_buf_append(head, name.data, name.len);
        msgpack_pack_map(packer, graph->tasks);
        sat_mp keys = sat_mp_over(graph->keys.data, graph->keys.len);
        while (sat_mp_value(&keys, &key, NULL) == SAT_OK) {
            sat_buf_append(head, key.data, key.len);
            sat_buf_append(head, value.data, value.len);
        }
    }
}

static sat_status message(sat_graph *graph, sat_outgoing *out, sat_error *err)
{
    msgpack_packer packer;
    (void)err;
    sat_mp_packer(&packer, &out->head);
    msgpack_pack_map(&packer, 10);
    sat_mp_pack_text(&packer, "op");
    sat_mp_pack_text(&packer, "update-graph");
    sat_mp_pack_text(&packer, "tasks");
    msgpack_pack_map(&packer, graph->tasks);
    sat_buf_append(&out->head, graph->task_map.data, graph->task_map.len);
    sat_mp_pack_text(&packer, "dependencies");
    msgpack_pack_map(&packer, graph->tasks);
    sat_buf_append(&out->head, graph->deps_map.data, graph->deps_map.len);
    sat_mp_pack_text(&packer, "keys");
    msgpack_pack_array(&packer, graph->wanted_count);
    sat_buf_append(&out->head, graph->wanted.data, graph->wanted.len);
    sat_mp_pack_text(&packer, "priority");
    msgpack_pack_nil(&packer);
    sat_mp_pack_text(&packer, "submitting_task");
    msgpack_pack_nil(&packer);
    sat_mp_pack_text(&packer, "fifo_timeout");
    sat_mp_pack_text(&packer, graph->fifo_timeout);
    sat_mp_pack_text(&packer, "actors");
    if (graph->actors)
        msgpack_pack_true(&packer);
    else
        msgpack_pack_nil(&packer);
    sat_mp_pack_text(&packer, "code");
    msgpack_pack_nil(&packer);
    pack_annotations(graph, &out->head, &packer);
    return SAT_OK;
}

const sat_dialect sat_dialect_d0 = {"d0", false, begin, open, kwargs, close, ref, message};
