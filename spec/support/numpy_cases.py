"""Arrays of every kind as .npy files, and what NumPy says of them as a Lua table. Usage: numpy_cases.py DIRECTORY"""
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")


def lua(v):
    """A Lua expression for a NumPy or Python value, as saturn.array gives it."""
    if isinstance(v, np.void) and v.dtype.names:
        return "{" + ", ".join(f"[{lua(n)}]={lua(v[n])}" for n in v.dtype.names) + "}"
    if isinstance(v, np.ndarray):
        return lua(v[()]) if v.ndim == 0 else "{" + ", ".join(lua(x) for x in v) + "}"
    if isinstance(v, (bool, np.bool_)):
        return "true" if v else "false"
    if isinstance(v, (np.datetime64, np.timedelta64)):
        return lua(v.view("i8"))
    if isinstance(v, np.uint64):
        return lua(v.view("i8"))
    if isinstance(v, (int, np.integer)):
        return "math.mininteger" if int(v) == -2**63 else str(int(v))
    if isinstance(v, (complex, np.complexfloating)):
        return f"{{re={lua(float(v.real))}, im={lua(float(v.imag))}}}"
    if isinstance(v, (float, np.floating)):
        v = float(v)
        if v != v:
            return "nan"
        return ("-" if v < 0 else "") + "math.huge" if v in (float("inf"), float("-inf")) else v.hex()
    if isinstance(v, str):
        v = v.encode("utf-8", "surrogatepass")
    if isinstance(v, np.void):
        v = v.tobytes()
    return '"' + "".join(f"\\{b:03d}" for b in v) + '"'


def cases():
    rng = np.random.default_rng(7)
    ints = [0, 1, 2, 5, 100, 127]
    for kind in "iu":
        for size in (1, 2, 4, 8):
            info = np.iinfo(f"{kind}{size}")
            for order in "<>":
                yield np.array(ints + [info.min, info.max], f"{order}{kind}{size}")
    floats = [0.0, -0.0, 1.5, -2.25, 1e-7, 6e-8, 3e-8, 65504.0, float("inf"), 0.1]
    for size in (2, 4, 8):
        for order in "<>":
            a = np.array(floats, f"{order}f{size}")
            yield a
            yield a[:5].reshape(5, 1)
            yield np.array([1, float("nan"), 3], f"{order}f{size}")
    for size in (8, 16):
        for order in "<>":
            yield np.array([1 + 2j, -0.5j, 3], f"{order}c{size}")
    yield np.array([True, False, True])
    yield np.array(["", "a", "abc", "h\u00e9\u4e16", "\U0001f600"])
    yield np.array(["x", "yz"], ">U5")
    yield np.array([b"", b"a\0b", b"\xff\xfe"], "S4")
    yield np.array([b"abcd", b"\0\0\0\1"], "V4")
    for unit in ("Y", "M", "D", "h", "s", "ms", "us", "ns", "25s"):
        yield np.array([0, 1, -5, "NaT"], f"M8[{unit}]")
        yield np.array([0, 1, -5, 7], f"<m8[{unit}]")
    yield np.array([3, -4], ">m8[s]")
    yield np.array([3, "NaT"], "m8")
    plain = np.dtype([("x", "<i4"), ("y", ">f8")])
    yield np.array([(1, 2.5), (-3, 0.125)], plain)
    yield np.array([(1, 2.5), (-3, 0.125)], np.dtype([("a", "u1"), ("b", "<f8")], align=True))
    nested = np.dtype([("id", "<u2"), ("pos", "<f4", (2, 3)), ("in", plain, (2,)), ("name", "<U3")])
    n = np.zeros((2, 2), nested)
    n["id"] = [[1, 2], [3, 4]]
    n["pos"] = np.arange(24).reshape(2, 2, 2, 3)
    n["in"]["y"][1, 1] = [7.5, 8.5]
    n["name"][0] = ["abc", "\u00e9"]
    yield n
    yield np.array([(1, 2)], np.dtype([("h\u00e9 'q'", "<i8"), ("b\\", "i1")]))
    big = rng.standard_normal((7, 5, 11))
    yield big
    yield np.asfortranarray(big)
    yield np.asfortranarray(big.astype("f4"))
    yield np.asfortranarray(np.arange(6, dtype="i2").reshape(2, 3))
    yield np.array(3.5)
    yield np.array(-7, "i2")
    for shape in ((0,), (0, 3), (3, 0, 2)):
        yield np.zeros(shape)
    yield rng.integers(-2**62, 2**62, 3000)
    yield rng.standard_normal(5000) * 10.0 ** rng.integers(-8, 8, 5000)
    yield rng.integers(0, 255, (40, 50)).astype("u1")


def reduce(name, a):
    if a.dtype.kind not in "biufcMm" or a.dtype.kind == "c" and name in ("min", "max"):
        return None
    if a.dtype.kind == "M" and name in ("sum", "mean") or a.size == 0 and name in ("min", "max"):
        return None
    if name == "mean" and a.dtype.kind == "m":
        i = a.view(a.dtype.str.replace("m8", "i8")[:3])
        return float("nan") if np.isnat(a).any() else float(np.mean(i.astype("f8")))
    if name in ("sum", "mean") and a.dtype.kind in "fc":  # the reference is exact
        from math import fsum
        def exact(x):
            x = [float(v) for v in x.ravel()]
            s = fsum(x) if all(abs(v) < 1e300 for v in x) else sum(x)
            return s if name == "sum" else s / len(x) if x else float("nan")
        return complex(exact(a.real), exact(a.imag)) if a.dtype.kind == "c" else exact(a)
    if name == "mean":
        from fractions import Fraction
        return float(Fraction(sum(int(v) for v in a.ravel()), a.size)) if a.size else float("nan")
    return getattr(a, name)()


def main(directory):
    out = ["local nan = 0/0", "return {"]
    for i, a in enumerate(cases()):
        version = (None, (1, 0), (2, 0), (3, 0))[i % 4] if a.dtype.names is None else None
        path = f"{directory}/{i}.npy"
        with open(path, "wb") as f:
            np.lib.format.write_array(f, a, version)
        order = "C" if a.flags.c_contiguous else "F"
        text = (f"{{path='{path}', dtype={lua(str(a.dtype.descr) if a.dtype.names else a.dtype.str)}, order='{order}', "
                f"shape={{{', '.join(map(str, a.shape))}}}, strides={{{', '.join(map(str, a.strides))}}}, "
                f"nbytes={a.nbytes}, values={lua(a)}, bytes={lua(a.tobytes())}")
        for name in ("sum", "min", "max", "mean"):
            r = reduce(name, a)
            if r is not None:
                text += f", {name}={lua(r)}"
        out.append(text + "},")
    out.append("}")
    with open(f"{directory}/cases.lua", "w") as f:
        f.write("\n".join(out))


main(sys.argv[1])
