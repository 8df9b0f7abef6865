"""The HTTP face of the embedded service, and its life as a process."""
import argparse
import hmac
import http
import http.server
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

from service_clusters import SIZES, ApiError, Cluster, Runtime, check_settings, now
from service_faults import Faults, server_context, spoil

VERSION = "2026.02.01"
LARGEST_BODY = 1 << 20
NO_BODY = object()


class Text(str):
    """A body that is sent as it is."""


class Service:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.token = secrets.token_hex(16)
        self.refresh_token = secrets.token_hex(16)
        self.expired = set()
        self.revoked = False
        self.ended = threading.Event()
        self.lock = threading.RLock()
        self.log_lines = []
        self.requests = []
        self.faults = Faults() if options.test_control else None
        self.parents = {}
        for kind in ("workspace", "deployment", "job"):
            parent = {
                "id": uuid.uuid4().hex, "name": "local", "resource_type": kind, "status": "running",
                "owner": {"id": "local", "name": "local"}, "created_at": now(), "errors": [], "warnings": [],
            }
            self.parents[parent["id"]] = parent
        self.workspace = next(iter(self.parents.values()))
        self.clusters = {}
        self.by_key = {}
        self.runtime = Runtime(directory)
        # The cluster that the token stands for is there from the start, as the one of a resource is.
        self.cluster_for(("token",), "local")

    # Clusters

    def cluster_for(self, key, name, parent=None):
        with self.lock:
            cluster = self.by_key.get(key)
            if cluster is None:
                parent = parent or self.workspace
                cluster = Cluster(self.runtime, name, {parent["resource_type"] + "_id": parent["id"]})
                self.clusters[cluster.id] = cluster
                self.by_key[key] = cluster
            return cluster

    def find(self, id):
        cluster = self.clusters.get(id)
        if cluster is None:
            raise ApiError(404, f"Dask cluster {id} not found.", "not_found")
        return cluster

    def parent(self, kind, id):
        parent = self.parents.get(id)
        if parent is None or parent["resource_type"] != kind:
            raise ApiError(404, f"{kind.capitalize()} {id} not found.", "not_found")
        return parent

    def selected(self, body):
        """The cluster that a POST means: by project_id in the old style, else the token's."""
        project = body.get("project_id")
        if project is None and self.options.require_project_id:
            raise ApiError(400, "project_id: Missing data for required field.", "validation_error")
        if project is not None:
            if not isinstance(project, str) or not project:
                raise ApiError(400, "project_id: Not a valid string.", "validation_error")
            return self.cluster_for(("project", project), "project-" + project[:8])
        run = body.get("prefectcloudflowrun_id")
        if run is not None:
            return self.cluster_for(("prefect", str(run)), "prefect-" + str(run)[:8])
        return self.cluster_for(("token",), "local")

    def each(self, clusters, what, seconds=None):
        threads = [threading.Thread(target=getattr(cluster, what), daemon=True) for cluster in clusters]
        for thread in threads:
            thread.start()
        deadline = None if seconds is None else time.monotonic() + seconds
        for thread in threads:
            thread.join(None if deadline is None else max(0, deadline - time.monotonic()))

    def children(self, parent):
        name = parent["resource_type"] + "_id"
        return [cluster for cluster in self.clusters.values() if cluster.parent.get(name) == parent["id"]]

    # Tokens

    def authorize(self, headers):
        scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
        token = token.strip().encode("utf-8", "replace")
        if scheme.lower() not in ("token", "bearer") or not token:
            raise ApiError(401, "Authentication is required: send the header Authorization: token T.", "unauthorized")
        for old in self.expired:
            if hmac.compare_digest(token, old.encode()):
                raise ApiError(401, "The token has expired.", "token_expired")
        if self.revoked or not hmac.compare_digest(token, self.token.encode()):
            raise ApiError(401, "The token is not valid.", "unauthorized")

    def refresh(self, body):
        given = str(body.get("refresh_token", ""))
        if body.get("grant_type") != "refresh_token":
            raise ApiError(400, "grant_type must be refresh_token.", "validation_error")
        with self.lock:
            if not hmac.compare_digest(given.encode(), self.refresh_token.encode()):
                raise ApiError(401, "The refresh token is not valid.", "unauthorized")
            self.expired.add(self.token)
            self.token = secrets.token_hex(16)
            self.refresh_token = secrets.token_hex(16)
            self.write_token()
            return {
                "access_token": self.token, "refresh_token": self.refresh_token,
                "expires_in": 86400, "token_type": "Bearer",
            }

    def write_token(self):
        path = self.options.token_file
        if not path:
            return
        # A new file that takes the old one's place: its mode is right from the first byte.
        descriptor, temporary = tempfile.mkstemp(prefix=".token-", dir=os.path.dirname(os.path.abspath(path)))
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump({"token": self.token}, file)
                file.write("\n")
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def remove_token(self):
        path = self.options.token_file
        try:
            with open(path) as file:
                if json.load(file).get("token") == self.token:
                    os.unlink(path)
        except (TypeError, OSError, ValueError, AttributeError):
            pass  # none was asked for, or it is no longer ours

    def redact(self, text):
        for secret in (self.token, self.refresh_token, *self.expired):
            text = text.replace(secret, "<secret>")
        return text


# One function for each call: f(service, request, *parts of the path) → status, value


class Request:
    def __init__(self, method, path, query, headers, raw):
        self.method, self.path, self.query, self.headers, self.raw = method, path, query, headers, raw
        self._body = None

    @property
    def body(self):
        if self._body is None:
            if not self.raw.strip():
                self._body = {}
            else:
                try:
                    self._body = json.loads(self.raw)
                except ValueError:
                    raise ApiError(400, "The body is not valid JSON.", "bad_request") from None
                if not isinstance(self._body, dict):
                    raise ApiError(400, "The body must be a JSON object.", "bad_request")
        return self._body

    def flag(self, name):
        return self.query.get(name, "").lower() in ("true", "1")

    def prefer_wait(self):
        """`Prefer: wait=N` (RFC 7240): answer when there is something to say, after N seconds at the latest."""
        for part in self.headers.get("Prefer", "").split(","):
            name, _, value = part.strip().partition("=")
            if name == "wait" and value.isdigit():
                return min(int(value), 60)
        return 0


ROUTES = []


def route(method, pattern):
    def add(function):
        ROUTES.append((method, pattern.split("/")[1:], function))
        return function

    return add


def match(pattern, parts):
    if len(pattern) != len(parts):
        return None
    out = []
    for want, have in zip(pattern, parts):
        if want == "*":
            out.append(have)
        elif want != have:
            return None
    return out


START_WORD = {"stopping": "pending", "stopped": "pending"}


def start_answer(cluster, warnings):
    out = cluster.as_json()
    out["status"] = START_WORD.get(cluster.phase, cluster.phase)
    out["warnings"] = warnings
    return out


# The eleven calls of dask-saturn


@route("POST", "/api/dask_clusters")
def create(service, request):
    body = request.body
    settings = check_settings(body)
    if any(body.get(name) is not None for name in ("resource", "workspace_id", "deployment_id", "job_id")):
        return create_explicit(service, body, settings)
    cluster = service.selected(body)
    before = cluster.phase
    warnings = cluster.start(settings)
    wait = request.prefer_wait()
    if wait:
        cluster.wait(wait)
    out = start_answer(cluster, warnings)
    if not wait and before in ("stopped", "error", "stopping"):
        out["status"] = "pending"  # what it was when the call came
    return 201, out


def create_explicit(service, body, settings):
    """A cluster that is made, not started, for one workspace, deployment or job."""
    resource = body.get("resource", body)
    if not isinstance(resource, dict):
        raise ApiError(400, "resource: Not a valid object.", "validation_error")
    for kind in ("workspace", "deployment", "job"):
        if resource.get(kind + "_id") is not None:
            parent = service.parent(kind, resource[kind + "_id"])
            break
    else:
        raise ApiError(400, "resource: one of workspace_id, deployment_id, job_id is required.", "validation_error")
    name = body.get("subdomain") or f"{parent['name']}-{uuid.uuid4().hex[:6]}"
    cluster = service.cluster_for(("explicit", uuid.uuid4().hex), str(name), parent)
    cluster.settings.update(settings)
    tags = body.get("tags")
    cluster.tags = list(tags) if isinstance(tags, list) else []
    return 201, cluster.as_json()


@route("GET", "/api/dask_clusters/info")
def sizes(service, request):
    size = [
        {
            "name": s["name"], "display": s["display"], "display_name": s["display"].split(" - ")[0],
            "cores": s["cores"], "memory": f"{s['memory_gib']}Gi", "gpu": 0, "gpu_type": None,
            "hardware_type": "CPU", "cloud": "local", "price_per_hour": "0.0",
            "description": "At most this machine's cores and memory", "disabled": False, "disabled_message": None,
        }
        for s in SIZES
    ]
    return 200, {"server_options": {"size": size}}


@route("POST", "/api/dask_clusters/reset")
def reset(service, request):
    settings = check_settings(request.body)
    cluster = service.selected(request.body)
    cluster.stop()
    cluster.settings.update(settings)
    return 200, start_answer(cluster, cluster.start({}))


@route("GET", "/api/dask_clusters/*")
def get(service, request, id):
    return 200, service.find(id).as_json()


@route("GET", "/api/dask_clusters/*/status")
def status(service, request, id):
    return 200, {"status": service.find(id).dask_status()}


@route("GET", "/api/dask_clusters/*/scheduler_info")
def scheduler_info(service, request, id):
    return 200, service.find(id).scheduler_info()


@route("GET", "/api/dask_clusters/*/info")
def info(service, request, id):
    return 200, service.find(id).info(request.flag("is_external"))


@route("POST", "/api/dask_clusters/*/scale")
def scale(service, request, id):
    service.find(id).scale(request.body.get("n"))
    return 204, NO_BODY


@route("POST", "/api/dask_clusters/*/adapt")
def adapt(service, request, id):
    service.find(id).adapt(request.body)
    return 204, NO_BODY


@route("POST", "/api/dask_clusters/*/close")
def close(service, request, id):
    cluster = service.find(id)
    cluster.stop()
    return 201, cluster.as_json()


@route("POST", "/api/dask_clusters/*/csr")
def csr(service, request, id):
    service.find(id)
    authority = service.runtime.need_pki()
    try:
        return 200, Text(authority.sign(request.raw) + authority.pem)
    except service.runtime.pki.BadRequest as error:
        raise ApiError(400, str(error), "bad_request") from None


# The calls of today's API


def page(items, request, name):
    try:
        size = int(request.query.get("page_size", 100))
        start = int(request.query.get("next_key", 0))
    except ValueError:
        raise ApiError(400, "page_size and next_key must be integers.", "validation_error") from None
    if not 1 <= size <= 1000 or start < 0:
        raise ApiError(400, "page_size must be within 1 and 1000.", "validation_error")
    if request.flag("descending"):
        items = items[::-1]
    out = {name: items[start : start + size], "prev_key": None, "next_key": None}
    if start + size < len(items):
        out["next_key"] = str(start + size)
    if start > 0:
        out["prev_key"] = str(max(0, start - size))
    return 200, out


@route("GET", "/api/dask_clusters")
def list_clusters(service, request):
    with service.lock:
        clusters = list(service.clusters.values())
    owner = request.query.get("owner_name") or request.query.get("owner")
    return page([c.as_json() for c in clusters if owner in (None, c.owner)], request, "dask_clusters")


@route("PATCH", "/api/dask_clusters/*")
def patch(service, request, id):
    cluster = service.find(id)
    settings = check_settings(request.body)
    if cluster.status() != "stopped" and settings:
        raise ApiError(409, "Stop the dask cluster before its settings are changed.", "running")
    cluster.settings.update(settings)
    if isinstance(request.body.get("tags"), list):
        cluster.tags = list(request.body["tags"])
    return 200, cluster.as_json()


@route("DELETE", "/api/dask_clusters/*")
def delete(service, request, id):
    cluster = service.find(id)
    if cluster.status() != "stopped" and not request.flag("allow_active"):
        raise ApiError(409, "The dask cluster is active; stop it first.", "running")
    cluster.stop()
    with service.lock:
        service.clusters.pop(id, None)
        service.by_key = {key: value for key, value in service.by_key.items() if value is not cluster}
    return 204, NO_BODY


@route("POST", "/api/dask_clusters/*/start")
def start(service, request, id):
    cluster = service.find(id)
    cluster.start({})
    cluster.wait(request.prefer_wait())
    return 200, cluster.as_json()


@route("POST", "/api/dask_clusters/*/stop")
def stop(service, request, id):
    cluster = service.find(id)
    cluster.stop()
    return 200, cluster.as_json()


@route("POST", "/api/dask_clusters/*/restart")
def restart(service, request, id):
    cluster = service.find(id)
    cluster.stop()
    cluster.start({})
    cluster.wait(request.prefer_wait())
    return 200, cluster.as_json()


@route("GET", "/api/dask_clusters/*/runtimesummary")
def runtime_summary(service, request, id):
    return 200, service.find(id).runtime_summary()


@route("GET", "/api/dask_clusters/*/scheduler/runtimesummary")
def scheduler_summary(service, request, id):
    return 200, {"scheduler": service.find(id).runtime_summary()["scheduler_summary"]}


@route("GET", "/api/dask_clusters/*/kubecluster/runtimesummary")
def kubecluster_summary(service, request, id):
    return 200, {"kubecluster": service.find(id).runtime_summary()["kubecluster_summary"]}


@route("GET", "/api/dask_clusters/*/workers/runtimesummary")
def worker_summary(service, request, id):
    return page(service.find(id).workers(), request, "workers")


@route("GET", "/api/dask_clusters/*/history")
def history(service, request, id):
    return page(list(service.find(id).history), request, "history")


@route("GET", "/api/dask_clusters/*/logs")
def logs(service, request, id):
    cluster = service.find(id)
    component = request.query.get("component")
    if component not in (None, "kubecluster", "scheduler", "worker"):
        raise ApiError(400, "component is one of kubecluster, scheduler, worker.", "validation_error")
    out = []
    if component in (None, "kubecluster"):
        with service.lock:
            lines = "".join(service.log_lines)
        out.append({"pod_name": "service", "component": "kubecluster", "logs": service.redact(lines)})
    if component != "kubecluster":
        try:
            out += cluster.logs(component, request.query.get("pod_name"))
        except ApiError:
            if component is not None:
                raise
    return 200, {"logs": out}


def add_parents(kind):
    base = f"/api/{kind}s"

    @route("GET", base)
    def list_parents(service, request):
        name = request.query.get("name")
        found = [p for p in service.parents.values() if p["resource_type"] == kind and name in (None, p["name"])]
        return page(found, request, kind + "s")

    @route("GET", base + "/*")
    def get_parent(service, request, id):
        return 200, service.parent(kind, id)

    def begin(service, request, id):
        parent = service.parent(kind, id)
        parent["status"] = "running"
        return 200, parent

    def end(service, request, id):
        parent = service.parent(kind, id)
        service.each(service.children(parent), "stop")  # a cluster follows its parent
        parent["status"] = "stopped"
        return 200, parent

    def again(service, request, id):
        end(service, request, id)
        return begin(service, request, id)

    route("POST", base + "/*/start")(begin)
    route("POST", base + "/*/stop")(end)
    route("POST", base + "/*/restart")(again)


for _kind in ("workspace", "deployment", "job"):
    add_parents(_kind)


def recipe(parent, service):
    clusters = service.children(parent)
    spec = {"name": parent["name"], "owner": "local", "dask_cluster": None}
    if clusters:
        c = clusters[0].as_json()
        spec["dask_cluster"] = {
            "num_workers": c["n_workers"],
            "scheduler": {"instance_type": c["scheduler_size"]},
            "worker": {
                "instance_type": c["worker_size"], "num_processes": c["nprocs"], "num_threads": c["nthreads"],
                "use_spot_instances": c["worker_is_spot"],
            },
        }
    return {
        "type": parent["resource_type"], "spec": spec, "state": {"id": parent["id"], "status": parent["status"]},
    }


@route("GET", "/api/recipes")
def recipes(service, request):
    kind, name = request.query.get("type"), request.query.get("name")
    found = [
        recipe(p, service) for p in service.parents.values()
        if kind in (None, p["resource_type"]) and name in (None, p["name"])
    ]
    return 200, {"recipes": found, "next_last_key": None, "next_key": None}


@route("GET", "/api/recipes/*/*")
def one_recipe(service, request, kind, name):
    for p in service.parents.values():
        if p["resource_type"] == kind and p["name"] == name:
            return 200, recipe(p, service)
    raise ApiError(404, f"{kind.capitalize()} {name} not found.", "not_found")


@route("GET", "/api/status")
def service_status(service, request):
    return 200, {"status": "ok", "version": VERSION}


@route("GET", "/api/user")
def user(service, request):
    return 200, {"id": "local", "username": "local", "name": "local", "email": None, "admin": False}


@route("GET", "/api/user/token")
def user_token(service, request):
    return 200, {"token": service.token}


@route("GET", "/api/orgs")
def orgs(service, request):
    return 200, {"orgs": [{"id": "local", "name": "local", "is_primary": True}], "next_key": None}


@route("GET", "/api/info/servers")
def servers(service, request):
    listed = sizes(service, request)[1]["server_options"]["size"]
    return 200, {"sizes": {size["name"]: size for size in listed}, "disk_space": [], "auto_shutoff": ["Never"]}


@route("POST", "/_shutdown")
def shutdown(service, request):
    threading.Timer(0.05, service.ended.set).start()
    return 200, {"status": "stopping"}


# Test control


@route("POST", "/_test/faults")
def set_faults(service, request):
    try:
        service.faults.set(request.body)
    except (ValueError, TypeError) as error:
        raise ApiError(400, str(error)) from None
    return 200, {"faults": service.faults.left()}


@route("GET", "/_test/faults")
def get_faults(service, request):
    return 200, {"faults": service.faults.left()}


@route("DELETE", "/_test/faults")
def clear_faults(service, request):
    service.faults.clear()
    return 204, NO_BODY


@route("GET", "/_test/requests")
def get_requests(service, request):
    with service.lock:
        out = list(service.requests)
        if request.flag("clear"):
            service.requests.clear()
    return 200, {"requests": out}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "saturn-local"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 300  # an idle connection

    def log_message(self, *args):
        pass

    def answer(self):
        service = self.server.service
        url = urllib.parse.urlsplit(self.path)
        path = url.path
        parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        test = path.startswith("/_test/")
        rule = None
        try:
            raw = self.read_body()
            if test and service.faults is None:
                raise ApiError(404, f"There is nothing at {path}.", "not_found")
            request = Request(self.command, path, query, self.headers, raw)
            if service.faults and not test:
                rule = service.faults.take(self.command, path)
                if rule:
                    time.sleep(float(rule.get("delay", 0)))
                    if rule.get("expire_token"):
                        service.expired.add(service.token)
            if rule and "status" in rule:
                status, value = self.scripted(rule)
            else:
                if (self.command, path) == ("POST", "/api/auth/token"):
                    status, value = 200, service.refresh(request.body)
                else:
                    if not test:
                        service.authorize(self.headers)
                    elif service.token not in self.headers.get("Authorization", ""):
                        raise ApiError(401, "The token is not valid.", "unauthorized")
                    status, value = self.dispatch(service, request, parts)
                if rule:
                    status, value = self.twist(service, request, rule, status, value)
        except ApiError as error:
            status, value = error.status, {"message": error.message}
            if error.code:
                value["error_code"] = error.code
        except Exception as error:
            status, value = 500, {"message": f"{type(error).__name__}: {error}", "error_code": "internal_error"}
        if not test and service.faults is not None:
            self.remember(service, url, status)
        data = self.response(status, value, (rule or {}).get("headers"))
        try:
            if rule:
                spoil(rule, self, data)
            else:
                self.wfile.write(data)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

    def read_body(self):
        self.body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            data = b""
            while True:
                size = int(self.rfile.readline(64).split(b";")[0], 16)
                if len(data) + size > LARGEST_BODY:
                    self.close_connection = True
                    raise ApiError(413, "The body is too large.")
                data += self.rfile.read(size)
                self.rfile.readline(8)
                if size == 0:
                    break
            self.body = data
            return data
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            self.close_connection = True
            raise ApiError(400, "Content-Length is not a number.") from None
        if not 0 <= length <= LARGEST_BODY:
            self.close_connection = True
            raise ApiError(413, "The body is too large.")
        self.body = self.rfile.read(length) if length else b""
        return self.body

    def dispatch(self, service, request, parts):
        seen = False
        for method, pattern, function in ROUTES:
            found = match(pattern, parts)
            if found is not None:
                if method == request.method:
                    return function(service, request, *found)
                seen = True
        if seen:
            raise ApiError(405, f"{request.path} does not take {request.method}.", "method_not_allowed")
        raise ApiError(404, f"There is nothing at {request.path}.", "not_found")

    @staticmethod
    def scripted(rule):
        if "json" in rule:
            return rule["status"], rule["json"]
        return rule["status"], Text(rule.get("body", ""))

    @staticmethod
    def twist(service, request, rule, status, value):
        if "json" in rule:
            value = rule["json"]
        elif "body" in rule:
            value = Text(rule["body"])
        if isinstance(value, dict):
            for name in ("errors", "warnings"):
                if name in rule:
                    value = dict(value, **{name: rule[name]})
            if "cluster_status" in rule:
                value = dict(value, status=rule["cluster_status"])
            if "scheduler" in rule:
                value = dict(value, scheduler_address=service.faults.scheduler(rule["scheduler"], service.runtime))
        if "csr" in rule:
            value = Text(service.faults.csr(rule["csr"], service.runtime, request.raw))
        return status, value

    def response(self, status, value, headers):
        if value is NO_BODY or status in (204, 304):
            kind, body = None, b""
        elif isinstance(value, Text):
            kind = "text/html" if value.lstrip()[:1] == "<" else "application/x-pem-file"
            kind = kind if value.lstrip()[:1] in ("<", "-") else "text/plain"
            body = value.encode()
        else:
            kind, body = "application/json", json.dumps(value, default=str).encode()
        try:
            reason = http.HTTPStatus(status).phrase
        except ValueError:
            reason = "Unknown"
        head = [f"HTTP/1.1 {status} {reason}", f"Server: {self.version_string()}", f"Date: {self.date_time_string()}"]
        if kind:
            head.append(f"Content-Type: {kind}")
        if status not in (204, 304):
            head.append(f"Content-Length: {len(body)}")
        if status == 401:
            head.append("WWW-Authenticate: Bearer")
        if self.close_connection:
            head.append("Connection: close")
        for name, text in (headers or {}).items():
            head.append(f"{name}: {text}")
        return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + (b"" if self.command == "HEAD" else body)

    def remember(self, service, url, status):
        headers = {}
        for name, text in self.headers.items():
            name = name.lower()
            headers[name] = text.split(" ")[0] + " <secret>" if name == "authorization" else service.redact(text)
        entry = {
            "time": time.time(), "method": self.command, "path": url.path, "query": url.query, "headers": headers,
            "body": service.redact(self.body[:4096].decode("utf-8", "replace")), "status": status,
            "connection": self.client_address[1],
        }
        with service.lock:
            service.requests.append(entry)
            del service.requests[:-1000]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    tls = None

    def server_bind(self):
        # Without the look-up of this machine's name that HTTPServer makes: it can take seconds.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def finish_request(self, request, client_address):
        if self.tls is not None:  # in the connection's own thread
            request.settimeout(30)
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)
        if self.tls is not None:
            request.close()

    def handle_error(self, request, client_address):
        pass  # a connection that the other side broke


# The process

GUARD = """
trap '' INT TERM HUP QUIT
IFS= read -r word
[ "$word" = end ] && exit 0
kill -s KILL -- "-$2" 2>/dev/null
case $1 in */saturn-local-*) ;; *) exit 0 ;; esac
for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.1
    rm -rf -- "$1" 2>/dev/null
    [ -e "$1" ] || exit 0
done
"""


class Process:
    """The life of this process: its standard streams, its group, its directory, and how all of it ends."""

    def __init__(self, verbose):
        self.output = os.fdopen(os.dup(1), "w")
        self.error = os.fdopen(os.dup(2), "w")
        self.stdin = os.dup(0)
        self.directory = None
        self.guard = None
        self.terminal = os.isatty(self.stdin)
        self.verbose = verbose

    def separate(self, service_lines, lock):
        """Takes the standard streams from what runs here: workers inherit none, and what they print is kept as log."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        read, write = os.pipe()
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(null)
        os.close(write)
        sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)
        sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)

        def drain():
            with os.fdopen(read, "r", errors="replace") as lines:
                for line in lines:
                    with lock:
                        service_lines.append(line[:2000])
                        del service_lines[:-1000]
                    if self.verbose:
                        self.error.write(line)
                        self.error.flush()

        threading.Thread(target=drain, name="log", daemon=True).start()

    def own_group(self):
        """A process group of its own, so that the whole of it can be ended; on a terminal the shell made one."""
        if os.getpgrp() != os.getpid() and not self.terminal:
            os.setpgid(0, 0)
        return os.getpgrp() == os.getpid()

    def start_guard(self):
        """A shell that waits for this process to end, and then ends the group and removes the directory.

        Dask's workers watch their parent, but a worker that is busy in foreign code may not see it, and a
        process that is killed cannot clean up after itself."""
        group = os.getpid() if self.own_group() else 0
        script = GUARD if group else GUARD.replace('kill -s KILL -- "-$2" 2>/dev/null', ":")
        self.guard = subprocess.Popen(
            ["/bin/sh", "-c", script, "saturn-local-guard", self.directory, str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch_stdin(self, ended):
        def watch():
            try:
                while os.read(self.stdin, 4096):
                    pass
            except OSError:
                pass
            ended.set()

        if not self.terminal:
            threading.Thread(target=watch, name="stdin", daemon=True).start()

    def finish(self):
        """Ends every child that is left, removes the directory, and leaves without waiting for any thread."""
        for _ in range(3):
            left = [p for p in children(os.getpid()) if self.guard is None or p != self.guard.pid]
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            if not left:
                break
        shutil.rmtree(self.directory, ignore_errors=True)
        if os.path.exists(self.directory):
            time.sleep(0.1)
            shutil.rmtree(self.directory, ignore_errors=True)
        if self.guard is not None:
            try:
                self.guard.stdin.write(b"end\n")
                self.guard.stdin.close()
                self.guard.wait(2)
            except (OSError, subprocess.TimeoutExpired):
                pass
        os._exit(0)


def children(pid):
    try:
        import psutil  # comes with Dask

        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except Exception:
        return []


def parse(arguments):
    parser = argparse.ArgumentParser(prog="service.py", description="Saturn's cluster API on this machine.")
    parser.add_argument("--token-file", help="write {\"token\": ...} there, for this user only; removed at the end")
    parser.add_argument("--ignore-stdin", action="store_true", help="do not end at the end of standard input")
    parser.add_argument("--verbose", action="store_true", help="show on standard error what workers print")
    parser.add_argument("--require-project-id", action="store_true", help="behave as servers before July 2021")
    parser.add_argument("--test-control", action="store_true", help="serve /_test/faults and /_test/requests")
    parser.add_argument("--https", choices=("valid", "expired", "wrong_host"), help="serve HTTPS (for tests)")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    process = Process(options.verbose)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    process.directory = tempfile.mkdtemp(prefix="saturn-local-")
    tempfile.tempdir = process.directory
    process.start_guard()
    service, announced = None, False
    try:
        service = Service(options, process.directory)
        service.ended = ended
        process.separate(service.log_lines, service.lock)
        server = Server(("127.0.0.1", 0), Handler)
        server.service = service
        line = {
            "base_url": f"http://127.0.0.1:{server.server_port}", "token": service.token,
            "refresh_token": service.refresh_token, "token_file": None, "pid": os.getpid(),
        }
        if options.https:
            authority = service.runtime.need_pki()
            hosts = ("some-other-name.example",) if options.https == "wrong_host" else ("localhost", "127.0.0.1")
            key, certificate = authority.server(hosts, expired=options.https == "expired")
            server.tls = server_context(process.directory, certificate, key)
            line["base_url"] = f"https://localhost:{server.server_port}"
            line["ca_file"] = os.path.join(process.directory, "ca.pem")
            with open(line["ca_file"], "w") as file:
                file.write(authority.pem)
        if options.token_file:
            try:
                service.write_token()
            except OSError as error:
                raise OSError(f"the token cannot be written to {options.token_file}: {error.strerror}") from None
            line["token_file"] = os.path.abspath(options.token_file)
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        announced = True
        process.output.write(json.dumps(line) + "\n")
        process.output.flush()  # and stays open: its end tells the parent that this process ended
        if not options.ignore_stdin:
            process.watch_stdin(ended)
        while not ended.wait(1):  # a wait without end keeps signals from being seen on some systems
            pass
        service.faults and service.faults.clear()
        server.socket.close()
        # Workers that still start are slow to stop; at the end nothing is lost when they are killed.
        service.each(list(service.clusters.values()), "stop", 1)
    except OSError as error:
        process.error.write(f"saturn local service: {error}\n")
        process.error.flush()
        if not announced:
            process.output.write(json.dumps({"failed": str(error)}) + "\n")
            process.output.flush()
    finally:
        if service is not None:
            service.remove_token()
        process.finish()
