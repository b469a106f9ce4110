"""What the engine's worker does around its shells, in the same order, without Faust."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from citybrain.city import City
from citybrain.kafka import KafkaSettings
from citybrain.stage import Record, Stage
from citybrain.streams.outputs import Outputs
from citybrain.streams.shell import Shell
from citybrain.streams.snapshots import KafkaStore
from citybrain.topics import TOPICS, full_name
from tests.simulated.broker import Place
from tests.simulated.clients import ask
from tests.simulated.loop import Process

SETTINGS = KafkaSettings(bootstrap="127.0.0.1:1")
FENCED = frozenset(name for name, topic in TOPICS.items() if topic.compact)
JUMPS_BACK = 0.01


@dataclass(frozen=True)
class Engine:
    """What is run: stages by input topic, and with which shell and store."""

    city: City
    stages: Mapping[str, tuple[str, Callable[[City, int], Stage]]]
    shell: type[Shell] = Shell
    store: type[KafkaStore] = KafkaStore

    def places(self) -> list[Place]:
        """All partitions that are worked on."""
        shards = sorted(self.city.shards.values())
        return [
            Place(full_name(self.city.id, topic), partition)
            for topic in self.stages
            for partition in (shards if TOPICS[topic].partitioned_by == "shard" else [0])
        ]


class Worker:
    """One process of the engine."""

    def __init__(self, process: Process, engine: Engine) -> None:
        self.process, self.world, self.engine = process, process.world, engine
        self.shells: dict[Place, Shell] = {}
        self.outputs = Outputs(SETTINGS, engine.city.id)
        self.turn, self.order = asyncio.Lock(), asyncio.Lock()
        self.stopping = False
        self.reading: dict[Place, int] = {}
        self.skew_ms = 0

    def clock(self) -> int:
        """The wall clock of this machine."""
        now: int = self.world.now_ms
        return now + self.skew_ms

    async def start(self) -> None:
        """Connect, then join the group."""
        await self.outputs.start()
        self.world.group.join(self)

    async def assigned(self, place: Place, generation: int) -> None:
        """A partition is ours from now on."""
        async with self.order:
            if self.stopping or place in self.shells:
                return
            topic = place.topic.rpartition(".")[2]
            name, make = self.engine.stages[topic]
            city = self.engine.city
            shell = self.engine.shell(
                name,
                place.partition,
                partial(make, city, place.partition),
                self.engine.store(SETTINGS, city.id, name, place.partition),
                self.outputs.publish,
                partial(self._acknowledge, place, generation),
                self.clock,
                FENCED,
                partial(self._look, place),
                self.world.rng.choice((0, 100, 1_000)),
            )
            self.reading[place] = 0
            await shell.open()
            self.reading.pop(place)
            self.shells[place] = shell
            self.world.loop.spawn(self.process, self._guard(self._work(topic, place, shell)))

    async def revoked(self, place: Place) -> None:
        """Save what is still ours; by the end of this the partition may be another's."""
        async with self.order, self.turn:
            shell = self.shells.pop(place, None)
            if shell is not None:
                await shell.close()

    async def leave(self) -> None:
        """A clean stop."""
        async with self.order, self.turn:
            self.stopping = True
            for shell in self.shells.values():
                await shell.close()
        await self.outputs.stop()

    async def tick(self) -> None:
        """What the worker does every second."""
        for shell in list(self.shells.values()):
            if shell.due:
                self._save(shell)
        for place, shell in list(self.shells.items()):
            async with self.turn:
                if self.shells.get(place) is shell:
                    await shell.tick(self.clock())

    def run(self, work: Any) -> None:
        """Do this in a task of this process; it ends the process if it fails."""
        self.world.loop.spawn(self.process, self._guard(work))

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  # the world judges whether it may end a process
            self.world.fail(self, error)

    async def _work(self, topic: str, place: Place, shell: Shell) -> None:
        log = self.world.broker.log(place)
        at = max(log.start, shell.next_offset or 0)
        while True:
            entry = log.next(max(at, log.start))
            if entry is None:
                future = self.world.loop.create_future()
                log.waiting.append(future)
                await future
                continue
            await self.world.loop.pause()
            at = entry.offset + 1
            record = Record(topic, place.partition, entry.offset, entry.timestamp,
                            entry.value or b"", entry.key, entry.headers)  # fmt: skip
            async with self.turn:
                if self.shells.get(place) is not shell or self.stopping:
                    return
                await shell.take(record)
            if shell.due:
                self._save(shell)
            if self.world.rng.random() < JUMPS_BACK:
                # What is below the shell's offset may be delivered again, from anywhere.
                self.world.drawn["re-delivery"] += 1
                at = self.world.rng.randint(log.start, max(at, log.start))

    def _save(self, shell: Shell) -> None:
        self.run(shell.snapshot())

    async def _acknowledge(self, place: Place, generation: int, offset: int) -> None:
        broker = self.world.broker
        await ask(lambda: broker.acknowledge(place, generation, offset), may_time_out=False)
        self.world.acknowledged(place)

    async def _look(self, place: Place, start: int, end: int) -> tuple[int, int | None]:
        log = self.world.broker.log(place)
        entry = await ask(lambda: log.next(start), may_time_out=False)
        return log.start, entry.offset if entry is not None and entry.offset < end else None
