"""Peers that break Dask's protocol, each in its way; spec/support/hostile.lua is the only user.

Listens on a port for each way and says which on stdout as one JSON object. Ends at the end of stdin. The peer "fake" is
a scheduler that is well-behaved until a task's key asks for something else: see FakeScheduler.
"""

import json
import os
import socket
import struct
import sys
import threading
import time

import msgpack

PACK = lambda value: msgpack.packb(value, use_bin_type=True)  # noqa: E731
HELLO = {"compression": None, "python": [3, 9, 0], "pickle-protocol": 5}
VERSION = "2024.12.1"  # of the fake scheduler: its update-graph names the wanted keys in plain msgpack, as a set


def frames_bytes(*frames):
    lengths = struct.pack("<%dQ" % len(frames), *map(len, frames))
    head = struct.pack("<2Q", 8 + len(lengths) + sum(map(len, frames)), len(frames))
    return head + lengths + b"".join(frames)


def nested(depth, inner=b"\xc0"):
    return b"\x91" * depth + inner


class Conn:
    def __init__(self, sock):
        self.sock = sock

    def exactly(self, n):
        data = bytearray()
        while len(data) < n:
            piece = self.sock.recv(min(n - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def receive(self):
        _, count = struct.unpack("<2Q", self.exactly(16))
        lengths = struct.unpack("<%dQ" % count, self.exactly(8 * count))
        return [self.exactly(n) for n in lengths]

    def message(self):
        return msgpack.unpackb(self.receive()[0], raw=False, strict_map_key=False)

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, value, *frames):
        self.raw(frames_bytes(PACK(value), *frames))

    def hello(self):
        self.receive()
        self.send(HELLO)

    def rest(self):
        """Takes what comes until the other side leaves."""
        while self.sock.recv(65536):
            pass


# ---- peers that go wrong while a client connects ------------------------------------------------------------------

PEERS = {}


def peer(fn):
    PEERS[fn.__name__] = fn
    return fn


@peer
def silent(conn):
    conn.rest()


@peer
def mute_after_hello(conn):
    conn.hello()
    conn.rest()


@peer
def closes(conn):
    pass


@peer
def closes_after_hello(conn):
    conn.hello()


@peer
def http(conn):
    conn.sock.recv(10)
    conn.raw(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n")
    conn.rest()


@peer
def noise(conn):
    conn.raw(bytes(range(255, 0, -1)) * 4)
    conn.rest()


@peer
def hello_is_no_map(conn):
    conn.send(5)
    conn.rest()


@peer
def hello_counts_2_to_60(conn):
    conn.raw(struct.pack("<2Q", 0, 1 << 60))
    conn.rest()


def after_hello(name, data):
    """A peer that answers every request with these bytes."""

    def run(conn):
        conn.hello()
        while True:
            conn.receive()
            conn.raw(data)

    PEERS[name] = run


after_hello("counts_2_to_60", struct.pack("<2Q", 0, 1 << 60))
after_hello("counts_none", struct.pack("<2Q", 0, 0))
after_hello("frame_of_2_to_40", struct.pack("<3Q", 0, 1, 1 << 40))
after_hello("lengths_overflow", struct.pack("<4Q", 0, 2, (1 << 64) - 1, 2))
after_hello("many_frames", struct.pack("<2Q", 0, 1 << 16) + b"\xff" * (8 << 16))
after_hello("broken_msgpack", frames_bytes(b"\xc1"))
after_hello("cut_msgpack", frames_bytes(b"\x82\xa6status\xa2OK"))
after_hello("empty_msgpack", frames_bytes(b""))
after_hello("deep_msgpack", frames_bytes(nested(100000)))
after_hello("wide_msgpack", frames_bytes(b"\xdd\xff\xff\xff\xff"))
after_hello("points_to_no_frame", frames_bytes(PACK({"packages": {"__Serialized__": 7}})))
for name, reply in {
    "replies_nil": None,
    "replies_number": 5,
    "replies_text": "OK",
    "replies_list": [1, 2],
    "replies_empty": {},
    "replies_packages_text": {"packages": "distributed"},
    "replies_packages_number": {"packages": {"distributed": 5}},
    "replies_error": {"status": "uncaught-error", "exception_text": "KeyError('versions')", "traceback_text": ""},
    "replies_bare_error": {"status": "uncaught-error"},
    "replies_odd_error": {"status": "uncaught-error", "exception_text": 5, "traceback_text": [1]},
    "old": {"packages": {"distributed": "2021.10.0"}},
    "unknown_version": {"packages": {"distributed": "unknown"}},
}.items():
    after_hello(name, frames_bytes(PACK(reply)))


@peer
def cut_in_the_middle(conn):
    conn.hello()
    conn.receive()
    conn.raw(frames_bytes(PACK({"packages": {"distributed": VERSION}}))[:-5])


def stream_peer(name, *data):
    """A scheduler of a proper version whose stream begins with these bytes."""

    def run(conn):
        conn.hello()
        if conn.message().get("op") == "register-client":
            for piece in data:
                conn.raw(piece)
            return conn.rest()
        conn.send({"packages": {"distributed": VERSION}})
        conn.rest()

    PEERS["stream_" + name] = run


stream_peer("silent")
stream_peer("refuses", frames_bytes(PACK([{"op": "stream-start", "warning": "", "error": "not you"}])))
stream_peer("number", frames_bytes(PACK(5)))
stream_peer("of_numbers", frames_bytes(PACK([1, 2, 3])))
stream_peer("broken", frames_bytes(b"\x91\xc1"))
stream_peer("cut", frames_bytes(b"\x92\x81\xa2op\xacstream-start"))
stream_peer("empty", frames_bytes(b""))
stream_peer("counts_2_to_60", struct.pack("<2Q", 0, 1 << 60))


# ---- a scheduler that is fake ------------------------------------------------------------------------------------


def lz4(size, data):
    return struct.pack("<I", size) + data


def serialized(header, *frames, count=None, index=1, before=()):
    """A gather reply's data as (what stands in frame 0, the other frames)."""
    header = dict(header)
    header.setdefault("num-sub-frames", len(frames) if count is None else count)
    return {"__Serialized__": index}, [*before, PACK(header), *frames]


def pickled(data):
    return serialized({"serializer": "pickle", "writeable": []}, data)


def array(frame, **sub_header):
    base = {"dtype": [0, "<f8"], "shape": [2], "strides": [8], "writeable": [True]}
    return serialized(
        {"serializer": "dask", "type": "numpy.ndarray", "type-serialized": b"", "sub-header": {**base, **sub_header}},
        frame,
    )


GOOD = b"\x80\x04K\x03."
P4 = b"\x80\x04"
VALUES = {
    "good": pickled(GOOD),
    "large": pickled(b"\x80\x04X\x88\x13\0\0" + b"x" * 5000 + b"."),
    "pickle-empty": pickled(b""),
    "pickle-cut": pickled(b"\x80\x04X\xff\xff\xff\x7fabc"),
    "pickle-no-stop": pickled(b"\x80\x04K\x03"),
    "pickle-underflow": pickled(P4 + b"a."),
    "pickle-no-mark": pickled(P4 + b"t."),
    "pickle-bad-memo": pickled(P4 + b"h\x07."),
    "pickle-huge-memo": pickled(P4 + b"Nr\xff\xff\xff\x7f."),
    "pickle-unknown-op": pickled(P4 + b"\xff."),
    "pickle-two-left": pickled(P4 + b"K\x01K\x02."),
    "pickle-protocol-9": pickled(b"\x80\x09K\x03."),
    "pickle-persistent": pickled(P4 + b"Vx\nQ."),
    "pickle-extension": pickled(P4 + b"\x82\x01."),
    "pickle-buffer": pickled(b"\x80\x05\x97."),
    "pickle-deep": pickled(P4 + b"]" * 100000 + b"a" * 99999 + b"."),
    "pickle-cycle": pickled(P4 + b"]\x94h\x00a."),
    "pickle-bad-utf8": pickled(P4 + b"\x8c\x02\xff\xfe."),
    "pickle-huge-int": pickled(P4 + b"\x8b\xff\xff\xff\x7f."),
    "pickle-long": pickled(P4 + b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffx."),
    "pickle-unhashable-key": pickled(P4 + b"}]K\x01s."),
    "no-frames": serialized({"serializer": "pickle", "writeable": []}),
    "too-few-frames": serialized({"serializer": "pickle"}, GOOD, count=9),
    "huge-count": serialized({"serializer": "pickle"}, GOOD, count=2**63 - 1),
    "negative-count": serialized({"serializer": "pickle"}, GOOD, count=-1),
    "index-beyond": ({"__Serialized__": 99}, []),
    "index-zero": ({"__Serialized__": 0}, []),
    "index-text": ({"__Serialized__": "x"}, []),
    "header-number": ({"__Serialized__": 1}, [PACK(5)]),
    "header-broken": ({"__Serialized__": 1}, [b"\x81\xc1"]),
    "header-empty": ({"__Serialized__": 1}, [b""]),
    "header-deep": ({"__Serialized__": 1}, [b"\x81\xa3key" + nested(100000)]),
    "no-serializer": serialized({}, GOOD),
    "unknown-serializer": serialized({"serializer": "arrow"}, GOOD),
    "unknown-type": serialized({"serializer": "dask", "type": "cupy.ndarray"}, GOOD),
    "error-serializer": serialized({"serializer": "error"}, b"cannot pickle 'generator' object", b"Traceback"),
    "error-bare": serialized({"serializer": "error"}),
    "msgpack-broken": serialized({"serializer": "msgpack"}, b"\x92\x01"),
    "msgpack-deep": serialized({"serializer": "msgpack"}, nested(5000)),
    "unknown-compression": serialized({"serializer": "pickle", "compression": ["blosc"]}, GOOD),
    "lz4-broken": serialized({"serializer": "pickle", "compression": ["lz4"]}, b"abcdefgh"),
    "lz4-bomb": serialized({"serializer": "pickle", "compression": ["lz4"]}, lz4(2**31 - 1, b"\x00")),
    "zstd-broken": serialized({"serializer": "pickle", "compression": ["zstd"]}, b"abcdefgh"),
    "zlib-broken": serialized({"serializer": "pickle", "compression": ["zlib"]}, b"abcdefgh"),
    "snappy-broken": serialized({"serializer": "pickle", "compression": ["snappy"]}, b"\xff\xff\xff\xff\x0fabc"),
    "splits-beyond": serialized(
        {"serializer": "pickle", "split-num-sub-frames": [5], "split-offsets": [0]}, GOOD
    ),
    "splits-overlap": serialized(
        {"serializer": "pickle", "split-num-sub-frames": [1, 1], "split-offsets": [0, 0]}, GOOD
    ),
    "splits-text": serialized({"serializer": "pickle", "split-num-sub-frames": ["x"], "split-offsets": ["y"]}, GOOD),
    "array-short": array(b"12345678"),
    "array-empty": array(b""),
    "array-huge": array(b"x" * 16, shape=[2**62, 2**62], strides=[8, 8]),
    "array-negative": array(b"x" * 16, shape=[-2]),
    "array-backwards": array(b"x" * 16, strides=[-8]),
    "array-strides": array(b"x" * 16, strides=[2**40]),
    "array-strides-overflow": array(b"x" * 16, strides=[2**63 - 1]),
    "array-dimensions": array(b"x" * 16, shape=[1] * 99, strides=[8] * 99),
    "array-dtype": array(b"x" * 16, dtype=[0, "<q99"]),
    "array-dtype-long": array(b"x" * 16, dtype=[0, "<f8" * 99]),
    "array-dtype-number": array(b"x" * 16, dtype=5),
    "array-no-header": serialized({"serializer": "dask", "type": "numpy.ndarray"}, b"x" * 16),
    "array-no-frame": serialized({"serializer": "dask", "type": "numpy.ndarray", "sub-header": {}}),
    "array-pickled": array(b"\x80\x04", pickle=True),
    "carray-typecode": serialized({"serializer": "dask", "type": "array.array", "sub-header": {"typecode": "~"}}, b"abcd"),
    "collection-empty-lie": serialized(
        {"is-collection": True, "type-serialized": "list", "sub-headers": [{}], "frame-lengths": [3]}
    ),
    "collection-type": serialized(
        {"is-collection": True, "type-serialized": "deque", "sub-headers": [], "frame-lengths": []}
    ),
    "collection-lengths": serialized(
        {"is-collection": True, "type-serialized": "list", "sub-headers": [{"serializer": "pickle"}], "frame-lengths": []},
        GOOD,
    ),
    "collection-headers": serialized(
        {"is-collection": True, "type-serialized": "dict", "sub-headers": [5], "frame-lengths": [1]}, GOOD
    ),
    "collection-key": serialized(
        {
            "is-collection": True,
            "type-serialized": "dict",
            "sub-headers": [{"serializer": "pickle", "key": None}, {"serializer": "pickle"}],
            "frame-lengths": [1, 1],
        },
        GOOD,
        GOOD,
    ),
    "pickled-number": ({"__Pickled__": 1}, [PACK(5)]),
    "pickled-bare": ({"__Pickled__": 1}, [PACK({})]),
    "plain": (5, []),
}


def deep_collection():
    header = {"serializer": "pickle"}
    for _ in range(2000):
        header = {"is-collection": True, "type-serialized": "list", "sub-headers": [header], "frame-lengths": [1]}
    packer = msgpack.Packer(use_bin_type=True)
    data = b""
    inner = packer.pack({"serializer": "pickle"})
    for _ in range(2000):
        data = (
            b"\x84\xadis-collection\xc3\xaftype-serialized\xa4list\xadframe-lengths\x91\x01\xabsub-headers\x91" + inner
        )
        inner = data
    outer = b"\x85\xaenum-sub-frames\x01" + inner[1:]
    return {"__Serialized__": 1}, [outer, GOOD]


VALUES["collection-deep"] = deep_collection()

# What a gather answers instead of {"status": "OK", "data": {...}}.
REPLIES = {
    "reply-nil": None,
    "reply-number": 5,
    "reply-list": [1],
    "reply-empty": {},
    "reply-no-data": {"status": "OK"},
    "reply-data-number": {"status": "OK", "data": 5},
    "reply-other-key": {"status": "OK", "data": {"x": 1}},
    "reply-error": {"status": "error", "keys": 5},
}


def pickle_of_error(name):
    return b"\x80\x04\x8c\x08builtins\x8c" + bytes([len(name)]) + name.encode() + b"\x93\x8c\x02no\x85R."


# What a task's failure looks like: (exception, traceback, other frames).
ERRORS = {
    "erred-good": (pickle_of_error("ValueError"), None, []),
    "erred-nil": (None, None, []),
    "erred-number": (5, 5, []),
    "erred-text": ("ValueError", "Traceback", []),
    "erred-empty": (b"", b"", []),
    "erred-broken": (b"\x80\x04\xff.", b"\x80\x04\xff.", []),
    "erred-no-exception": (b"\x80\x04K\x05.", b"\x80\x04K\x05.", []),
    "erred-list": (b"\x80\x04].", b"\x80\x04].", []),
    "erred-dict": (b"\x80\x04}\x8c\x04nameK\x05s.", b"\x80\x04]K\x05a.", []),
    "erred-deep": (b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".", None, []),
    "erred-points-nowhere": ({"__Serialized__": 9}, {"__Serialized__": 9}, []),
    "erred-bad-header": ({"__Serialized__": 1}, {"__Serialized__": 1}, [PACK(5)]),
    "erred-args": (b"\x80\x04\x8c\x08builtins\x8c\x0aValueError\x93}R.", None, []),
}

# What comes on the stream in place of an answer, as bytes of frame 0.
STREAM = {
    "stream-broken": b"\x91\xc1",
    "stream-number": PACK(5),
    "stream-count": b"\xdd\xff\xff\xff\xff",
}
ODD = {  # these are no reason to end the connection
    "odd-no-op": PACK([{"key": "x"}]),
    "odd-op-number": PACK([{"op": 5}]),
    "odd-unknown-op": PACK([{"op": "what", "x": {"__Serialized__": 99}}]),
    "odd-no-key": PACK([{"op": "key-in-memory"}, {"op": "task-erred"}, {"op": "lost-data"}]),
    "odd-cancel": PACK([{"op": "cancelled-keys", "keys": k} for k in (None, 5, {}, {"__Set__": True}, [[]])]),
    "odd-type": PACK([{"op": "key-in-memory", "key": "odd-type", "type": t} for t in (5, b"", b"\xff", "int")]),
    "odd-event": PACK([{"op": "event"}, {"op": "event", "topic": 5, "event": 5}]),
    "odd-interval": PACK([{"op": "adjust-heartbeat-interval", "interval": "x"}]),
    "odd-deep": b"\x91\x82\xa2op\xa5event\xa1x" + nested(100000),
    "odd-deep-op": b"\x91\x81\xa2op" + nested(100000),
    "odd-pubsub": PACK([{"op": "pubsub-msg"}]),
}


class FakeScheduler:
    """Answers like a scheduler. A task named in VALUES, REPLIES or ERRORS ends at once, with what is said there.

    The request answer-with makes it answer all that come after with its `value`, on all connections; without one it is
    itself again.
    """

    answer = ()

    def serve(self, conn):
        conn.hello()
        while True:
            message = conn.message()
            op = message.get("op")
            if op == "register-client":
                return self.stream(conn)
            if op == "answer-with":
                FakeScheduler.answer = (message["value"],) if "value" in message else ()
                conn.send("OK")
            elif FakeScheduler.answer:
                conn.send(FakeScheduler.answer[0])
            elif op == "versions":
                conn.send({"packages": {"distributed": VERSION}})
            elif op == "identity":
                conn.send({"type": "Scheduler", "workers": {}, "services": {}})
            elif op == "gather":
                self.gather(conn, message["keys"][0])
            elif op == "hang-up":
                return None
            else:
                conn.send(None)

    def gather(self, conn, key):
        if key in REPLIES:
            return conn.send(REPLIES[key])
        if key == "gather-cut":
            conn.raw(frames_bytes(PACK({"status": "OK"}), b"x" * 1000)[:-500])
            raise EOFError
        if key == "gather-never":
            return None
        value, frames = VALUES.get(key, VALUES["good"])
        conn.send({"status": "OK", "data": {key: value}}, *frames)

    def stream(self, conn):
        conn.send([{"op": "stream-start", "warning": "", "error": ""}])
        while True:
            batch = conn.message()
            for message in batch if isinstance(batch, list) else [batch]:
                if message.get("op") in ("close-client", "close-stream"):
                    return
                if message.get("op") == "report-key" and str(message["key"]).startswith(("settle", "saturn-")):
                    conn.send([{"op": "cancelled-key", "key": message["key"]}])  # there is no such task
                if message.get("op") == "update-graph":
                    for key in message["keys"]["as-list"]:
                        self.task(conn, key)

    def task(self, conn, key):
        if key in STREAM:
            conn.raw(frames_bytes(STREAM[key]))
            conn.rest()
        if key == "stream-cut":
            conn.raw(frames_bytes(b"x" * 1000)[:-500])
            raise EOFError
        if key == "stream-frame":
            conn.raw(struct.pack("<3Q", 0, 1, 1 << 62))
            conn.rest()
        if key == "stream-close":
            raise EOFError
        if key == "pending":
            return
        if key in ODD:
            conn.raw(frames_bytes(ODD[key]))
        if key in ERRORS:
            exception, traceback, frames = ERRORS[key]
            conn.send([{"op": "task-erred", "key": key, "exception": exception, "traceback": traceback}], *frames)
        else:
            conn.send([{"op": "key-in-memory", "key": key}])


@peer
def fake(conn):
    FakeScheduler().serve(conn)


# ------------------------------------------------------------------------------------------------------------------


def serve(listener, run):
    def one(sock):
        try:
            run(Conn(sock))
        except (OSError, EOFError, ValueError, struct.error):
            pass
        finally:
            sock.close()

    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=one, args=(sock,), daemon=True).start()


def main():
    ports = {}
    for name, run in PEERS.items():
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        ports[name] = listener.getsockname()[1]
        threading.Thread(target=serve, args=(listener, run), daemon=True).start()
    keys = {"values": sorted(VALUES), "replies": sorted(REPLIES), "errors": sorted(ERRORS), "stream": sorted(STREAM),
            "odd": sorted(ODD)}  # fmt: skip
    print(json.dumps({"ports": ports, "keys": keys}), flush=True)
    parent = os.getppid()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


main()
