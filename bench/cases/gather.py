import sys
from time import perf_counter

from distributed import Client, wait

client = Client(sys.argv[1])
parts = 4 if sys.argv[2] == "four" else 1
direct = sys.argv[2] != "scheduler"
BYTES = 200_000_000


def random(n, seed, frame):
    import numpy
    import pandas
    values = numpy.random.default_rng(seed).integers(0, 2**63, n)
    return pandas.DataFrame(values.reshape(-1, 10)) if frame else values


frame = sys.argv[2] == "frame"
futures = [client.submit(random, BYTES // 8 // parts, i, frame, pure=False) for i in range(parts)]
wait(futures)
best = float("inf")
for _ in range(6):
    start = perf_counter()
    arrays = client.gather(futures, direct=direct)
    best = min(best, perf_counter() - start)
    assert arrays[-1].size == BYTES // 8 // parts
    del arrays
print("rate", BYTES / best)
client.close()
