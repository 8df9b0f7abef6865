import os
import sys
from time import perf_counter, sleep

import numpy
from distributed import Client

client = Client(sys.argv[1])
BYTES = 200_000_000
array = numpy.frombuffer(os.urandom(BYTES), "i8")
best = float("inf")
for _ in range(6):
    start = perf_counter()
    future = client.scatter(array, direct=sys.argv[2] == "direct", hash=False)
    best = min(best, perf_counter() - start)
    del future
    sleep(0.2)  # the worker frees it meanwhile
print("rate", BYTES / best)
client.close()
