"""A simulated log, store and output around a shell, with crashes at any step.

Every await of the shell that touches the outside is a step. A schedule says at which steps
the process dies; half-done publishing and half-done saving are then what is left. The next
process reads on from the acknowledged offset, as a consumer of a group does.
"""

import itertools
import random
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any

from citybrain.stage import Out, Record, Stage
from citybrain.streams.shell import Manifest, Shell

FENCED = frozenset({"accounts"})


class Crash(BaseException):
    """The process dies here. Not an Exception: nothing may catch it."""


class Fenced(Exception):
    """Another owner has loaded since."""


class World:
    """What survives a process: the log, durable state, outputs, acknowledged offset."""

    def __init__(self, records: Sequence[Record], crashes: frozenset[int]) -> None:
        self.records = records
        self.crashes = crashes
        self.steps = itertools.count()
        self.acknowledged = 0
        self.manifest: Manifest | None = None
        self.blocks: dict[str, bytes] = {}
        self.plain: list[Out] = []
        self.table: dict[tuple[str, bytes | None], Out] = {}
        self.epoch = 0
        self.now_ms = 0

    async def step(self) -> None:
        """A place where the process may die."""
        self.now_ms += 100
        if next(self.steps) in self.crashes:
            raise Crash

    async def publish(self, outs: Sequence[Out]) -> Awaitable[object]:
        """Records reach the broker one by one."""
        for out in outs:
            await self.step()
            self.plain.append(out)
        return _Later(self.step)

    async def acknowledge(self, offset: int) -> None:
        """The group's offset is committed, or the process dies before."""
        await self.step()
        self.acknowledged = max(self.acknowledged, offset)

    async def look(self, start: int, end: int) -> tuple[int, int | None]:
        """Nothing is ever dropped from this log, nor are there offsets without a record."""
        return 0, start if start < end else None

    def clock(self) -> int:
        """Time goes on with every step."""
        return self.now_ms


class _Later:
    """Awaited once, or never by a process that is dead by then."""

    def __init__(self, step: Callable[[], Awaitable[None]]) -> None:
        self._step = step

    def __await__(self) -> Generator[Any, None, None]:
        return self._step().__await__()


class SimulatedStore:
    """The store of one owner; `epoch` is what the broker knows of transactional ids."""

    def __init__(self, world: World, fence: bool = True) -> None:
        self.world, self.fence, self.epoch = world, fence, -1

    async def load(self) -> tuple[Manifest | None, Mapping[str, bytes]]:
        self.world.epoch += 1
        self.epoch = self.world.epoch
        await self.world.step()
        return self.world.manifest, dict(self.world.blocks)

    async def save(
        self, manifest: Manifest, blocks: Mapping[str, bytes], outs: Sequence[Out]
    ) -> None:
        await self.world.step()
        if self.fence and self.epoch != self.world.epoch:
            raise Fenced
        self.world.manifest = manifest
        for name, block in blocks.items():
            if block:
                self.world.blocks[name] = block
            else:
                self.world.blocks.pop(name, None)
        for out in outs:
            self.world.table[out.topic, out.key] = out
        await self.world.step()

    async def close(self) -> None:
        """Nothing to close."""


Build = Callable[..., Shell]


async def run(
    make: Callable[[], Stage],
    records: Sequence[Record],
    seed: int,
    *,
    crashes: int = 3,
    zombies: bool = True,
    fence: bool = True,
    build: Build = Shell,
) -> World:
    """Play a log through processes that die, until one of them reaches its end.

    Random choices come from `seed`. Of the dead, some are only frozen: they wake up after
    their successor has begun, take what they had in hand, and try to save.
    """
    rng = random.Random(seed)
    # Eight steps a record are enough for where the crashes may fall.
    at = frozenset(rng.randrange(8 * len(records) + 8) for _ in range(crashes))
    world = World(records, at)
    frozen: Shell | None = None
    for _ in range(crashes + 1):
        store = SimulatedStore(world, fence)
        shell = build(
            "rollup", 0, make, store, world.publish, world.acknowledge, world.clock, FENCED,
            world.look, snapshot_ms=0,
        )  # fmt: skip
        try:
            await shell.open()
            for record in records[world.acknowledged :]:
                await world.step()
                await shell.take(record)
                if frozen is not None and rng.random() < 0.2:
                    zombie, frozen = frozen, None
                    await _wake(zombie, records, rng)
                if rng.random() < 0.3:
                    await shell.snapshot()
            await shell.close()
            return world
        except Crash:
            frozen = shell if zombies and rng.random() < 0.5 else None
    raise AssertionError("more crashes than were ordered")


async def _wake(zombie: Shell, records: Sequence[Record], rng: random.Random) -> None:
    try:
        for record in records[zombie.next_offset or 0 :][: rng.randrange(4)]:
            await zombie.take(record)
        await zombie.snapshot()
    except Fenced:
        pass
