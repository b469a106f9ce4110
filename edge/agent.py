"""The edge agent: sources in front, one intake, one spool, one sender behind."""

import asyncio
import secrets
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from citybrain import log
from citybrain.batch import Batch, decode
from citybrain.city import City
from citybrain.clock import Clock, wall_clock
from citybrain.columns import Rosters
from citybrain.edge import journal
from citybrain.edge.config import EdgeConfig
from citybrain.edge.frames import Entry
from citybrain.edge.intake import Intake
from citybrain.edge.journal import Ledger, Message, Party
from citybrain.edge.metrics import EdgeMetrics
from citybrain.edge.registry import configured
from citybrain.edge.relay import Relay
from citybrain.edge.sender import Sender
from citybrain.edge.sources.base import Context, Source
from citybrain.edge.spool import Spool
from citybrain.edge.tokens import Tokens
from citybrain.edge.validate import Tolerance, Validator
from citybrain.errors import UsageError
from citybrain.kafka import KafkaSettings, producer_arguments
from citybrain.process import Health

STUCK_MS = 30_000


class Agent:
    """One agent of one city; make it, then `run` it.

    Raises UsageError naming a key, SetupError for a port, file or folder it cannot have.
    """

    def __init__(
        self,
        config: EdgeConfig,
        city: City,
        data: Path,
        kafka: KafkaSettings,
        registry: CollectorRegistry,
        clock: Clock = wall_clock,
    ) -> None:
        self._log = log.get("edge.agent")
        self._city = city
        self._clock = clock
        self.folder = data / "edge" / config.name
        self.metrics = EdgeMetrics(registry)
        self.stopped = asyncio.Event()
        self.gateways = _gateways(config, city)
        tolerance = Tolerance(int(config.future_s * 1000), int(config.past_days * 86_400_000))
        self._validator = Validator(city, tolerance)
        self.ledger = Ledger()
        self._rosters = Rosters()
        self.spool = Spool(
            self.folder / "spool", int(config.spool.max_mb * (1 << 20)), self._recall
        )
        self.metrics.spool_limit_bytes.set(self.spool.max_bytes)
        self._settle()
        self.intake = Intake(
            self._validator, self.spool, self.ledger, clock, self.metrics,
            policy=config.spool.overflow, linger_ms=config.linger_ms,
            max_delay_ms=int(config.max_delay_s * 1000),
            pending_bytes=int(config.memory_mb * (1 << 20)),
        )  # fmt: skip
        street = city.signals or city.emergency.responder
        self.relay = (
            Relay(city.id, city.signals, kafka, registry, clock, city.emergency.responders)
            if street
            else None
        )
        context = Context(
            city=city, intake=self.intake, tokens=Tokens(data), clock=clock, metrics=self.metrics,
            folder=self.folder, gateways=self.gateways, health=self.health, relay=self.relay,
        )  # fmt: skip
        try:
            self.sources = _sources(config, context)
        except BaseException:
            self.spool.close()
            raise
        arguments = producer_arguments(kafka, f"citybrain-edge-{config.name}")
        self.sender = Sender(
            city.id, self._validator.layout, dict(city.shards), self.intake, self.spool,
            self.ledger, clock, self.metrics, lambda: AIOKafkaProducer(**arguments), self._pushed,
        )  # fmt: skip

    def _recall(self, entry: Entry, acknowledged: int) -> Hashable:
        """What one entry of the spool says, at opening: books, and what devices have said."""
        payload = journal.decode(entry.payload)
        tally = self.ledger.recall(entry, payload, acknowledged)
        if isinstance(payload, Message) and payload.seq >= 0 and payload.pushed:
            item = decode(payload.value, self._rosters)
            if isinstance(item, Batch):
                self._validator.recall(item)
        return tally

    def _settle(self) -> None:
        """After opening: new numbers if anything was lost, else go on where we were."""
        self.ledger.settle()
        report = self.spool.report
        missing = self.ledger.unexplained(report.missing)
        for file, damage in report.damage:
            self._log.error("spool damaged", file=file, start=damage.start, end=damage.end)
        for first, last in missing:
            self._log.error("spool entries missing", first=first, last=last)
            self.metrics.damaged.inc(last - first + 1)
        # Sequence numbers may have been used that the damaged part had told of: with the same
        # incarnation the engine would refuse what comes next as repeats.
        if not self.ledger.incarnation or report.damage or missing:
            self.ledger.incarnation = secrets.token_hex(8)
            self._log.info("new incarnation", incarnation=self.ledger.incarnation)

    def _pushed(self) -> Sequence[Party]:
        if not any(source.pushes for source in self.sources.values()):
            return []
        return [
            (self.ledger.incarnation, gateway, shard)
            for shard, gateway in self._validator.layout.pairs
            if gateway in self.gateways
        ]

    def health(self) -> Health:
        """Progress: nothing that was stored waits longer than it should."""
        self.observe()
        waiting = [s.health().waiting for s in self.sources.values() if not s.health().ok]
        held = self._clock() - self.sender.held_since_ms if self.sender.held_since_ms else 0
        if self.sender.held_since_ms:
            waiting.append(f"broker: {self.sender.failure}")
        facts: dict[str, float | int | str] = {
            "incarnation": self.ledger.incarnation,
            "backlog_readings": self.sender.backlog,
            "spool_bytes": self.spool.size_bytes,
            "held_ms": held,
        }
        for source in self.sources.values():
            facts |= source.health().facts
        return Health(
            ok=not waiting or (held < STUCK_MS and len(waiting) == bool(held)),
            waiting="; ".join(w for w in waiting if w),
            progress_ms=max(self.sender.sent_ms, self.intake.stored_ms),
            facts=facts,
        )

    def observe(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.spool_bytes.set(self.spool.size_bytes)
        self.metrics.backlog_readings.set(self.sender.backlog)
        since = self.sender.held_since_ms
        self.metrics.backlog_age_seconds.set((self._clock() - since) / 1000 if since else 0)

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Until `stop`: then sources first, what they gave next, Kafka last.

        Raises whatever ends a part of it: its supervisor starts it again.
        """
        self.stopped = stop
        events = {name: asyncio.Event() for name in self.sources}
        intake = asyncio.create_task(self.intake.run(), name="intake")
        sender = asyncio.create_task(self.sender.run(stop), name="sender")
        gauges = asyncio.create_task(self._gauges(), name="gauges")
        relays = (
            [asyncio.create_task(self.relay.run(), name="signals")]
            if self.relay and any(source.pushes for source in self.sources.values())
            else []
        )
        sources = [
            asyncio.create_task(source.run(events[name]), name=f"source {name}")
            for name, source in self.sources.items()
        ]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await self._started(events, [intake, sender, *sources])
            ready()
            living: set[asyncio.Task[Any]] = {intake, sender, gauges, stopped, *relays, *sources}
            while not stop.is_set():
                done, _ = await asyncio.wait(living, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopped}:
                    task.result()  # raises what ended it; a recording may simply be over
                living -= done
                if living.isdisjoint(sources):
                    stop.set()
        finally:
            stop.set()
            for group in (sources, [gauges, stopped, *relays], [intake], [sender]):
                for task in group:
                    if task is not sender:
                        task.cancel()
                await asyncio.gather(*group, return_exceptions=True)
            if not self.intake.broken:
                await self.sender.finish()
            self.observe()
            self.spool.close()

    async def _started(
        self, events: dict[str, asyncio.Event], tasks: list["asyncio.Task[Any]"]
    ) -> None:
        """Wait until every source is ready, or a part has failed."""
        for event in events.values():
            waits = asyncio.create_task(event.wait())
            await asyncio.wait([waits, *tasks], return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()
            for task in tasks:
                if task.done():
                    task.result()

    async def _gauges(self) -> None:
        while True:
            self.observe()
            await asyncio.sleep(1)


def _gateways(config: EdgeConfig, city: City) -> frozenset[str]:
    known = {sensor.gateway for sensor in city.sensors.values()}
    for gateway in config.gateways:
        if gateway not in known:
            raise UsageError(f"gateways: {gateway!r} is not in the pack of {city.id}")
    return frozenset(config.gateways or known)


def _sources(config: EdgeConfig, context: Context) -> dict[str, Source]:
    if not config.sources:
        raise UsageError("sources: none; expected a table such as [sources.http]")
    made = {name: configured(name, table) for name, table in config.sources.items()}
    sources = {name: source(table, context) for name, (source, table) in made.items()}
    if len(sources) > 1 and not all(source.pushes for source in sources.values()):
        raise UsageError("sources: a recording must be the only source of its agent")
    return sources
