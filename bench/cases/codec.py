import gc
import pickle
import sys
from time import perf_counter

make = {
    "integers": lambda i: i * 7919,
    "floats": lambda i: i / 7,
    "strings": lambda i: f"item {i}",
    "texts": lambda i: f"{i:050d}",
    "rows": lambda i: {"id": i, "name": f"row {i}", "value": i / 3, "good": i % 2 == 0},
}[sys.argv[2]]
values = [make(i) for i in range(1, (100_000 if sys.argv[2] == "rows" else 1_000_000) + 1)]


def best_of(fn):
    best = float("inf")
    for _ in range(3):
        gc.collect()
        start = perf_counter()
        fn()
        best = min(best, perf_counter() - start)
    return best


text = pickle.dumps(values, protocol=4)
print("encode", best_of(lambda: pickle.dumps(values, protocol=4)))
del values
print("decode", best_of(lambda: pickle.loads(text)))
