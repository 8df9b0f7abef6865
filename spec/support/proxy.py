"""A TCP proxy that breaks connections on command; spec/support/proxy.lua is its only user.

Arguments: the host and port to connect to. Says its own port, then reads one command a line and answers each with "ok":
  cut               resets all connections
  cut_after up|down N   resets them once N more bytes have gone to the server (up) or come from it (down)
  hold, go          keeps what comes to itself, as a network that drops packets; passes it on
  refuse, accept    takes no new connections; does again
  mend              undoes all of these
  count             answers with the number of connections since the last count
"""

import asyncio
import socket
import struct
import sys


class Proxy:
    def __init__(self, target):
        self.target = target
        self.pairs = set()
        self.left = {"up": None, "down": None}
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.count = 0

    async def listen(self, port=0):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port, reuse_address=True)
        self.port = self.server.sockets[0].getsockname()[1]

    def cut(self):
        for pair in self.pairs:
            for writer in pair:
                sock = writer.get_extra_info("socket")
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    continue  # its side closed it a moment ago
                writer.transport.abort()
        self.pairs.clear()

    async def pump(self, reader, writer, way):
        try:
            while data := await reader.read(65536):
                await self.flowing.wait()
                left = self.left[way]
                if left is not None:
                    self.left[way] = left - len(data)
                    data = data[:left]
                writer.write(data)
                await writer.drain()
                if left is not None and self.left[way] <= 0:
                    self.left[way] = None
                    await asyncio.sleep(0.05)  # let what was passed on arrive before the end does
                    self.cut()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(self, reader, writer):
        self.count += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self.pairs.add(pair)
        await asyncio.gather(self.pump(reader, far_writer, "up"), self.pump(far_reader, writer, "down"))
        self.pairs.discard(pair)

    async def command(self, words):
        if words[0] == "cut":
            self.cut()
        elif words[0] == "cut_after":
            self.left[words[1]] = int(words[2])
        elif words[0] == "hold":
            self.flowing.clear()
        elif words[0] == "go":
            self.flowing.set()
        elif words[0] == "refuse":
            self.server.close()
        elif words[0] == "accept":
            await self.listen(self.port)
        elif words[0] == "mend":
            self.left = {"up": None, "down": None}
            self.flowing.set()
            if not self.server.is_serving():
                await self.listen(self.port)
        elif words[0] == "count":
            count, self.count = self.count, 0
            return str(count)
        else:
            return "unknown command"
        return "ok"


async def main(host, port):
    proxy = Proxy((host, int(port)))
    await proxy.listen()
    print(proxy.port, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(await proxy.command(line.split()), flush=True)


asyncio.run(main(*sys.argv[1:3]))
