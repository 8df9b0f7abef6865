"""A real Dask scheduler with workers for the tests; spec/support/dask.lua is its only user.

Reads one JSON object a line from stdin ({"op": "start", ...}, then "add_worker", "kill_worker", "scheduler", "log",
"stop") and answers each with one line on stdout. Imports distributed once and forks: the scheduler and each worker are
processes of their own, in a process group each, that die with this one. It ends, with all of them and with its
directory, when told to stop, at the end of stdin, or when its parent is gone.
"""

import asyncio
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback

START_SECONDS = 60
STOP_SECONDS = 3


def close_inherited():
    """Descriptors that the test process happened to have open are none of ours."""
    for fd in os.listdir("/dev/fd"):
        if int(fd) > 2:
            try:
                os.close(int(fd))
            except OSError:
                pass


def make_certificates(folder, names=("localhost",), addresses=("127.0.0.1", "::1")):
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)

    def key():
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def certificate(subject, public_key, issuer, issuer_key, extensions):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def usage(ca):
        return x509.KeyUsage(
            digital_signature=not ca, key_encipherment=not ca, key_cert_sign=ca, crl_sign=ca,
            content_commitment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip

    ca_key, leaf_key = key(), key()
    ca_name = name("saturn tests")
    alternative = [x509.DNSName(n) for n in names] + [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
    pem = {
        "ca": certificate(
            ca_name, ca_key.public_key(), ca_name, ca_key,
            [(x509.BasicConstraints(ca=True, path_length=0), True), (usage(True), True)],
        ),
        "cert": certificate(
            name("localhost"), leaf_key.public_key(), ca_name, ca_key,
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (usage(False), True),
                (x509.SubjectAlternativeName(alternative), False),
            ],
        ),
        "key": leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }  # fmt: skip
    result = {}
    for part, data in pem.items():
        path = os.path.join(folder, part + ".pem")
        with open(path, "wb") as f:
            f.write(data)
        result[part] = data.decode()
        result[part + "_file"] = path
    return result


def die_with_parent(parent):
    """The kernel's word where there is one; a look every half second elsewhere."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    import threading

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


class Child:
    """A forked server: what it reported when it was up, and its process group."""

    def __init__(self, folder, name, main, options):
        self.name = name
        self.log = os.path.join(folder, name + ".log")
        self.status = None
        parent = os.getpid()
        self.pipe, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.close(self.pipe)
                null = os.open(os.devnull, os.O_RDONLY)
                log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(null, 0)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.set_inheritable(write, False)
                die_with_parent(parent)
                if "numpy" in sys.modules:
                    sys.modules["numpy"].random.seed()

                def report(data):
                    os.write(write, json.dumps(data).encode() + b"\n")
                    os.close(write)

                asyncio.run(main(options, report))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(write)

    def up(self, deadline):
        data = b""
        while not data.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
                raise RuntimeError(f"{self.name} was not up in time; its log ends:\n{self.tail()}")
            chunk = os.read(self.pipe, 65536)
            if not chunk:
                raise RuntimeError(f"{self.name} failed to start; its log ends:\n{self.tail()}")
            data += chunk
        os.close(self.pipe)
        return json.loads(data)

    def tail(self, size=3000):
        try:
            with open(self.log, errors="replace") as f:
                return f.read()[-size:]
        except OSError:
            return ""

    def alive(self):
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self.status = status
        return self.status is None

    def kill(self, number):
        """To the whole group, which outlives its leader where a nanny died before its worker."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end:
            time.sleep(0.01)
        return not self.alive()


def security_of(options):
    from distributed.security import Security

    tls = options.get("tls")
    if not tls:
        return Security()
    parts = {"tls_ca_file": tls["ca_file"], "require_encryption": True}
    for role in ("scheduler", "worker", "client"):
        parts[f"tls_{role}_cert"] = tls["cert_file"]
        parts[f"tls_{role}_key"] = tls["key_file"]
    return Security(**parts)


async def serve(server, report, describe):
    loop = asyncio.get_running_loop()
    async with server:
        closing = []
        loop.add_signal_handler(signal.SIGTERM, lambda: closing.append(asyncio.ensure_future(server.close())))
        report(describe(server))
        await server.finished()


async def run_scheduler(options, report):
    from distributed import Scheduler

    kwargs = dict(
        host="127.0.0.1",
        port=options.get("port") or 0,
        protocol="tls" if options.get("tls") else "tcp",
        dashboard_address="127.0.0.1:0",
        security=security_of(options),
    )
    kwargs.update(options.get("scheduler_args") or {})
    await serve(
        Scheduler(**kwargs),
        report,
        lambda s: {"address": s.address, "dashboard": (s.identity().get("services") or {}).get("dashboard")},
    )


async def run_worker(options, report):
    from distributed import Nanny, Worker

    kwargs = dict(
        name=options["name"],
        nthreads=options.get("nthreads") or 1,
        resources=options.get("resources") or None,
        memory_limit=options.get("memory_limit") or "2GiB",
        local_directory=options["directory"],
        protocol="tls" if options.get("tls") else "tcp",
        host="127.0.0.1",
        security=security_of(options),
    )
    kwargs.update(options.get("worker_args") or {})
    nanny = options.get("nanny")
    if not nanny:
        kwargs.setdefault("dashboard_address", None)
        kwargs.setdefault("dashboard", False)
    server = (Nanny if nanny else Worker)(options["scheduler"], **kwargs)

    def describe(s):
        if nanny:
            return {"address": s.worker_address, "nanny": s.address, "worker_pid": s.pid}
        return {"address": s.address}

    await serve(server, report, describe)


class Cluster:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="saturn-spec-")
        self.scheduler = None
        self.workers = []
        self.options = {}
        self.names = 0

    def start(self, options):
        os.environ["DASK_CONFIG"] = os.environ["DASK_ROOT_CONFIG"] = self.folder
        os.environ["DASK_TEMPORARY_DIRECTORY"] = self.folder
        for path in reversed(options.get("pythonpath") or []):
            sys.path.insert(0, path)
        os.environ["PYTHONPATH"] = os.pathsep.join(options.get("pythonpath") or [])
        import dask
        import distributed

        if options.get("config"):
            dask.config.set(options["config"])
        self.options = options
        if options.get("tls"):
            options["tls"] = make_certificates(self.folder)
        deadline = time.monotonic() + START_SECONDS
        self.scheduler = Child(self.folder, "scheduler", run_scheduler, options)
        up = self.scheduler.up(deadline)
        options["scheduler"] = up["address"]
        names = options.get("names") or []
        count = options.get("workers")
        if count is None:
            count = len(names) or 2
        starting = [self.fork_worker({"name": names[i] if i < len(names) else None}) for i in range(count)]
        return {
            "address": up["address"],
            "dashboard": up["dashboard"],
            "scheduler_pid": self.scheduler.pid,
            "workers": [self.describe(child, child.up(deadline)) for child in starting],
            "tls": options.get("tls") or None,
            "version": distributed.__version__.split("+")[0],
            "directory": self.folder,
        }

    def fork_worker(self, own):
        options = dict(self.options)
        options.update((k, v) for k, v in own.items() if v is not None)
        name = options["name"] if own.get("name") else f"w{self.names}"
        self.names += 1
        options["name"] = name
        options["directory"] = os.path.join(self.folder, name)
        child = Child(self.folder, name, run_worker, options)
        self.workers.append(child)
        return child

    def describe(self, child, up):
        result = {"name": child.name, "pid": up.get("worker_pid") or child.pid, "address": up["address"]}
        if up.get("nanny"):
            result["nanny"] = up["nanny"]
            result["nanny_pid"] = child.pid
        return result

    def op_start(self, request):
        return self.start(request)

    def op_add_worker(self, request):
        child = self.fork_worker(request)
        return self.describe(child, child.up(time.monotonic() + START_SECONDS))

    def op_kill_worker(self, request):
        child = self.workers[request["index"] - 1]
        child.kill(request.get("signal") or signal.SIGKILL)
        if not child.wait(STOP_SECONDS):
            child.kill(signal.SIGKILL)
            child.wait(STOP_SECONDS)
        return {}

    def op_scheduler(self, request):
        """A signal to the scheduler; waits for its end when the signal ends it."""
        number = getattr(signal, request["signal"])
        self.scheduler.kill(number)
        if number in (signal.SIGTERM, signal.SIGKILL) and not self.scheduler.wait(STOP_SECONDS):
            self.scheduler.kill(signal.SIGKILL)
            self.scheduler.wait(STOP_SECONDS)
        return {}

    def op_restart_scheduler(self, request):
        """A new scheduler process on the port of the old one, which is killed if it still runs."""
        self.scheduler.kill(signal.SIGKILL)
        self.scheduler.wait(STOP_SECONDS)
        port = int(self.options["scheduler"].rsplit(":", 1)[1])
        self.scheduler = Child(self.folder, "scheduler", run_scheduler, dict(self.options, port=port))
        up = self.scheduler.up(time.monotonic() + START_SECONDS)
        return {"address": up["address"], "dashboard": up["dashboard"], "scheduler_pid": self.scheduler.pid}

    def op_log(self, request):
        with open(os.path.join(self.folder, request["name"] + ".log"), errors="replace") as f:
            return {"log": f.read()}

    def stop(self):
        children = self.workers + ([self.scheduler] if self.scheduler else [])
        for child in children:
            child.kill(signal.SIGCONT)
            child.kill(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for child in children:
            child.wait(max(0, end - time.monotonic()))
        for child in children:
            child.kill(signal.SIGKILL)
            child.wait(1)
        shutil.rmtree(self.folder, ignore_errors=True)


def requests(parent):
    """The lines of stdin, until it ends or the parent is gone."""
    data = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], 0.5)[0]:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        data += chunk
        while b"\n" in data:
            line, data = data.split(b"\n", 1)
            yield json.loads(line)


def main():
    parent = os.getppid()
    close_inherited()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster = Cluster()
    try:
        for request in requests(parent):
            if request["op"] == "stop":
                break
            try:
                answer = getattr(cluster, "op_" + request.pop("op"))(request)
                answer["ok"] = True
            except Exception as e:
                answer = {"ok": False, "error": f"{type(e).__name__}: {e}"}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        cluster.stop()
    try:
        print('{"ok": true}', file=answers, flush=True)
    except OSError:
        pass


if __name__ == "__main__":
    main()
