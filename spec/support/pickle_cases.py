"""Python values pickled for the Lua reader, and a check of what it made of them.

pickle_cases.py make FILE SEED COUNT      writes pickles of fixed and random values in all protocols
pickle_cases.py check FILE SEED COUNT     FILE holds what Lua wrote back: each must be equal to its value
pickle_cases.py copy FROM TO              loads each pickle and pickles it again (values that began in Lua)

A file is a row of records: 8 bytes of length (little endian), then the pickle."""
import array
import collections
import datetime
import decimal
import enum
import fractions
import os
import pathlib
import pickle
import random
import struct
import sys
import uuid
import zoneinfo

try:
    import numpy as np
except ImportError:
    np = None

Point = collections.namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Plain:
    def __init__(self, **fields):
        self.__dict__.update(fields)

    def __eq__(self, other):
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __repr__(self):
        return "Plain(%s)" % ", ".join("%s=%r" % pair for pair in self.__dict__.items())


class Slots:
    __slots__ = ("a", "b")

    def __eq__(self, other):
        return type(self) is type(other) and (self.a, self.b) == (other.a, other.b)


class Stateful(Plain):
    def __init__(self):
        self.state = (1, "two", b"three")

    def __getstate__(self):
        return (1, "two", b"three")

    def __setstate__(self, state):
        self.state = state


class WithArgs:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return WithArgs, self.args

    def __eq__(self, other):
        return type(self) is type(other) and self.args == other.args


class NewArgs:
    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.given = (args, kwargs)
        return self

    def __getnewargs_ex__(self):
        return self.given

    def __eq__(self, other):
        return type(self) is type(other) and self.given == other.given


def set_slowly(obj, state):
    obj.__dict__.update(state)


class Setter(Plain):
    """Gets its state by a call whose result is dropped."""

    def __reduce__(self):
        return Setter, (), self.__dict__, None, None, set_slowly


class Listy(list):
    pass


class Dicty(dict):
    pass


class Problem(Exception):
    def __init__(self, message, code=0):
        super().__init__(message)
        self.code = code


def fixed():
    slots = Slots()
    slots.a, slots.b = 1, [2]
    listy = Listy([1, 2])
    listy.name = "n"
    dicty = Dicty(a=1)
    dicty.name = "n"
    cyclic = [1]
    cyclic.append(cyclic)
    mirror = {}
    mirror["me"] = mirror
    through = ([],)
    through[0].append(through)
    deep = []
    for _ in range(150):
        deep = [deep]
    shared = [1, 2]
    utc, zone = datetime.timezone.utc, datetime.timezone(datetime.timedelta(hours=-2, seconds=30), "X")
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5, 678901)
    order = collections.OrderedDict((k, i) for i, k in enumerate("zyxwv"))
    values = [
        None, True, False, 0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -2**31, -2**31 - 1, 2**53, 2**62, 2**63 - 1,
        -2**63, 2**63, 2**64, -2**63 - 1, 2**200, -2**200, 10**100, 2**2100, -2**2100, 3.25, -0.0, 1e300, float("inf"),
        float("-inf"), float("nan"), "", "abc", "\u00e9\u20ac\U0001f600", "line\nbreak \\ 'q' \"", "x" * 300, b"", b"abc",
        b"\xff\xfe", bytes(range(256)), [], [1, 2, [3]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": 1, 2: "b"},
        {(1, 2): 3, None: 4, 1.5: 5, True: 6, frozenset([1]): 7, 2**70: 8}, set(), {1, 2}, frozenset([1, "a"]), [None, 1],
        {"a": 1, b"a": 2}, {float("nan"): 1}, [shared, shared, (shared,)], cyclic, mirror, through, deep, list(range(5000)),
        tuple(range(5000)), {str(i): i for i in range(5000)}, set(range(3000)), utc, zone, moment, moment.replace(tzinfo=utc),
        moment.replace(tzinfo=zone, fold=1), moment.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Paris")), moment.date(),
        moment.time(), moment.time().replace(tzinfo=zone, fold=1), datetime.timedelta(-1, 2, 3), datetime.timedelta.max,
        decimal.Decimal("1.50"), decimal.Decimal("-Infinity"), decimal.Decimal("NaN"), fractions.Fraction(-1, 3),
        fractions.Fraction(2**80, 3), complex(1, -2), uuid.UUID(int=5), uuid.UUID(int=2**127 + 7), range(5), range(9, 0, -3),
        slice(1, None, 2), slice(None), order, collections.OrderedDict(), collections.defaultdict(list, {1: [2]}),
        collections.defaultdict(None, {1: 2}), collections.deque([1, 2], 5), collections.deque([1]), collections.Counter("aab"),
        bytearray(b"abc"), bytearray(b"\xff"), array.array("d", [1.5, 2]), array.array("B", [1, 2]), array.array("q", [-1]),
        array.array("Q", [2**64 - 1]), pathlib.PurePosixPath("/usr/lib"), pathlib.PurePosixPath("a/b"),
        pathlib.PurePosixPath("."), pathlib.PureWindowsPath("C:\\x\\y"), ValueError("x", 1), KeyError("k"),
        OSError(2, "no", "f"), FileNotFoundError(2, "no", "f"), "caf\udce9.txt", {"k": "\ud800", "\udfff": 1},
        Plain(s="caf\udce9.txt"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), Problem("p", 3), int, len, str.upper, Plain,
        Plain.__init__, os.path.join, Point(1, "y"), Color.RED, Color.BLUE, Level.LOW | Level.HIGH, Plain(a=1, b=b"xy", c=[2]),
        Plain(deep=[b"a", {"k": b"b", b"key": (b"c",)}, {b"d"}, collections.deque([b"e"]),
                    collections.OrderedDict([(b"f", b"g"), ("h", 1), (b"i", 2)]), frozenset([b"j"]), {(b"k", 1): 2},
                    np.array([b"l", [b"m"]], object) if np else None]),
        slots, Stateful(), WithArgs([b"x", {"y": b"z"}], b"bytes"), WithArgs(1, b"bytes", "s", None), NewArgs(1, k="v"), listy, dicty,
        [Plain(n=i) for i in range(10)], {"k": Point(1, 2)}, {b"a": 1, "a": 2, b"b": 3, "c": 4}, Setter(a=[1], b=b"x"),
        [Setter(a=1)] * 2, Plain(inner=Setter(a=Setter(b=2))), Plain(d={b"a": 1, "a": 2}),
    ]
    return values


class Random:
    """Random values; the same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def text(self):
        alphabet = "abc\u00e9\u20ac\U0001f600\n\\'\" \0"
        return "".join(self.random.choice(alphabet) for _ in range(self.random.choice((0, 1, 3, 8, 50, 300))))

    def scalar(self, key=False):
        r = self.random
        kind = r.randrange(16 if key else 26)
        if kind == 0:
            return None
        if kind == 1:
            return r.random() < 0.5
        if kind < 6:
            return r.getrandbits(r.choice((3, 8, 16, 31, 32, 63, 64, 65, 200))) * r.choice((1, -1))
        if kind < 8:
            return r.choice((0.5, 1.25, 1e300, -1e-300, r.uniform(-1, 1) or 0.5))
        if kind < 12:
            return self.text()
        if kind == 12:
            return bytes([255] + [r.randrange(256) for _ in range(r.randrange(20))])
        if kind == 13:
            return datetime.date(r.randint(1, 9999), r.randint(1, 12), r.randint(1, 28))
        if kind == 14:
            return datetime.timedelta(r.randint(-999, 999), r.randrange(86400), r.randrange(10**6))
        if kind == 15:
            return decimal.Decimal(r.randrange(-10**6, 10**6)).scaleb(r.randint(-20, 20))
        if kind == 16:
            return fractions.Fraction(r.randrange(-99, 99), r.randrange(1, 99))
        if kind == 17:
            return complex(r.uniform(-1, 1), r.uniform(-1, 1))
        if kind == 18:
            return uuid.UUID(int=r.getrandbits(128))
        if kind == 19:
            return range(r.randrange(9), r.randrange(99), r.randrange(1, 5))
        if kind == 20:
            tz = r.choice((None, datetime.timezone.utc, datetime.timezone(datetime.timedelta(minutes=r.randint(-700, 700)))))
            return datetime.datetime(r.randint(1, 9999), r.randint(1, 12), r.randint(1, 28), r.randrange(24), r.randrange(60),
                                     r.randrange(60), r.randrange(10**6), tz, fold=r.randrange(2))
        if kind == 21:
            return self.text().encode()
        if kind == 22:
            return bytearray(r.randrange(256) for _ in range(r.randrange(9)))
        if kind == 23:
            return array.array(r.choice("bBhHiIlLqQ"), [r.randrange(100) for _ in range(r.randrange(9))])
        if kind == 24:
            return array.array(r.choice("fd"), [r.randrange(100) / 4 for _ in range(r.randrange(9))])
        return r.choice((float("inf"), float("-inf"), -0.0, slice(None, r.randrange(9)), Color.RED, Point(1, 2.5)))

    def key(self, depth):
        if depth > 0 and self.random.random() < 0.1:
            return tuple(self.key(depth - 1) for _ in range(self.random.randrange(4)))
        return self.scalar(key=True)

    def value(self, depth=4, above=()):
        r = self.random
        if depth == 0 or r.random() < 0.4:
            return r.choice(above) if above and r.random() < 0.05 else self.scalar()
        n = r.choice((0, 1, 2, 3, 5, 12))
        kind = r.randrange(12)
        if kind < 4:
            made = []
            made.extend(self.value(depth - 1, above + (made,)) for _ in range(n))
            if n > 1 and r.random() < 0.2:
                made.append(made[0])
            return made
        if kind < 6:
            return tuple(self.value(depth - 1, above) for _ in range(n))
        if kind < 9:
            made = {}
            for _ in range(n):
                made[self.key(1)] = self.value(depth - 1, above + (made,))
            return made
        if kind == 9:
            return r.choice((set, frozenset))(self.key(1) for _ in range(n))
        if kind == 10:
            return r.choice((collections.OrderedDict, collections.Counter))(
                (self.key(1), r.randrange(9)) for _ in range(n))
        return r.choice((collections.deque(self.value(depth - 1, above) for _ in range(n)),
                         Plain(**{"f%d" % i: self.value(depth - 1, above) for i in range(n)})))


def numpy_values():
    if np is None:
        return []
    return [
        np.float64(1.5), np.float32(0.5), np.int8(-3), np.uint64(2**63 + 1), np.bool_(True), np.complex128(1 + 2j),
        np.str_("a\u00e9"), np.datetime64("2020-01-01", "ns"), np.timedelta64(5, "s"), np.float16(1.5),
        np.datetime64("NaT", "ns"), np.array([[1, 2]], dtype="i4"), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.ones(3),
        np.array(5), np.zeros((0, 3)), np.array(["a", "bcd"]), np.array([b"x", b"yy"]), np.array(["2020-01-01"], "M8[D]"),
        np.array([1, 2], "m8[25s]"), np.array(["a", None, 1], object), np.array([[1, "x"], [2, None]], object),
        np.asfortranarray(np.array([[1, "x", 2], [3, None, "y"]], object)), np.arange(24).astype(object).reshape(2, 3, 4).T,
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), np.zeros(2, dtype=[("a", "i4"), ("b", "f8", (2,))]),
        np.zeros(1, dtype=[("p", [("x", "i2")]), ("q", "U3")]), np.arange(4, dtype=">i4"), np.arange(10)[::2],
        np.arange(10)[::-1], np.ones((2, 3, 4), "f2"), np.array([True, False]), np.array([1 + 2j], "c8"), np.dtype("f8"),
        np.dtype(">i4"), np.dtype([("a", "i4"), ("b", "f8", (2,))]), np.dtype("M8[ns]"), np.float64, np.add,
        [np.arange(3), {"a": np.arange(2.0)}], {"label": 3, "img": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)},
        {"label": 3, "r": np.array([(1, "x")], dtype=[("a", "i4"), ("o", object)])},
        {"label": 3, "t": np.array(["a", "bc"], dtype="T")} if hasattr(getattr(np, "dtypes", None), "StringDType") else None,
    ]


def pandas_values():
    try:
        import pandas as pd
    except ImportError:
        return []
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.1, 0.2]})
    return [
        pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-01 01:02:03"), pd.Timedelta("1s"), pd.NaT,
        pd.Series([1, 2], name="x", index=["a", "b"]), frame, frame.set_index("b"), pd.Categorical(["a", "b", "a"]),
        pd.date_range("2020", periods=2), pd.Series([1, None], dtype="Int64"),
        pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]), pd.Series(pd.date_range("2020", periods=2, tz="UTC")),
        pd.DataFrame({"k": pd.Categorical(["u", "v"])}, index=pd.Index([3, 4], name="i")), pd.Index([1.5, 2.5]),
        pd.RangeIndex(3), pd.Index(["a", "b"]), frame.describe(), pd.interval_range(0, 3), pd.to_timedelta([1, 2], "s"),
        pd.DataFrame({"b": [b"x", b"yz"], "t": pd.date_range("2020", periods=2), "u": pd.date_range("2021", periods=2)}),
    ]


def cases(seed, count):
    for value in fixed():
        yield value, range(6)
    for value in numpy_values() + pandas_values():
        yield value, (2, 4, 5)
    generator = Random(seed)
    for i in range(count):
        yield generator.value(), (i % 6,)


def plain(value):
    """What the value may become on its way: bytes that are UTF-8 go back as str."""
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if type(value) is tuple:
        return tuple(plain(x) for x in value)
    if type(value) is frozenset:
        return frozenset(plain(x) for x in value)
    return value


def same(x, y, seen, inside=False):
    """Whether x came back as y. What is inside an object comes back exactly, or it could not be sent back unchanged."""
    went = (lambda value: value) if inside else plain
    x = went(x)
    if type(x) is array.array and type(y).__name__ == "ndarray":
        # Dask sends one that it finds by itself as its bytes, which are an array on the Lua side.
        return y.dtype.itemsize == x.itemsize and x.tolist() == y.tolist()
    if type(x) is not type(y):
        # a container that an object has, too
        return not inside and isinstance(x, str) and isinstance(y, bytes) and x.encode() == y
    if seen is not None and type(x) in (list, dict, set, collections.deque, collections.OrderedDict, Plain):
        if id(x) in seen:
            return seen[id(x)] is y
        seen[id(x)] = y
    if isinstance(x, (list, tuple, collections.deque)):
        return len(x) == len(y) and all(same(a, b, seen, inside) for a, b in zip(x, y)) and \
            same(getattr(x, "__dict__", None), getattr(y, "__dict__", None), None, True)
    if isinstance(x, dict):
        if len(x) != len(y) or getattr(x, "default_factory", 0) != getattr(y, "default_factory", 0):
            return False
        if isinstance(x, collections.OrderedDict) and [went(k) for k in x] != list(y):
            return False
        for key, value in x.items():
            if key != key:
                found = [v for k, v in y.items() if k != k]
                if len(found) != 1 or not same(value, found[0], seen, inside):
                    return False
                continue
            if type(key) is bytes and key in y:
                other = key
            else:
                other = went(key)
            if other not in y or not same(value, y[other], seen, inside):
                return False
        return True
    if isinstance(x, (set, frozenset)):
        return {went(v) for v in x} == y
    if type(x) is Plain:
        return same(x.__dict__, y.__dict__, seen, True)
    if isinstance(x, BaseException):
        # tblib, with which schedulers and workers pickle them, forgets what UnicodeError has besides
        return same(x.args, y.args, seen, True) and same(x.__dict__, y.__dict__, seen, True) and \
            (isinstance(x, UnicodeError) or str(x) == str(y))
    if type(x).__module__ == "numpy" and hasattr(x, "dtype") and type(x).__name__ != "dtype":
        # arrays of objects become lists in C order on the way
        if x.ndim > 1 and x.dtype.kind != "O" and x.flags.f_contiguous != y.flags.f_contiguous:
            return False
        return x.dtype == y.dtype and x.shape == y.shape and repr(x) == repr(y)
    if type(x).__module__.startswith("pandas"):
        return repr(x) == repr(y)
    if isinstance(x, float):
        return struct.pack("d", x) == struct.pack("d", y)
    try:
        return bool(x == y) or repr(x) == repr(y)
    except TypeError:
        return repr(x) == repr(y)


# NumPy's and similar scalars become plain numbers: what goes back is Python's own.
def scalar(x):
    if type(x).__module__ == "numpy" and hasattr(x, "item") and hasattr(x, "dtype") and x.shape == () \
            and not hasattr(x, "__array_finalize__") and x.dtype.kind not in "Mm":
        return x.item()
    if type(x).__module__ == "numpy" and not hasattr(x, "strides"):
        return x
    return x.item() if np and isinstance(x, np.generic) and x.dtype.kind not in "Mm" else x


def records(path):
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at < len(data):
        n, = struct.unpack_from("<Q", data, at)
        yield data[at + 8:at + 8 + n]
        at += 8 + n


def write(path, pickles):
    with open(path, "wb") as file:
        for data in pickles:
            file.write(struct.pack("<Q", len(data)) + data)


def make(path, seed, count):
    write(path, (pickle.dumps(value, protocol) for value, protocols in cases(seed, count) for protocol in protocols
                 if not (isinstance(value, (Slots, NewArgs)) and protocol < 2)))


def check(path, seed, count):
    wrong = 0
    found = records(path)
    for value, protocols in cases(seed, count):
        for protocol in protocols:
            if isinstance(value, (Slots, NewArgs)) and protocol < 2:
                continue
            data = next(found)
            try:
                back = pickle.loads(data)
                fine = same(scalar(value), back, {})
            except Exception as error:  # whatever a wrong pickle raises
                back, fine = error, False
            if not fine:
                wrong += 1
                if wrong <= 20:
                    print("protocol %d: %.150r -> %.150r" % (protocol, value, back))
    if next(found, None) is not None:
        print("there are more records than values")
        wrong += 1
    return wrong


known = {}


def nth(i, seed, count):
    if (seed, count) not in known:
        known[seed, count] = [value for value, _ in cases(seed, count)]
    values = known[seed, count]
    return values[i] if i < len(values) else None


def holds_itself(value, above=()):
    if id(value) in above:
        return True
    if not isinstance(value, (list, tuple, dict, collections.deque, Plain)):
        return False
    if isinstance(value, Plain):
        value, above = vars(value), above + (id(value),)
    items = value.values() if isinstance(value, dict) else value
    return any(holds_itself(item, above + (id(value),)) for item in items)


def as_dask_has_it(value):
    """What Python's own client would get: Dask takes large containers apart, and what is shared between items is not.
    None for what holds itself: Dask does not come to an end with it, not even in a scheduler that looks for keys."""
    from distributed.protocol import deserialize, serialize, to_serialize
    if holds_itself(value):
        return None
    value = deserialize(*serialize(to_serialize(value), on_error="raise"))
    return bytes(value) if type(value) is memoryview else value


def alone(i, seed, count):
    """Value i of fixed and random ones; None beyond the last. For tasks."""
    value = nth(i, seed, count)
    return None if holds_itself(value) else value


def whole(i, seed, count):
    """The same inside an object, which Dask pickles as one."""
    return Plain(v=nth(i, seed, count))


def differs(i, back, seed, count, wrapped=False):
    """"" when `back` is what `alone` or `whole` gave, else both in words."""
    value = nth(i, seed, count) if wrapped else as_dask_has_it(nth(i, seed, count))
    back = back.v if wrapped else back
    # Schedulers that look for keys in arguments copy the containers of those, and nothing in them is shared then.
    return "" if same(scalar(value), back, {} if wrapped else None) else "%.200r came back as %.200r" % (value, back)


def main(arguments):
    sys.setrecursionlimit(10000)
    if arguments[0] == "make":
        make(arguments[1], int(arguments[2]), int(arguments[3]))
    elif arguments[0] == "check":
        return 1 if check(arguments[1], int(arguments[2]), int(arguments[3])) else 0
    elif arguments[0] == "copy":
        write(arguments[2], (pickle.dumps(pickle.loads(data), i % 6) for i, data in enumerate(records(arguments[1]))))
    return 0


if __name__ == "__main__":
    # under its own name, so that the classes are found again
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import pickle_cases
    sys.exit(pickle_cases.main(sys.argv[1:]))
