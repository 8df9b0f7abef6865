"""Scripted faults, for tests: rules that spoil the answers they match. Nothing of this runs without --test-control."""
import fnmatch
import socket
import ssl
import threading
import time

ACTIONS = {
    "delay", "status", "json", "body", "headers", "truncate", "slow", "close", "cluster_status", "errors",
    "warnings", "csr", "scheduler", "expire_token",
}
MATCHES = {"method", "path", "times", "skip"}
CSR_FAULTS = {"wrong_ca", "expired", "one", "extra", "crlf", "garbage", "empty"}
SCHEDULER_FAULTS = {"wrong_ca", "expired", "wrong_host", "close", "silent", "garbage", "refused"}


class Faults:
    def __init__(self):
        self._lock = threading.Lock()
        self._rules = []
        self._listeners = []

    def set(self, body):
        rules = body.get("faults")
        if not isinstance(rules, list):
            raise ValueError('the body must be {"faults": [...]}')
        for rule in rules:
            unknown = set(rule) - ACTIONS - MATCHES
            if unknown:
                raise ValueError("unknown: " + ", ".join(sorted(unknown)))
            if rule.get("csr") and rule["csr"] not in CSR_FAULTS:
                raise ValueError("csr is one of " + ", ".join(sorted(CSR_FAULTS)))
            if rule.get("scheduler") and rule["scheduler"] not in SCHEDULER_FAULTS:
                raise ValueError("scheduler is one of " + ", ".join(sorted(SCHEDULER_FAULTS)))
        with self._lock:
            self._rules = ([] if body.get("replace", True) else self._rules) + [dict(rule) for rule in rules]

    def clear(self):
        with self._lock:
            self._rules = []
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()

    def left(self):
        with self._lock:
            return [dict(rule) for rule in self._rules]

    def take(self, method, path):
        """The first rule that matches, counted down, or None."""
        with self._lock:
            for rule in self._rules:
                if rule.get("method", method) != method:
                    continue
                glob = rule.get("path")
                if glob is None:
                    glob = "/api/dask_clusters" if "cluster_status" in rule else "*"
                    glob = "*/csr" if "csr" in rule else "*/info" if "scheduler" in rule else glob
                if not fnmatch.fnmatchcase(path, glob):
                    continue
                if "scheduler" in rule and path == "/api/dask_clusters/info" and "path" not in rule:
                    continue
                if rule.get("skip", 0) > 0:
                    rule["skip"] -= 1
                    continue
                out = dict(rule)
                if rule.get("cluster_status"):
                    out["cluster_status"] = rule["cluster_status"][0]
                    rule["cluster_status"] = rule["cluster_status"][1:]
                    if not rule["cluster_status"]:
                        self._rules.remove(rule)
                    return out
                times = rule.get("times", 1)
                if times > 0:
                    rule["times"] = times - 1
                    if times == 1:
                        self._rules.remove(rule)
                return out
        return None

    # Certificates

    def csr(self, how, runtime, pem):
        authority = runtime.need_pki()
        if how == "wrong_ca":
            other = runtime.pki.Authority("Another CA")
            return other.sign(pem) + other.pem
        if how == "expired":
            return authority.sign(pem, expired=True) + authority.pem
        if how == "one":
            return authority.sign(pem)
        if how == "extra":
            return authority.sign(pem) + authority.pem + runtime.pki.Authority("Another CA").pem
        if how == "crlf":
            return "subject=a client\n" + (authority.sign(pem) + "\n" + authority.pem).replace("\n", "\r\n")
        if how == "garbage":
            return "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2
        return ""

    def scheduler(self, how, runtime):
        """The address of a listener that fails in this way."""
        authority = runtime.need_pki()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        address = f"tls://localhost:{port}"
        if how == "refused":
            listener.close()
            return address
        context = None
        if how in ("wrong_ca", "expired", "wrong_host"):
            signer = runtime.pki.Authority("Another CA") if how == "wrong_ca" else authority
            hosts = ("some-other-name.example",) if how == "wrong_host" else ("localhost", "127.0.0.1")
            key, certificate = signer.server(hosts, expired=how == "expired")
            context = server_context(runtime.directory, certificate, key)
        with self._lock:
            self._listeners.append(listener)
        threading.Thread(target=self._serve, args=(listener, how, context), daemon=True).start()
        return address

    @staticmethod
    def _serve(listener, how, context):
        kept = []
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                connection.settimeout(5)
                if how == "garbage":
                    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nThis is no TLS server.\n")
                elif how == "silent":
                    kept.append(connection)
                    continue
                elif context is not None:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        tls.settimeout(5)
                        tls.recv(1)
                        continue
                connection.close()
            except (OSError, ssl.SSLError):
                connection.close()


def server_context(directory, certificate, key):
    """An SSL context; Python reads certificates from files only, so they pass through the private directory."""
    import os
    import tempfile

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    descriptor, path = tempfile.mkstemp(dir=directory)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key + certificate)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
    return context


def spoil(rule, handler, data):
    """Sends `data`, a whole response, in the way that the rule says."""
    if rule.get("close"):
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return
    if "truncate" in rule:
        head, _, body = data.partition(b"\r\n\r\n")
        handler.wfile.write(head + b"\r\n\r\n" + body[: int(rule["truncate"])])
        handler.wfile.flush()
        handler.close_connection = True
        return
    if "slow" in rule:
        slow = rule["slow"] if isinstance(rule["slow"], dict) else {}
        chunk, interval = int(slow.get("chunk", 1)), float(slow.get("interval", 0.1))
        head, _, body = data.partition(b"\r\n\r\n")
        handler.wfile.write(head + b"\r\n\r\n")
        handler.wfile.flush()
        for start in range(0, len(body), chunk):
            time.sleep(interval)
            handler.wfile.write(body[start : start + chunk])
            handler.wfile.flush()
        return
    handler.wfile.write(data)
