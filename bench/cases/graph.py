# What Python's client of this release does before the bytes leave: the graph and its pickle.
import operator
import sys
import uuid
from time import perf_counter

import distributed
from distributed.protocol import dumps

N = int(sys.argv[2])
version = tuple(map(int, distributed.__version__.split("+")[0].split(".")[:3]))


def build():
    prefix = uuid.uuid4().hex[:24]
    keys = [f"add-{prefix}{i:08x}" for i in range(N)]
    if version >= (2025, 4, 0):
        from dask._expr import LLGExpr
        from dask._task_spec import Task
        from distributed.protocol.serialize import Serialize
        expr = LLGExpr({key: Task(key, operator.add, i, 1) for i, key in enumerate(keys)})
        return [{"op": "update-graph", "expr_ser": Serialize(expr), "keys": set(keys)}]
    dsk = {key: (operator.add, i, 1) for i, key in enumerate(keys)}
    from dask.highlevelgraph import HighLevelGraph
    if version < (2023, 4, 0):
        hlg = HighLevelGraph.from_collections("layer", dsk, dependencies=())
        return [{"op": "update-graph-hlg", "hlg": hlg.__dask_distributed_pack__(None, set(keys), {}), "keys": keys}]
    from distributed.protocol.serialize import ToPickle, serialize
    header, frames = serialize(ToPickle(HighLevelGraph({"layer": dsk}, {"layer": set()})), on_error="raise")
    return [{"op": "update-graph", "graph_header": header, "graph_frames": frames, "keys": keys}]


best = float("inf")
for _ in range(int(sys.argv[3])):
    start = perf_counter()
    frames = dumps(build())
    best = min(best, perf_counter() - start)
print("task", best / N)
print("bytes", sum(map(len, frames)) / N - 38)
