"""Between the controllers at the street and Kafka: reports up, plans down, nothing kept.

A controller asks about once a second: it hands over its report and is given the plans that
have come since. Reports expire, so one that the broker does not take is counted and dropped;
plans that nobody fetches run out. Whether a plan is followed is for the arbiter to say.
"""

import asyncio
from collections import deque
from collections.abc import Collection

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge

from citybrain import emergency, findings, log, signal_log
from citybrain.clock import Clock
from citybrain.contents import partitions
from citybrain.emergency import Order
from citybrain.errors import JSON_ERRORS, BrokerError, InvalidInput
from citybrain.findings import DeadLetter
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments, started, stopped
from citybrain.signal_log import GATEWAY, Orders, Report
from citybrain.signals import Plan, Refusal
from citybrain.topics import full_name

KEPT = 20_000
LETTERS = 50
"""So many refusals of one report are written to the dead letter; all of them are counted."""
_AGAIN_S = 1.0

_log = log.get(__name__)


class Relay:
    """The relay of one edge agent. `run` it; `exchange` is what controllers ask for."""

    def __init__(
        self,
        city: str,
        junctions: Collection[str],
        kafka: KafkaSettings,
        registry: CollectorRegistry,
        clock: Clock,
        responders: Collection[str] = (),
    ) -> None:
        self._city, self._kafka, self._clock = city, kafka, clock
        self._junctions, self._responders = frozenset(junctions), frozenset(responders)
        self._orders: dict[str, Order] = {}
        self._producer: AIOKafkaProducer | None = None
        self._plans: deque[tuple[int, Plan]] = deque(maxlen=KEPT)
        self._serial = 0
        self._reports = Counter(
            "citybrain_edge_signal_reports", "Reports of signal controllers, by fate.",
            ["fate"], registry=registry,
        )  # fmt: skip
        self._handed = Counter(
            "citybrain_edge_signal_plans", "Plans that arrived for controllers, by source.",
            ["source"], registry=registry,
        )  # fmt: skip
        self._refused = Counter(
            "citybrain_edge_signal_refusals",
            "Plans and changes of lamps that arbiters and interlocks turned down, by rule.",
            ["rule"], registry=registry,
        )  # fmt: skip
        self._age = Gauge(
            "citybrain_edge_signal_plan_age_seconds", "Age of the newest plan when it arrived.",
            registry=registry,
        )  # fmt: skip

    async def exchange(self, body: bytes, after: int) -> Orders:
        """Take a report; the plans that came after the serial number `after`.

        Raises InvalidInput for a report that cannot be read or names an unknown junction.
        """
        report = signal_log.decode(body)
        if not isinstance(report, Report) or report.gateway != GATEWAY:
            raise InvalidInput("head", f"expected a report of gateway {GATEWAY!r}")
        for shown in report.shown:
            if shown.junction not in self._junctions:
                self._reports.labels("refused").inc()
                raise InvalidInput("junction", f"junction: {shown.junction!r} is not in the pack")
        for position in report.positions:
            if position.responder not in self._responders:
                self._reports.labels("refused").inc()
                raise InvalidInput(
                    "responder", f"responder: {position.responder!r} is not in the pack"
                )
        for position in report.positions:
            told = emergency.encode(position)
            await self._send("emergency", told, position.responder.encode(), 0)
        if report.positions:
            body = signal_log.encode(msgspec.structs.replace(report, positions=[]))
        await self._send("detector-states", body, None, 0)
        for number, refusal in enumerate(report.refusals):
            self._refused.labels(refusal.rule).inc()
            if number < LETTERS:
                await self._letter(refusal, b"")
        return Orders(
            serial=self._serial,
            plans=[plan for serial, plan in self._plans if serial > after],
            dispatches=[self._orders[name] for name in sorted(self._orders)],
        )

    async def run(self) -> None:
        """Until cancelled. A broker that is away is waited for."""
        while True:
            try:
                await self._serve()
            except (BrokerError, KafkaError, OSError) as error:
                _log.warning("signals wait for the broker", error=str(error))
                await asyncio.sleep(_AGAIN_S)

    async def _serve(self) -> None:
        producer = AIOKafkaProducer(**producer_arguments(self._kafka, "citybrain-edge-signals"))
        consumer = AIOKafkaConsumer(**consumer_arguments(self._kafka, from_start=False))
        places = await partitions(self._kafka, self._city, "signal-plans")
        dispatches = await partitions(self._kafka, self._city, "dispatches")
        await started(producer, self._kafka)
        self._producer = producer
        try:
            await started(consumer, self._kafka)
            consumer.assign([*places, *dispatches])
            await consumer.seek_to_end(*places)
            await consumer.seek_to_beginning(*dispatches)
            while True:
                for place, records in (await consumer.getmany(timeout_ms=500)).items():
                    for record in records:
                        if place in dispatches:
                            self._dispatch(record.value)
                        else:
                            await self._take(record.value or b"")
                self._forget()
        finally:
            self._producer = None
            await stopped(consumer)
            await stopped(producer)

    async def _take(self, value: bytes) -> None:
        """A plan from the log. One that is for nobody here is refused with its bytes."""
        now_ms = self._clock()
        try:
            plan = msgspec.json.decode(value, type=Plan)
        except JSON_ERRORS as error:
            await self._turn_down(Refusal("", now_ms, "form", f"plan: {error}"), value)
            return
        if plan.junction not in self._junctions:
            why = f"junction: {plan.junction!r} is not in the pack"
            await self._turn_down(Refusal(plan.junction, now_ms, "junction", why), value)
            return
        self._handed.labels(plan.source).inc()
        self._age.set((now_ms - plan.issued_ms) / 1000)
        self._serial += 1
        self._plans.append((self._serial, plan))

    def _dispatch(self, value: bytes | None) -> None:
        """An order from the table: the newest of a responder counts, ended ones are kept so that
        its terminal sees them end."""
        if value is None:
            return
        try:
            order = msgspec.json.decode(value, type=Order)
        except JSON_ERRORS as error:
            _log.warning("unreadable order", error=str(error))
            return
        before = self._orders.get(order.responder)
        if before is None or (order.sent_ms, order.revision) >= (before.sent_ms, before.revision):
            self._orders[order.responder] = order

    def _forget(self) -> None:
        """Plans that have run out before anybody fetched them."""
        now_ms = self._clock()
        while self._plans and self._plans[0][1].expires_ms + signal_log.LATE_MS < now_ms:
            self._plans.popleft()

    async def _turn_down(self, refusal: Refusal, value: bytes) -> None:
        self._refused.labels(refusal.rule).inc()
        await self._letter(refusal, value)

    async def _letter(self, refusal: Refusal, value: bytes) -> None:
        letter = DeadLetter(
            id=f"signals/{refusal.junction}/{refusal.at_ms}/{refusal.rule}",
            step="arbiter",
            reason=refusal.rule,
            message=f"{refusal.junction}: {refusal.why}",
            at_ms=refusal.at_ms,
            original=value,
        )
        await self._send("dead-letter", findings.encode(letter), letter.id.encode(), 0)

    async def _send(self, topic: str, value: bytes, key: bytes | None, partition: int) -> None:
        producer, fate = self._producer, "sent"
        try:
            if producer is None:
                fate = "dropped"
            else:
                name = full_name(self._city, topic)
                await asyncio.wait_for(producer.send(name, value, key, partition), _AGAIN_S)
        except (KafkaError, TimeoutError):
            fate = "dropped"
        if topic == "detector-states":
            self._reports.labels(fate).inc()
