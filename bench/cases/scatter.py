import os
import sys
from time import perf_counter

import numpy
from distributed import Client

client = Client(sys.argv[1])
BYTES = 200_000_000
array = numpy.frombuffer(os.urandom(BYTES), "i8")
best = float("inf")
for _ in range(3):
    start = perf_counter()
    future = client.scatter(array, direct=sys.argv[2] == "direct", hash=False)
    best = min(best, perf_counter() - start)
    del future
print("rate", BYTES / best)
client.close()
