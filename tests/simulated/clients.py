"""Producer and consumer of the simulated broker, with aiokafka's methods.

A request travels: it arrives at some later step, and its answer at another one. A process
that dies meanwhile may or may not have been heard. A time-out is an answer that was lost: the
broker has done what it was asked to.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from tests.simulated.broker import Entry
from tests.simulated.loop import OWNER, Process


def _owner() -> Process:
    owner = OWNER.get()
    assert owner is not None
    return owner


async def ask(effect: Callable[[], Any], may_time_out: bool = True) -> Any:
    """Have the broker do something. Raises what it answers, or KafkaTimeoutError."""
    process = _owner()
    loop = process.world.loop
    future = loop.create_future()
    loop.outside(_arrive, process, future, effect, may_time_out)
    return await future


def _arrive(
    process: Process, future: "asyncio.Future[Any]", effect: Callable[[], Any], may: bool
) -> None:
    world = process.world
    if process.dead and world.rng.random() < 0.5:
        return
    try:
        answer: Any = effect()
        if may and world.broker.time_outs > 0:
            world.broker.time_outs -= 1
            world.drawn["time-out"] += 1
            raise KafkaTimeoutError("the answer was lost")
    except KafkaError as error:
        if not future.done():
            future.set_exception(error)
        return
    if not future.done():
        future.set_result(answer)


class Producer:
    """As AIOKafkaProducer: records arrive in the order in which they were sent."""

    def __init__(self, transactional_id: str | None = None, **_: object) -> None:
        self._process = _owner()
        self._broker = self._process.world.broker
        self._loop = self._process.world.loop
        self._name, self._epoch = transactional_id, 0
        self._queue: list[tuple[asyncio.Future[Any], tuple[Any, ...]]] = []
        self._on_its_way = False
        self._process.producers.append(self)

    @property
    def waiting(self) -> int:
        """Records that have not left yet and belong to no transaction."""
        return len(self._queue) if self._name is None else 0

    async def start(self) -> None:
        if self._name is not None:
            name = self._name
            self._epoch = await ask(lambda: self._broker.open_producer(name))

    async def begin_transaction(self) -> None:
        assert self._name is not None

    async def send(self, topic: str, value: bytes | None = None, key: bytes | None = None,
                   partition: int | None = None, timestamp_ms: int | None = None,
                   headers: Sequence[tuple[str, bytes]] = ()) -> "asyncio.Future[Any]":  # fmt: skip
        if self._loop.rng.random() < 0.15:
            await self._loop.pause()  # its buffers are full
        future = self._loop.create_future()
        self._queue.append((future, ((topic, partition or 0), key, value, headers)))
        if not self._on_its_way:
            self._on_its_way = True
            self._loop.call_soon(self._deliver, context=self._process.context)
        return future

    async def commit_transaction(self) -> None:
        assert not self._queue
        await ask(self._commit)

    async def stop(self) -> None:
        """What waits is sent; a transaction that is open stays so until its time is out."""
        while self._queue and not self._process.dead:
            await self._loop.pause()

    def die(self) -> None:
        """What had left the machine arrives, the rest is gone."""
        for _, request in self._queue[: self._loop.rng.randint(0, len(self._queue))]:
            with suppress(KafkaError):
                self._broker.write(self._name, self._epoch, *request)
        self._queue = []
        if self._name is not None:
            self._loop.outside(self._broker.abandon, self._name, self._epoch)

    def _deliver(self) -> None:
        rng = self._loop.rng
        if self._name is None and self._loop.steps < self._process.world.slow_until:
            self._loop.call_soon(self._deliver, context=self._process.context)
            return
        count = len(self._queue) if rng.random() < 0.7 else rng.randint(1, len(self._queue))
        now, self._queue = self._queue[:count], self._queue[count:]
        for future, request in now:
            _arrive(self._process, future, partial(self._write, request), True)
        self._on_its_way = bool(self._queue)
        if self._on_its_way:
            self._loop.call_soon(self._deliver, context=self._process.context)

    def _commit(self) -> None:
        self._broker.commit(self._name, self._epoch)
        self._process.world.committed(self._process)

    def _write(self, request: tuple[Any, ...]) -> int:
        offset: int = self._broker.write(self._name, self._epoch, *request)
        return offset


class Consumer:
    """As AIOKafkaConsumer, assigned by hand; reads committed records unless told otherwise."""

    def __init__(self, isolation_level: str = "read_committed", **_: object) -> None:
        self._broker = _owner().world.broker
        self._committed = isolation_level == "read_committed"
        self._at: dict[TopicPartition, int] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._at = dict.fromkeys(places, 0)

    async def seek_to_beginning(self, *places: TopicPartition) -> None:
        for place in places:
            self._at[place] = self._broker.log(place).start

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = await ask(
            lambda: {
                p: self._broker.log(p).stable if self._committed else self._broker.log(p).end
                for p in places
            },
            may_time_out=False,
        )
        return found

    async def position(self, place: TopicPartition) -> int:
        return self._at[place]

    async def getmany(
        self, *places: TopicPartition, timeout_ms: int = 0
    ) -> dict[TopicPartition, list[Entry]]:
        got: dict[TopicPartition, list[Entry]] = {}
        for place, at in [(p, self._at[p]) for p in places or self._at]:
            log = self._broker.log(place)
            if log.stable <= at:  # somebody's transaction is open: wait for its end
                future = _owner().world.loop.create_future()
                log.waiting.append(future)
                await future
            stable = log.stable
            got[place] = log.committed(at, stable)
            self._at[place] = max(at, stable)
        return got
