import operator
import sys

from distributed import Client

client = Client(sys.argv[1])
assert client.submit(operator.add, 1, 2, pure=False).result() == 3
client.close()
