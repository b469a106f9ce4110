"""The outbox process: tells addresses outside of new and worse alerts, each at most once.

How an address is told follows from its scheme (`citybrain/consumers`). Each address has its own
queue, so that one which is away holds up no other.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Counter

from citybrain import log
from citybrain.clock import Clock, wall_clock
from citybrain.consumers import addresses, tell
from citybrain.deliveries import Deliveries
from citybrain.errors import JSON_ERRORS
from citybrain.kafka import KafkaSettings, consumer_arguments, started, unreachable
from citybrain.outbox import Effect
from citybrain.process import Health, running, stop_event
from citybrain.topics import full_name

IDLE_S = 0.25


@dataclass(slots=True)
class Outbox:
    """Takes effects from the topic and delivers them. `told` counts by outcome."""

    deliveries: Deliveries
    addresses: list[str]
    told: Counter
    clock: Clock = wall_clock
    progress_ms: int = 0
    facts: dict[str, float | int | str] = field(default_factory=dict)

    def take(self, topic: str, records: Iterable[tuple[int, int, bytes]]) -> None:
        """Note records (offset, timestamp, value). What cannot be read is counted as such."""
        effects, next_offset = [], 0
        for offset, at_ms, value in records:
            next_offset = offset + 1
            try:
                effect = msgspec.json.decode(value, type=Effect)
            except JSON_ERRORS as error:
                self.told.labels("unreadable").inc()
                log.get(__name__).warning("unreadable effect", offset=offset, error=str(error))
                continue
            effects.append((effect.key, msgspec.json.encode(effect.alert), at_ms))
        if next_offset:
            self.deliveries.take(topic, next_offset, effects, self.addresses)
            self.progress_ms = self.clock()

    async def deliver(self, address: str, stop: asyncio.Event) -> None:
        """Work off the queue of one address until `stop`."""
        while not stop.is_set():
            delivery = self.deliveries.begin(address, self.clock())
            if delivery is None:
                await _pause(stop)
                continue
            outcome, detail = await asyncio.to_thread(tell, delivery)
            self.told.labels(outcome).inc()
            if outcome == "again":
                self.deliveries.again(delivery, self.clock(), detail)
            else:
                self.deliveries.end(delivery, outcome, detail)
            if outcome != "delivered":
                host = urlsplit(address).hostname
                log.get(__name__).warning(
                    "not told", host=host, outcome=outcome, detail=detail, key=delivery.key
                )
            self.progress_ms = self.clock()

    def health(self) -> Health:
        """Well while it runs: an address that is away is its own trouble, and is counted."""
        return Health(ok=True, progress_ms=self.progress_ms, facts=self.facts)


async def run(
    settings: KafkaSettings,
    city: str,
    data: Path,
    webhooks: str,
    port: int = 0,
    stop: asyncio.Event | None = None,
) -> None:
    """Deliver until `stop` (SIGTERM, SIGINT). Raises UsageError, SetupError, BrokerError."""
    registry = CollectorRegistry()
    told = Counter(
        "citybrain_outbox_deliveries", "Attempts to tell an address, by outcome.", ["outcome"],
        registry=registry,
    )  # fmt: skip
    deliveries = Deliveries(data / "outbox.sqlite")
    box = Outbox(deliveries, addresses(webhooks), told)
    try:
        with running("outbox", data, registry, box.health, port):
            stop = stop or stop_event()
            tasks = [asyncio.create_task(box.deliver(a, stop)) for a in box.addresses]
            tasks.append(asyncio.create_task(_follow(settings, city, box, stop)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            stop.set()
            await asyncio.gather(*tasks)
    finally:
        deliveries.close()


async def _follow(settings: KafkaSettings, city: str, box: Outbox, stop: asyncio.Event) -> None:
    name = full_name(city, "outbox")
    place = TopicPartition(name, 0)
    consumer = await started(AIOKafkaConsumer(**consumer_arguments(settings, "outbox")), settings)
    try:
        consumer.assign([place])
        first = (await consumer.beginning_offsets([place]))[place]
        consumer.seek(place, max(first, box.deliveries.next_offset(name)))
        while not stop.is_set():
            got = await consumer.getmany(place, timeout_ms=round(IDLE_S * 1000))
            box.take(name, [(r.offset, r.timestamp, r.value) for r in got.get(place, [])])
            box.deliveries.forget(box.clock())
            # For /health, which is served by a thread that may not touch the table.
            box.facts = dict(box.deliveries.counts())
    except (KafkaError, OSError) as error:
        raise unreachable(settings, error) from error
    finally:
        await consumer.stop()


async def _pause(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), IDLE_S)
    except TimeoutError:
        return
