"""The centre's way to give commands: into the stage's log, and back from `command-results`.

The answers come with the feed, which reads on whatever happens; so one that is late can still
be asked for, and a restarted centre knows those of the last hours.
"""

import asyncio
import uuid
from typing import Any

from aiokafka import AIOKafkaProducer

from citybrain.clock import Clock
from citybrain.command_kinds import CommandKind, WrongBody
from citybrain.commands import ANSWER_MS, Answers, store
from citybrain.errors import BrokerError
from citybrain.findings import CommandBase, CommandResult
from citybrain.kafka import KafkaSettings, producer_arguments, started, stopped

CONNECT_S = 5.0
REMEMBERED = 10_000


class Desk:
    """Takes commands of people. `answers` is fed by whoever reads the results' topic."""

    def __init__(self, kafka: KafkaSettings, city: str, answers: Answers, clock: Clock) -> None:
        self.answers = answers
        self._kafka, self._city, self._clock = kafka, city, clock
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._given: dict[tuple[str, str], str] = {}

    def order(
        self, kind: CommandKind, own_id: str, facts: dict[str, Any], person: str
    ) -> CommandBase:
        """The command to give. Raises WrongBody if its id was another command's."""
        own_id = own_id or uuid.uuid4().hex
        order = kind.order(own_id, facts, person, self._clock(), ANSWER_MS)
        known = self._given.setdefault((person, own_id), order.id)
        if known != order.id:
            raise WrongBody("id", f'"{own_id}"', "was given to another command; choose a new one")
        if len(self._given) > REMEMBERED:
            del self._given[next(iter(self._given))]
        return order

    async def give(self, order: CommandBase, wait_s: float) -> CommandResult | None:
        """What became of a command, None if that is not known after `wait_s`.

        One that was answered before is not sent again. Raises BrokerError.
        """
        if known := self.answers.get(order.id):
            return known
        answer = self.answers.expect(order.id)
        await store(await self._open(), self._kafka, self._city, order)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), wait_s)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Let go of the broker."""
        if self._producer:
            await stopped(self._producer)

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(**producer_arguments(self._kafka, "citybrain-desk"))
                try:
                    self._producer = await asyncio.wait_for(
                        started(producer, self._kafka), CONNECT_S
                    )
                except TimeoutError as error:
                    await stopped(producer)
                    raise BrokerError(
                        f"broker: {self._kafka.bootstrap} does not answer within {CONNECT_S:.0f} s"
                    ) from error
            return self._producer
