# One life of a cluster with dask-saturn: connect, ready, scale, close. Run by control_plane.lua.
import os
import sys

sys.path.insert(0, sys.argv[1])

from dask_saturn import SaturnCluster  # noqa: E402

cluster = SaturnCluster(n_workers=1, nthreads=1)
cluster.scale(2)
if os.environ.get("BENCH_CLOSE"):
    cluster.close()
