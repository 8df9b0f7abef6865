"""The worker side of dask-saturn: SaturnSetup, RegisterFiles, register_files_to_worker."""
import io
import os
import sys
import tarfile

from distributed import get_client
from distributed.comm import resolve_address
from distributed.diagnostics.plugin import WorkerPlugin

PREFIX = "SATURN__"


class SaturnSetup(WorkerPlugin):
    name = "saturn_setup"

    def setup(self, worker=None):
        # So that a client made inside a task finds itself to be the worker's own.
        worker.scheduler.addr = resolve_address(worker.scheduler.addr)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


def extract(data, path):
    os.makedirs(path, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(path, filter="data")
        else:
            archive.extractall(path)


async def register_files_to_worker(paths=None):
    client = get_client()
    if paths is None:
        names = await client.list_datasets()
        paths = [name[len(PREFIX) :] for name in names if isinstance(name, str) and name.startswith(PREFIX)]
    for path in paths:
        data = await client.get_dataset(PREFIX + path)
        if path.endswith("/"):
            extract(data, path)
        else:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
    return os.listdir()


class RegisterFiles(WorkerPlugin):
    name = "register_files"

    async def setup(self, worker=None):
        await register_files_to_worker()
