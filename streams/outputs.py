"""Where a worker's plain outputs go: one idempotent producer for all its stages."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiokafka import AIOKafkaProducer

from citybrain.kafka import KafkaSettings, producer_arguments, started
from citybrain.stage import Out
from citybrain.topics import full_name

Seal = Callable[[bytes], bytes]
AWAY_MS = 300_000
"""For so long outputs wait for a broker that is away, before the worker ends."""


class Outputs:
    """Sends records of a city's topics in order; acknowledged by all in-sync replicas.

    seals: short name of a topic -> what is done to its records last; a signature needs a
    secret, which no stage knows.
    """

    def __init__(
        self, settings: KafkaSettings, city: str, seals: Mapping[str, Seal] | None = None
    ) -> None:
        self._settings, self._city = settings, city
        self._seals = seals or {}
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect. Raises BrokerError."""
        arguments = producer_arguments(self._settings) | {"request_timeout_ms": AWAY_MS}
        producer = AIOKafkaProducer(**arguments)
        self._producer = await started(producer, self._settings)

    async def publish(self, outs: Sequence[Out]) -> Awaitable[object]:
        """Send; what is given back is done when the broker has all of them."""
        assert self._producer is not None
        sent = [
            await self._producer.send(
                full_name(self._city, out.topic), self._sealed(out) or None, out.key, out.partition,
                headers=list(out.headers),
            )
            for out in outs
        ]  # fmt: skip
        return asyncio.gather(*sent)

    def _sealed(self, out: Out) -> bytes:
        seal = self._seals.get(out.topic)
        return seal(out.value) if seal else out.value

    async def stop(self) -> None:
        """Send what is waiting, then disconnect."""
        if self._producer is not None:
            await self._producer.stop()
