import operator
import sys
from time import perf_counter, process_time

from distributed import Client

client = Client(sys.argv[1])
N = 10000
assert client.submit(operator.neg, 1, pure=False).result() == -1
wall, cpu = perf_counter(), process_time()
values = client.gather(client.map(operator.neg, range(1, N + 1), pure=False))
print("task_cpu", (process_time() - cpu) / N)
print("elapsed", perf_counter() - wall)
assert len(values) == N and values[-1] == -N
client.close()
