"""The world around one shell in memory, in which nothing goes wrong by itself."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence

from citybrain.stage import Out, Record
from citybrain.streams.shell import Manifest

FENCED = frozenset({"accounts"})


class World:
    """What survives a process: durable state, outputs, acknowledged offset."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.acknowledged = self.now_ms = 0
        self.manifest: Manifest | None = None
        self.blocks: dict[str, bytes] = {}
        self.plain: list[Out] = []
        self.table: dict[tuple[str, bytes | None], Out] = {}

    async def publish(self, outs: Sequence[Out]) -> Awaitable[object]:
        self.plain += outs
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def acknowledge(self, offset: int) -> None:
        self.acknowledged = offset

    async def look(self, start: int, end: int) -> tuple[int, int | None]:
        return 0, start if start < end else None

    def clock(self) -> int:
        self.now_ms += 100
        return self.now_ms


class MemoryStore:
    """Durable state in memory, for one owner."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def load(self) -> tuple[Manifest | None, Mapping[str, bytes]]:
        return self.world.manifest, dict(self.world.blocks)

    async def save(
        self, manifest: Manifest, blocks: Mapping[str, bytes], outs: Sequence[Out]
    ) -> None:
        self.world.manifest = manifest
        self.world.blocks |= blocks
        self.world.blocks = {name: block for name, block in self.world.blocks.items() if block}
        self.world.table |= {(out.topic, out.key): out for out in outs}

    async def close(self) -> None: ...
