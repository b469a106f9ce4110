"""Commands to the writers of state: build one, send it, wait for what became of it.

A command that is not in the log by its `expires_ms` does nothing; one that is in the log takes
effect even if nobody waits for the answer any more.
"""

import asyncio
import getpass
import math
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from citybrain import findings
from citybrain.command_kinds import topic_of
from citybrain.contents import partitions
from citybrain.errors import BrokerError, NoAnswer, Refused, UsageError
from citybrain.findings import CommandBase, CommandResult
from citybrain.kafka import (
    KafkaSettings,
    consumer_arguments,
    producer_arguments,
    started,
    stopped,
    unreachable,
)
from citybrain.topics import full_name

ANSWER_MS = 15_000
"""How long a command is worth something, and how long is waited for its answer."""

STORE_MS = 5_000
"""So long a command may take into the log before the broker counts as away."""
REMEMBERED = 2_000

_C = TypeVar("_C", bound=msgspec.Struct)


def this_person() -> str:
    """The name of the person at this terminal. Raises UsageError if the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise UsageError("person: this system has no user name; give --person") from error


def command(kind: type[_C], person: str, now_ms: int, /, **facts: Any) -> _C:
    """A command of some kind with a new id, to be carried out within `ANSWER_MS`.

    Raises UsageError for a number that JSON cannot carry.

    >>> from citybrain.findings import Assign
    >>> command(Assign, "operator-1", 1_000, alert="rain/city/1", assignee="crew-7").expires_ms
    16000
    """
    for name, value in facts.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name}: {value} is not a finite number")
    return kind(
        id=uuid.uuid4().hex, person=person, issued_ms=now_ms, expires_ms=now_ms + ANSWER_MS, **facts
    )


def demand(result: CommandResult) -> CommandResult:
    """The result if the command was applied. Raises Refused with why it was not."""
    if result.outcome == "applied":
        return result
    raise Refused(result.why or "the command reached the log too late; send it again")


class Answers:
    """What became of commands: the last `REMEMBERED` of them, and who waits for one."""

    def __init__(self) -> None:
        self._known: dict[str, CommandResult] = {}
        self._waiting: dict[str, asyncio.Future[CommandResult]] = {}

    def get(self, command_id: str) -> CommandResult | None:
        """The answer to a command, None if there is none yet or it was long ago."""
        return self._known.get(command_id)

    def take(self, result: CommandResult) -> None:
        """An answer has come."""
        self._known.pop(result.id, None)
        self._known[result.id] = result
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        waiting = self._waiting.pop(result.id, None)
        if waiting and not waiting.done():
            waiting.set_result(result)

    def expect(self, command_id: str) -> "asyncio.Future[CommandResult]":
        """The answer that will come. Whoever else waits for the same one gets it as well."""
        known = self._waiting.get(command_id)
        if known is None or known.done():
            known = self._waiting[command_id] = asyncio.get_running_loop().create_future()
            if len(self._waiting) > REMEMBERED:
                self._waiting.pop(next(iter(self._waiting))).cancel()
        return known

    def fail(self, error: Exception) -> None:
        """No more answers will come."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # seen, even if the one who asked has gone
        self._waiting.clear()


async def store(
    producer: AIOKafkaProducer, settings: KafkaSettings, city: str, order: CommandBase
) -> None:
    """Write a command into the log of the stage that carries it out.

    Raises BrokerError if it was not acknowledged in `STORE_MS`; it may get there later.
    """
    topic = full_name(city, topic_of(order))
    told = producer.send_and_wait(topic, findings.encode(order), key=order.id.encode(), partition=0)
    try:
        await asyncio.wait_for(told, STORE_MS / 1000)
    except TimeoutError as error:
        raise BrokerError(
            f"broker: {settings.bootstrap} has not taken the command within"
            f" {STORE_MS // 1000} s; it still takes effect if it gets there before its end"
        ) from error
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from error


class Commander:
    """Sends commands to a city's stages and hands each its answer.

    An asynchronous context manager; any number of commands may be on their way at once.
    """

    def __init__(self, settings: KafkaSettings, city: str) -> None:
        self._settings, self._city = settings, city
        self._answers = Answers()
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises BrokerError if the cluster does not take us in or has no such city."""
        (answers,) = await partitions(self._settings, self._city, "command-results")
        consumer = AIOKafkaConsumer(**consumer_arguments(self._settings, from_start=False))
        self._consumer = await started(consumer, self._settings)
        try:
            consumer.assign([answers])
            await consumer.seek_to_end(answers)
            # Without knowing where the end is now, an answer could come before it.
            await consumer.position(answers)
            producer = AIOKafkaProducer(**producer_arguments(self._settings))
            self._producer = await started(producer, self._settings)
        except BaseException:
            await consumer.stop()
            raise
        self._reading = asyncio.create_task(self._read(consumer), name="command results")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._producer:
            await stopped(self._producer)
        if self._consumer:
            await self._consumer.stop()

    async def send(self, order: CommandBase, timeout_ms: int = ANSWER_MS) -> CommandResult:
        """Send a command and wait for its answer.

        Raises NoAnswer if none comes in time, BrokerError if it cannot be sent.
        """
        if self._producer is None:
            raise UsageError("commander: used outside of its context")
        answer = self._answers.expect(order.id)
        await store(self._producer, self._settings, self._city, order)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), timeout_ms / 1000)
        except TimeoutError as error:
            raise NoAnswer(
                f"no answer within {timeout_ms / 1000:.0f} s: is a worker running the stage of"
                f" {self._city} that takes it? The command is in the log, and the next one does"
            ) from error

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async for record in consumer:
                self._answers.take(msgspec.json.decode(record.value, type=CommandResult))
        except KafkaError as error:
            self._answers.fail(unreachable(self._settings, error))


def send_all(
    settings: KafkaSettings, city: str, orders: Sequence[CommandBase]
) -> list[CommandResult]:
    """Send commands together and wait for all answers, from code that is not asynchronous."""

    async def run() -> list[CommandResult]:
        async with Commander(settings, city) as commander:
            return list(await asyncio.gather(*map(commander.send, orders)))

    return asyncio.run(run())
