import sys
from time import perf_counter, process_time

from distributed import Client, wait

client = Client(sys.argv[1])
ITEMS = 100_000

future = client.submit(lambda n: list(range(n)), ITEMS)
wait(future)
cpu, start = process_time(), perf_counter()
result = future.result()
assert len(result) == ITEMS and result[-1] == ITEMS - 1
print("item_cpu", (process_time() - cpu) / ITEMS)
print("elapsed", perf_counter() - start)
client.close()
