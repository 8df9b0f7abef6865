/* Tasks as dask._task_spec objects, which D1b and D2 share. */
#ifndef SATURN_DIALECT_TASK_H
#define SATURN_DIALECT_TASK_H

#include "graph.h"

void sat_task_open(sat_graph *graph, const sat_task *task);
void sat_task_kwargs(sat_graph *graph, const sat_task *task);
void sat_task_close(sat_graph *graph, const sat_task *task);
void sat_task_ref(sat_graph *graph, sat_slice key);

#endif
