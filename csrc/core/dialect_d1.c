/* Dask 2023.4 to 2025.3: a pickled HighLevelGraph of one layer. Its tasks are tuples (D1, to 2024.11) or, since those
 * are converted without looking into dictionaries, Task objects (D1b, from 2024.12 on). */
#include "dialect_task.h"
#include "graph.h"

static void begin(sat_graph *graph)
{
    sat_pickler *pickle = &graph->pickle;
    sat_pickle_proto(pickle);
    sat_pickle_global(pickle, "distributed.protocol.serialize", "ToPickle");
    sat_pickle_global(pickle, "dask.highlevelgraph", "HighLevelGraph");
    sat_pickle_empty_dict(pickle);
    sat_pickle_str_memo(pickle, "saturn", 6);
    sat_pickle_empty_dict(pickle);
    sat_pickle_mark(pickle);
}

/* (function, argument, ...) or, with keyword arguments, (apply, function, [argument, ...], {name: value}) */
static void open(sat_graph *graph, const sat_task *task)
{
    sat_pickler *pickle = &graph->pickle;
    sat_pickle_msgpack(pickle, task->key);
    sat_pickle_mark(pickle);
    if (task->has_kwargs) sat_pickle_global(pickle, "dask.utils", "apply");
    sat_pickle_global(pickle, task->module, task->name);
    if (task->has_kwargs) {
        sat_pickle_empty_list(pickle);
        sat_pickle_mark(pickle);
    }
}

static void kwargs(sat_graph *graph, const sat_task *task)
{
    (void)task;
    sat_pickle_appends(&graph->pickle);
    sat_pickle_empty_dict(&graph->pickle);
    sat_pickle_mark(&graph->pickle);
}

static void close(sat_graph *graph, const sat_task *task)
{
    if (task->has_kwargs) sat_pickle_setitems(&graph->pickle);
    sat_pickle_tuple_mark(&graph->pickle);
}

static void ref(sat_graph *graph, sat_slice key)
{
    sat_pickle_global(&graph->pickle, "distributed.utils_comm", "WrappedKey");
    sat_pickle_msgpack(&graph->pickle, key);
    sat_pickle_tuple(&graph->pickle, 1);
    sat_pickle_reduce(&graph->pickle);
}

static void finish_pickle(sat_pickler *pickle)
{
    sat_pickle_setitems(pickle);
    sat_pickle_setitem(pickle);
    sat_pickle_empty_dict(pickle);
    sat_pickle_str_memo(pickle, "saturn", 6);
    sat_pickle_global(pickle, "builtins", "set");
    sat_pickle_tuple(pickle, 0);
    sat_pickle_reduce(pickle);
    sat_pickle_setitem(pickle);
    sat_pickle_tuple(pickle, 2);
    sat_pickle_reduce(pickle);
    sat_pickle_tuple(pickle, 1);
    sat_pickle_reduce(pickle);
    sat_pickle_stop(pickle);
}

static sat_status message(sat_graph *graph, sat_outgoing *out, sat_error *err)
{
    msgpack_packer packer;
    finish_pickle(&graph->pickle);
    sat_status status = sat_pickler_status(&graph->pickle, err);
    if (status != SAT_OK) return status;
    status = sat_graph_fields(graph, out, 2, &packer, err);
    sat_mp_pack_text(&packer, "graph_header");
    msgpack_pack_map(&packer, 2);
    sat_mp_pack_text(&packer, "serializer");
    sat_mp_pack_text(&packer, "pickle");
    sat_mp_pack_text(&packer, "writeable");
    msgpack_pack_array(&packer, 0);
    sat_mp_pack_text(&packer, "graph_frames");
    msgpack_pack_array(&packer, 1);
    sat_mp_pack_bin(&packer, graph->pickle.out.data, graph->pickle.out.len);
    return status;
}

const sat_dialect sat_dialect_d1 = {"d1", false, begin, open, kwargs, close, ref, message};
const sat_dialect sat_dialect_d1b = {
    "d1b", true, begin, sat_task_open, sat_task_kwargs, sat_task_close, sat_task_ref, message};
