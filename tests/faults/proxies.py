"""TCP proxies between the edge agents and Kafka's nodes, whose lines can be made bad.

Kafka advertises these ports on its second listener, so whatever an agent is told by the
cluster leads through here too.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

HOST = "127.0.0.1"
CHUNK = 16 << 10


@dataclass(slots=True)
class Line:
    """How the network is. cut: nothing passes, nothing is refused. delay_s: a chunk takes so
    long. reset: connections end, with a reset, in the middle of the next requests."""

    cut: bool = False
    delay_s: float = 0.0
    reset: int = 0
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    def well(self) -> None:
        """As a network should be."""
        self.cut, self.delay_s, self.reset = False, 0.0, 0
        self.mended.set()

    def cut_off(self) -> None:
        """From now on nothing passes."""
        self.mended.clear()
        self.cut = True


class Proxies:
    """One proxy a node, over one line. `ports` are known before there is a node behind."""

    def __init__(self, nodes: int) -> None:
        self.line = Line()
        self._sockets = [socket.create_server((HOST, 0)) for _ in range(nodes)]
        self.ports: list[int] = [s.getsockname()[1] for s in self._sockets]
        self._servers: list[asyncio.Server] = []
        self._links: set[asyncio.Task[None]] = set()

    async def start(self, doors: Sequence[int]) -> None:
        """Lead each proxy to its node's port."""
        for own, door in zip(self._sockets, doors, strict=True):
            self._servers.append(await asyncio.start_server(self._handler(door), sock=own))

    async def stop(self) -> None:
        """Close everything."""
        for server in self._servers:
            server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def _handler(self, door: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._link(door, reader, writer))
            self._links.add(task)
            task.add_done_callback(self._links.discard)

        return handle

    async def _link(
        self, door: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, door)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._carry(reader, far_writer, resets=True)),
            asyncio.create_task(self._carry(far_reader, writer, resets=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, far_writer):
                _reset(end)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, resets: bool
    ) -> None:
        """Until one side ends, or the line says so."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.line.cut:
                    await self.line.mended.wait()
                if self.line.delay_s:
                    await asyncio.sleep(self.line.delay_s)
                if resets and self.line.reset and len(data) > 64:
                    self.line.reset -= 1
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    return
                writer.write(data)
                await writer.drain()


def _reset(end: asyncio.StreamWriter) -> None:
    """Close with a reset, not with a farewell."""
    own = end.get_extra_info("socket")
    if own is not None:
        with contextlib.suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
