"""Clusters as the service sees them: settings and a status, with a Dask LocalCluster while one runs."""
import datetime
import importlib.util
import logging
import os
import re
import sys
import threading
import time
import uuid

# The sizes that Saturn offers, without those with a GPU: what runs here has this machine's cores and memory at most.
SIZES = [
    {"name": name, "cores": cores, "memory_gib": memory, "display": f"{label} - {cores} cores - {memory} GB RAM"}
    for name, label, cores, memory in [
        ("medium", "Medium", 2, 4),
        ("large", "Large", 2, 16),
        ("xlarge", "XLarge", 4, 32),
        ("2xlarge", "2XLarge", 8, 64),
        ("4xlarge", "4XLarge", 16, 128),
        ("8xlarge", "8XLarge", 32, 256),
        ("12xlarge", "12XLarge", 48, 384),
        ("16xlarge", "16XLarge", 64, 512),
    ]
]
SIZE_BY_NAME = {size["name"]: size for size in SIZES}

SETTINGS = ("n_workers", "worker_size", "worker_is_spot", "scheduler_size", "nprocs", "nthreads", "memory_limit")
UNCHANGED = (
    "Unable to update the specification of a running dask cluster. No changes applied. To update, first stop the "
    "cluster with cluster.close() and reinitialize, or run 'cluster = SaturnCluster.reset(**kwargs)'"
)
GIB = 1 << 30


class ApiError(Exception):
    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


def cpu_count():
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


def memory_bytes():
    """What this process may use, or 4 GiB where nobody says."""
    total = 4 * GIB
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        pass
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):
            pass
    return total


def most_workers():
    return max(16, 4 * cpu_count())


def parse_bytes(text):
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?)(i?)b?\s*", str(text), re.I)
    if not match:
        raise ApiError(400, f"memory_limit: {text!r} is not a size such as \"2GB\".", "validation_error")
    try:
        number = float(match.group(1))
    except ValueError:
        raise ApiError(400, f"memory_limit: {text!r} is not a size such as \"2GB\".", "validation_error") from None
    return int(number * (1024 if match.group(3) else 1000) ** " kmgt".index(match.group(2).lower() or " "))


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def check_settings(body):
    """The settings that were sent, checked. None counts as not sent."""
    out = {}
    for name in SETTINGS:
        value = body.get(name)
        if value is None:
            continue
        if name in ("worker_size", "scheduler_size"):
            if not isinstance(value, str) or value not in SIZE_BY_NAME:
                names = [size["name"] for size in SIZES]
                raise ApiError(
                    400, f"{name}: {value!r} is not a valid size. Options are: {names}", "validation_error"
                )
        elif name == "worker_is_spot":
            if not isinstance(value, bool):
                raise ApiError(400, "worker_is_spot: Not a valid boolean.", "validation_error")
        elif name == "memory_limit":
            value = parse_bytes(value)
        else:
            least = 0 if name == "n_workers" else 1
            value = check_count(name, value, least, most_workers() if name != "nthreads" else 256)
        out[name] = value
    return out


def check_count(name, value, least, most):
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ApiError(400, f"{name}: Not a valid integer.", "validation_error")
    if not least <= value <= most:
        raise ApiError(
            400,
            f"{name}: {value} is outside {least} to {most}, which is what this machine allows.",
            "validation_error",
        )
    return value


def sibling(name):
    """A module beside this one; their directory is not on sys.path, which workers get."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Runtime:
    """Everything heavy, brought in by a thread while the service already answers."""

    def __init__(self, directory):
        self.directory = directory
        self.error = None
        self._pki = threading.Event()
        self._dask = threading.Event()
        threading.Thread(target=self._load, name="runtime", daemon=True).start()

    def _load(self):
        try:
            self.pki = sibling("service_pki")
            self.authority = self.pki.Authority()
            self.server_key, self.server_certificate = self.authority.server()
        except BaseException as error:
            self.error = f"cryptography cannot be used: {type(error).__name__}: {error}"
        self._pki.set()
        try:
            import dask

            # A worker forked from a process that has Dask already starts in a tenth of the time. Forking is not
            # safe on macOS once system frameworks are loaded.
            method = "spawn" if sys.platform == "darwin" else "forkserver"
            dask.config.set(
                {
                    "temporary-directory": self.directory,
                    "distributed.worker.multiprocessing-method": method,
                    "distributed.scheduler.dashboard.status.task-stream-length": 1000,
                }
            )
            import distributed
            from distributed.security import Security

            self.distributed = distributed
            if not self.error:
                self.security = Security(
                    require_encryption=True,
                    tls_ca_file=self.authority.pem,
                    tls_client_cert=self.server_certificate,
                    tls_client_key=self.server_key,
                    tls_scheduler_cert=self.server_certificate,
                    tls_scheduler_key=self.server_key,
                    tls_worker_cert=self.server_certificate,
                    tls_worker_key=self.server_key,
                )
            if method == "forkserver":
                from multiprocessing import forkserver

                from distributed.utils import get_mp_context

                get_mp_context()  # says what to load in advance
                forkserver.ensure_running()
        except BaseException as error:
            self.error = self.error or f"Dask cannot be imported: {type(error).__name__}: {error}"
        self._dask.set()

    def need_pki(self):
        self._pki.wait()
        if not hasattr(self, "authority"):
            raise ApiError(500, self.error, "runtime")
        return self.authority

    def need_dask(self):
        self._dask.wait()
        if self.error:
            raise ApiError(500, self.error, "runtime")
        return self.distributed


class Cluster:
    """One cluster. `phase` is one of stopped, pending, starting, ready, stopping, error."""

    def __init__(self, runtime, name, parent=None, owner="local"):
        self.id = uuid.uuid4().hex
        self.name = name
        self.owner = owner
        self.parent = parent or {}
        self.tags = []
        self.runtime = runtime
        self.settings = {}
        self.phase = "stopped"
        self.errors = []
        self.created_at = now()
        self.history = []
        self.dask = None
        self.port = 0
        self.minimum = None
        self.maximum = None
        self._changed = threading.Condition()
        self._work = threading.Lock()  # one start or stop at a time
        self._record("created")

    def _record(self, event, **more):
        self.history.append(dict({"time": now(), "event": event, "status": self.status()}, **more))
        del self.history[:-500]

    def _set(self, phase):
        with self._changed:
            self.phase = phase
            self._changed.notify_all()

    def status(self):
        """The word of GET ID and of the lists."""
        return {"starting": "pending", "ready": "running"}.get(self.phase, self.phase)

    def wait(self, seconds):
        with self._changed:
            self._changed.wait_for(lambda: self.phase in ("ready", "error", "stopped"), seconds)

    # Settings

    def effective(self):
        s = self.settings
        cores = cpu_count()
        nprocs = s.get("nprocs", 1)
        size = SIZE_BY_NAME.get(s.get("worker_size"))
        n_workers = s.get("n_workers")
        if n_workers is None:
            n_workers = 1 if size or "nthreads" in s else min(cores, 4)
        nthreads = s.get("nthreads")
        if nthreads is None:
            nthreads = min(size["cores"], cores) if size else max(1, cores // max(1, n_workers * nprocs))
        memory = s.get("memory_limit")
        if memory is None:
            memory = memory_bytes() // max(1, n_workers * nprocs)
            if size:
                memory = min(memory, size["memory_gib"] * GIB // nprocs)
            memory = max(memory, 256 << 20)
        return {"n_workers": n_workers, "nprocs": nprocs, "nthreads": nthreads, "memory_limit": memory}

    # Life

    def start(self, settings):
        """Starts it unless it runs; gives the warnings."""
        with self._changed:
            if self.phase in ("pending", "starting", "ready"):
                if any(self.settings.get(k) != v and not (k == "worker_is_spot" and not v and k not in self.settings)
                       for k, v in settings.items()):
                    return [UNCHANGED]
                return []
            was_stopping = self.phase == "stopping"
            self.settings.update(settings)
            self.errors = []
            self.phase = "pending"
            self._changed.notify_all()
        self._record("start", settings=dict(settings), after_stop=was_stopping)
        threading.Thread(target=self._start, name="start", daemon=True).start()
        return []

    def _start(self):
        with self._work:
            if self.phase != "pending":
                return  # stopped before it began
            dask = None
            try:
                distributed = self.runtime.need_dask()
                self._set("starting")
                e = self.effective()
                try:
                    dask = self._local_cluster(distributed, e)
                except (OSError, RuntimeError):
                    if not self.port:
                        raise
                    self.port = 0  # somebody else has it now
                    dask = self._local_cluster(distributed, e)
                self.port = int(dask.scheduler_address.rpartition(":")[2])
                self.dask = dask
                self.minimum = self.maximum = None
                dask.scale(e["n_workers"] * e["nprocs"])
                self._set("ready")
                self._record("ready")
            except BaseException as error:
                self.errors = [getattr(error, "message", None) or f"{type(error).__name__}: {error}"]
                self.dask = None
                if dask is not None:
                    try:
                        dask.close(timeout=5)
                    except BaseException:
                        pass
                self._set("error")
                self._record("error", errors=self.errors)

    def _local_cluster(self, distributed, e):
        return distributed.LocalCluster(
            name=self.name + "-" + self.id[:8],
            n_workers=0,
            processes=True,
            threads_per_worker=e["nthreads"],
            memory_limit=e["memory_limit"],
            host="127.0.0.1",
            scheduler_port=self.port,  # clients keep the address of a cluster that is reset, as they do on Saturn
            protocol="tls://",
            security=self.runtime.security,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            local_directory=self.runtime.directory,
            silence_logs=logging.WARNING,
        )

    def stop(self):
        """Really stops it; returns when it is gone."""
        with self._changed:
            if self.phase == "pending":
                self.phase = "stopping"
        with self._work:
            dask, self.dask = self.dask, None
            if dask is None and self.phase in ("stopped", "error"):
                self._set("stopped")
                return
            if dask is not None:
                self._set("stopping")
                try:
                    dask.close(timeout=10)
                except BaseException as error:
                    self._record("close failed", error=f"{type(error).__name__}: {error}")
            self._set("stopped")
        self._record("stop")

    def running(self):
        dask = self.dask
        if self.phase != "ready" or dask is None:
            raise ApiError(409, f"The dask cluster is not running: its status is {self.status()}.", "not_running")
        return dask

    def on_loop(self, function):
        """function(dask) on the cluster's own event loop."""
        dask = self.running()

        async def call():
            return function(dask)

        return dask.sync(call)

    def scale(self, n):
        n = check_count("n", n, 0, most_workers())
        processes = n * self.effective()["nprocs"]

        def scale(dask):
            if self.maximum is not None:
                dask._adaptive.stop()
            dask.scale(processes)

        self.on_loop(scale)
        self.minimum = self.maximum = None
        self.settings["n_workers"] = n
        self._record("scale", n=n)

    def adapt(self, body):
        minimum = check_count("minimum", body.get("minimum", 0), 0, most_workers())
        maximum = check_count("maximum", body.get("maximum", most_workers()), 0, most_workers())
        if minimum > maximum:
            raise ApiError(400, "minimum is above maximum.", "validation_error")
        nprocs = self.effective()["nprocs"]
        self.on_loop(lambda dask: dask.adapt(minimum=minimum * nprocs, maximum=maximum * nprocs) and None)
        self.minimum, self.maximum = minimum, maximum
        self._record("adapt", minimum=minimum, maximum=maximum)

    # What can be seen

    def dask_status(self):
        return self.running().status.value

    def scheduler_info(self):
        return self.on_loop(lambda dask: dask.scheduler.identity())

    def info(self, external):
        dask = self.running()
        address = dask.scheduler_address
        if external:  # a host name, as the real one has: so clients send it and may check it
            address = address.replace("//127.0.0.1:", "//localhost:")
        return {"scheduler_address": address, "dashboard_link": self.dashboard_link(dask)}

    @staticmethod
    def dashboard_link(dask):
        # without bokeh the plots are missing, but the scheduler's tables are there
        page = "status" if "distributed.dashboard.scheduler" in sys.modules else "info/main/workers.html"
        try:
            return f"http://127.0.0.1:{dask.scheduler.http_server.port}/{page}"
        except AttributeError:
            return None

    def as_json(self):
        dask = self.dask
        s = self.settings
        e = self.effective()
        out = {
            "id": self.id,
            "name": self.name,
            "resource_type": "dask",
            "owner": {"id": self.owner, "name": self.owner},
            "tags": self.tags,
            "worker_size": s.get("worker_size"),
            "worker_size_display": SIZE_BY_NAME.get(s.get("worker_size"), {}).get("display"),
            "worker_is_spot": s.get("worker_is_spot", False),
            "scheduler_size": s.get("scheduler_size"),
            "scheduler_size_display": SIZE_BY_NAME.get(s.get("scheduler_size"), {}).get("display"),
            "n_workers": e["n_workers"],
            "nprocs": e["nprocs"],
            "nthreads": e["nthreads"],
            "memory_limit": e["memory_limit"],
            "adaptive": None if self.maximum is None else {"minimum": self.minimum, "maximum": self.maximum},
            "created_at": self.created_at,
            "status": self.status(),
            "errors": list(self.errors),
            "warnings": [],
            "scheduler_url": None,
            "url": None,
        }
        out.update(self.parent)
        if self.phase == "ready" and dask is not None:
            out["scheduler_url"] = dask.scheduler_address
            out["url"] = self.dashboard_link(dask)
        return out

    def workers(self):
        """One row for each worker process that runs or should run."""
        try:
            seen = self.scheduler_info()["workers"]
            spec = self.on_loop(lambda dask: list(dask.worker_spec))
        except ApiError:
            return []
        rows = []
        for address, worker in seen.items():
            rows.append(
                {
                    "pod_name": f"worker-{worker.get('name')}",
                    "address": address,
                    "status": "running",
                    "nthreads": worker.get("nthreads"),
                    "memory_limit": worker.get("memory_limit"),
                    "last_seen": worker.get("last_seen"),
                }
            )
        there = {str(worker.get("name")) for worker in seen.values()}
        for name in spec:
            if str(name) not in there:
                rows.append({"pod_name": f"worker-{name}", "address": None, "status": "pending"})
        return rows

    def runtime_summary(self):
        rows = self.workers()
        running = sum(row["status"] == "running" for row in rows)
        return {
            "status": self.status(),
            "errors": list(self.errors),
            "kubecluster_summary": {"pod_name": "service", "status": self.status()},
            "scheduler_summary": {"pod_name": "scheduler", "status": self.status()},
            "worker_summary": {
                "count": len(rows),
                "pending_count": len(rows) - running,
                "running_count": running,
                "error_count": 0,
            },
        }

    def logs(self, component, pod_name):
        """A list of {pod_name, component, logs}, from what the scheduler and each worker keep."""
        out = []
        dask = self.running()
        if component in (None, "scheduler") and pod_name in (None, "scheduler"):
            lines = dask.get_logs(cluster=False, scheduler=True, workers=False)
            for text in lines.values():
                out.append({"pod_name": "scheduler", "component": "scheduler", "logs": str(text)})
        if component in (None, "worker") and pod_name != "scheduler":
            names = {row["address"]: row["pod_name"] for row in self.workers() if row["address"]}
            wanted = [a for a, name in names.items() if pod_name in (None, name, a)]
            if wanted:
                for address, text in dask.get_logs(cluster=False, scheduler=False, workers=wanted).items():
                    name = names.get(address, address)
                    out.append({"pod_name": name, "component": "worker", "logs": str(text)})
        return out
