"""Commands to the writer of alerts: build one, send it, wait for what became of it.

The command line and the centre use the same `Commander`. A command that is not in the log by
its `expires_ms` does nothing; one that is in the log takes effect even if nobody waits for
the answer any more.
"""

import asyncio
import getpass
import uuid
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from citybrain import findings
from citybrain.contents import partitions
from citybrain.errors import NoAnswer, Refused, UsageError
from citybrain.findings import Command, CommandResult
from citybrain.kafka import (
    KafkaSettings,
    consumer_arguments,
    producer_arguments,
    started,
    unreachable,
)
from citybrain.topics import full_name

ANSWER_MS = 15_000
"""How long a command is worth something, and how long is waited for its answer."""

_C = TypeVar("_C", bound=msgspec.Struct)


def this_person() -> str:
    """The name of the person at this terminal. Raises UsageError if the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise UsageError("person: this system has no user name; give --person") from error


def command(kind: type[_C], person: str, now_ms: int, **facts: Any) -> _C:
    """A command of some kind with a new id, to be carried out within `ANSWER_MS`.

    >>> from citybrain.findings import Assign
    >>> command(Assign, "operator-1", 1_000, alert="rain/city/1", assignee="crew-7").expires_ms
    16000
    """
    return kind(
        id=uuid.uuid4().hex, person=person, issued_ms=now_ms, expires_ms=now_ms + ANSWER_MS, **facts
    )


def demand(result: CommandResult) -> CommandResult:
    """The result if the command was applied. Raises Refused with why it was not."""
    if result.outcome == "applied":
        return result
    raise Refused(result.why or "the command reached the log too late; send it again")


class Commander:
    """Sends commands to a city's alerting stage and hands each its answer.

    An asynchronous context manager; any number of commands may be on their way at once.
    """

    def __init__(self, settings: KafkaSettings, city: str) -> None:
        self._settings, self._city = settings, city
        self._waiting: dict[str, asyncio.Future[CommandResult]] = {}
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
            await self._producer.stop()
        if self._consumer:
            await self._consumer.stop()

    async def send(self, order: Command, timeout_ms: int = ANSWER_MS) -> CommandResult:
        """Send a command and wait for its answer.

        Raises NoAnswer if none comes in time, BrokerError if it cannot be sent.
        """
        if self._producer is None:
            raise UsageError("commander: used outside of its context")
        answer = asyncio.get_running_loop().create_future()
        self._waiting[order.id] = answer
        topic = full_name(self._city, "findings")
        try:
            await self._producer.send_and_wait(
                topic, findings.encode(order), key=order.id.encode(), partition=0
            )
            return await asyncio.wait_for(answer, timeout_ms / 1000)
        except TimeoutError as error:
            raise NoAnswer(
                f"no answer within {timeout_ms / 1000:.0f} s: is a worker running the alerting"
                f" stage of {self._city}? The command is in the log, and the next one takes it"
            ) from error
        except (KafkaError, OSError) as error:
            raise unreachable(self._settings, error) from error
        finally:
            del self._waiting[order.id]

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async for record in consumer:
                result = msgspec.json.decode(record.value, type=CommandResult)
                answer = self._waiting.get(result.id)
                if answer and not answer.done():
                    answer.set_result(result)
        except KafkaError as error:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(unreachable(self._settings, error))


def send_all(settings: KafkaSettings, city: str, orders: list[Command]) -> list[CommandResult]:
    """Send commands together and wait for all answers, from code that is not asynchronous."""

    async def run() -> list[CommandResult]:
        async with Commander(settings, city) as commander:
            return list(await asyncio.gather(*map(commander.send, orders)))

    return asyncio.run(run())
