import operator
import sys
from time import process_time

from distributed import Client, wait

client = Client(sys.argv[1])
N = 10000
assert client.submit(operator.neg, 1, pure=False).result() == -1
cpu = process_time()
futures = [client.submit(operator.neg, i, pure=False) for i in range(N)]
print("task_cpu", (process_time() - cpu) / N)
wait(futures)
client.close()
