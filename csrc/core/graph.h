/* Tasks → one update-graph message, in the form that the scheduler's release understands.
 *
 * A graph is filled task by task: sat_graph_task_begin, then each positional argument is pickled straight into
 * sat_graph_pickler, then (when there are any) sat_graph_kwargs and for each one its name and value, then
 * sat_graph_task_end. A reference to another task's result is written with sat_graph_ref wherever its value should
 * stand. What differs by release is in one table of functions each (dialect_*.c). */
#ifndef SATURN_GRAPH_H
#define SATURN_GRAPH_H

#include "frame.h"
#include "msgpack.h"
#include "pickle.h"

typedef struct sat_graph sat_graph;

/* One task. Texts are borrowed for the call. */
typedef struct sat_task {
    sat_slice key; /* msgpack of the key, usually a str */
    const char *module;
    const char *name;
    const char *source; /* Python text that defines `name`, or NULL: `name` is imported from `module` */
    size_t source_len;
    bool has_kwargs;
    bool has_refs; /* an argument holds a reference at some depth */
} sat_task;

typedef struct sat_dialect {
    const char *name;
    bool wraps; /* containers that hold references are written as dask._task_spec containers */
    void (*begin)(sat_graph *graph);
    void (*open)(sat_graph *graph, const sat_task *task);      /* up to the first argument */
    void (*kwargs)(sat_graph *graph, const sat_task *task);    /* between the arguments and the keyword arguments */
    void (*close)(sat_graph *graph, const sat_task *task);     /* behind the last */
    void (*ref)(sat_graph *graph, sat_slice key);
    sat_status (*message)(sat_graph *graph, sat_outgoing *out, sat_error *err); /* one op map to out->head */
} sat_dialect;

extern const sat_dialect sat_dialect_d0;  /* to 2023.3: each task pickled by itself in msgpack */
extern const sat_dialect sat_dialect_d1;  /* 2023.4 on: a pickled HighLevelGraph of tuples */
extern const sat_dialect sat_dialect_d1b; /* 2024.12 on: the same with Task objects */
extern const sat_dialect sat_dialect_d2;  /* 2025.4 on: a pickled expression of Task objects */

/* A release as year, month, patch in one number: 2024.12.1 → 20241201. */
typedef unsigned long sat_release;
const sat_dialect *sat_dialect_of(sat_release release);

struct sat_graph {
    const sat_dialect *dialect;
    sat_release release;
    sat_pickler pickle;
    size_t tasks;       /* how many */
    sat_buf task_map;   /* D0: msgpack pairs key → task */
    sat_buf deps_map;   /* D0: msgpack pairs key → set of keys */
    sat_buf deps;       /* D0: msgpack keys the current task depends on */
    size_t dep_count;
    sat_buf args;       /* D0: the finished pickle of the current task's arguments */
    sat_buf keys;       /* msgpack keys of all tasks, in order */
    sat_buf wanted;     /* msgpack keys the client wants */
    size_t wanted_count;
    sat_buf annotations; /* msgpack pairs name → value */
    size_t annotation_count;
    const char *fifo_timeout; /* static text */
    bool actors;
    bool failed;
};

void sat_graph_init(sat_graph *graph, sat_release release);
void sat_graph_free(sat_graph *graph);

sat_pickler *sat_graph_pickler(sat_graph *graph);
void sat_graph_task_begin(sat_graph *graph, const sat_task *task);
void sat_graph_kwargs(sat_graph *graph, const sat_task *task);
void sat_graph_task_end(sat_graph *graph, const sat_task *task);
void sat_graph_ref(sat_graph *graph, sat_slice key);

/* The containers of dialects that wrap: kind is 'l', 't', 's' or 'd'. */
void sat_graph_wrap_begin(sat_pickler *pickle, char kind);
void sat_graph_wrap_end(sat_pickler *pickle, char kind);

void sat_graph_want(sat_graph *graph, sat_slice key);
/* value is one msgpack value; applies to all tasks of the graph. */
void sat_graph_annotate(sat_graph *graph, const char *name, sat_slice value);

/* Appends the op to out->head and its frames to out; the graph is used up. */
sat_status sat_graph_message(sat_graph *graph, sat_outgoing *out, sat_error *err);

/* Writes a msgpack value as a pickle (arrays as tuples, which is what keys and annotations want). */
void sat_pickle_msgpack(sat_pickler *pickle, sat_slice value);

/* For the dialects after D0: begins the op with the fields that their forms share; the dialect appends `own` more. What
 * the scheduler has a default for is left out, since each field that it unpickles costs it time. */
sat_status sat_graph_fields(sat_graph *graph, sat_outgoing *out, size_t own, msgpack_packer *packer, sat_error *err);

#endif
