"""From the output topics into the state: one consumer of all their partitions, no group.

Whoever restarts the centre loses nothing: tables are read from their beginning, the
others from two hours back. A broker that is away is waited for; the page says so.
"""

import asyncio
from typing import Any, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from citybrain import findings, forecasts, log, signal_log, stats
from citybrain.accounts import Account
from citybrain.alerts import Alert
from citybrain.changes import CURRENT_PACK
from citybrain.clock import Clock
from citybrain.columns import Rosters
from citybrain.commands import Answers
from citybrain.dashboards.centre.alert_view import AlertView
from citybrain.dashboards.centre.metrics import CentreMetrics
from citybrain.dashboards.centre.state import CityState
from citybrain.emergency import Incident, Order, ResponderState
from citybrain.errors import JSON_ERRORS, BrokerError, InvalidInput
from citybrain.findings import CommandResult, LinkState
from citybrain.fits import decoder as fits_decoder
from citybrain.kafka import KafkaSettings, consumer_arguments, started
from citybrain.kinds import HOUR
from citybrain.signals import Plan
from citybrain.topics import TOPICS, full_name

LOOK_BACK_MS = 2 * HOUR
LOOK_BACK_RECORDS = 20_000
RECENT_MS = {"detector-states": 30_000, "signal-plans": 30_000}
"""Topics of which only the present counts: so far back is enough."""
QUIET_POLLS = 8
"""Empty polls after which a partition's end counts as reached (its last record may be a mark
of a transaction, which is never handed out)."""
ASK_POLLS = 20
ANSWER_S = 5.0
"""After some 5 s without any record the broker is asked whether it is there at all."""

READ = (
    "accounts", "models", "packs", "alerts", "link-states", "findings", "forecasts", "stats",
    "command-results", "detector-states", "signal-plans", "incidents", "dispatches", "responders",
)  # fmt: skip
WHOLE = {name for name in READ if TOPICS[name].compact} - {"link-states"}
"""Read from their beginning. A road's state expires in minutes: those of hours ago say nothing."""

_T = TypeVar("_T", bound=msgspec.Struct)
_logger = log.get(__name__)


class Feed:
    """Reads for ever into a state and an alert view."""

    def __init__(
        self,
        kafka: KafkaSettings,
        state: CityState,
        alerts: AlertView,
        metrics: CentreMetrics,
        answers: Answers,
        clock: Clock,
    ) -> None:
        self._kafka = kafka
        self._state = state
        self._alerts = alerts
        self._metrics = metrics
        self._answers = answers
        self._clock = clock
        self._rosters = Rosters()
        self._short = {full_name(state.city.id, name): name for name in READ}
        self._next: dict[TopicPartition, int] = {}
        self.polled_ms = 0

    async def run(self) -> None:
        """Read until cancelled. Reconnects by itself."""
        pause_s = 0.5
        while True:
            try:
                consumer = AIOKafkaConsumer(**consumer_arguments(self._kafka, "citybrain-centre"))
                await started(consumer, self._kafka)
                try:
                    pause_s = 0.5
                    await self._wait_for_topics(consumer)
                    await self._read(consumer)
                finally:
                    await consumer.stop()
            except (BrokerError, KafkaError, OSError) as error:
                self._away("broker")
                _logger.warning("broker is away", error=str(error), again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(10.0, pause_s * 2)

    def _away(self, waiting: str) -> None:
        self._state.ready = False
        self._state.waiting = waiting
        self._metrics.connected.set(0)

    async def _wait_for_topics(self, consumer: AIOKafkaConsumer) -> None:
        while missing := self._short.keys() - await consumer.topics():
            self._away("topics")
            _logger.info("topics are not there yet", missing=sorted(missing))
            await asyncio.sleep(1)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        partitions = [
            TopicPartition(full, number)
            for full, short in self._short.items()
            for number in range(TOPICS[short].partitions(self._state.city.partitions))
        ]
        consumer.assign(partitions)
        ends = await self._seek(consumer, partitions)
        self._state.waiting = "history"
        quiet = 0
        while True:
            got = await consumer.getmany(timeout_ms=250, max_records=2_000)
            self.polled_ms = self._clock()
            self._metrics.connected.set(self._state.waiting != "broker")
            quiet = 0 if got else quiet + 1
            if got and self._state.ready:
                self._state.waiting = ""
            for partition, records in got.items():
                short = self._short[partition.topic]
                for record in records:
                    self._take(short, record)
                self._next[partition] = records[-1].offset + 1
                self._metrics.records.labels(short).inc(len(records))
            self._note_lag(consumer, partitions)
            if quiet % ASK_POLLS == ASK_POLLS - 1:
                await self._ask(consumer, partitions[0])
            if not self._state.ready and (
                quiet >= QUIET_POLLS or all(self._next[p] >= end for p, end in ends.items())
            ):
                self._alerts.complete()
                self._state.ready, self._state.waiting = True, ""
                _logger.info("caught up with the topics")

    async def _ask(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
        """Nothing has come for a while: is nobody speaking, or is the broker away?"""
        try:
            await asyncio.wait_for(consumer.end_offsets([partition]), ANSWER_S)
        except (KafkaError, OSError, TimeoutError) as error:
            if not self._state.waiting:
                _logger.warning("broker does not answer", error=str(error))
            self._metrics.connected.set(0)
            self._state.waiting = "broker"
        else:
            if self._state.ready:
                self._state.waiting = ""

    async def _seek(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Go to where reading begins, or went on last time; returns the ends as they are now."""
        begins = await consumer.beginning_offsets(partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        now_ms = self._clock()
        logs = [p for p in partitions if self._short[p.topic] not in WHOLE]
        at = await consumer.offsets_for_times(
            {p: now_ms - RECENT_MS.get(self._short[p.topic], LOOK_BACK_MS) for p in logs}
        )
        for partition in partitions:
            begin, end = begins[partition], ends[partition]
            if partition in at:
                by_time = at[partition].offset if at[partition] else end
                begin = max(begin, by_time, end - LOOK_BACK_RECORDS)
            before = self._next.get(partition)
            # A position beyond the end means that the topic was made anew.
            if before is not None and begin <= before <= end:
                begin = before
            self._next[partition] = begin
            consumer.seek(partition, begin)
        return ends

    def _take(self, short: str, record: ConsumerRecord) -> None:
        try:
            self._apply(short, record.key, record.value)
        except InvalidInput as error:
            self._metrics.refused.labels(short, error.reason).inc()
            _logger.warning(
                "record passed over", topic=short, partition=record.partition,
                offset=record.offset, reason=error.reason, error=str(error),
            )  # fmt: skip

    def _apply(self, short: str, key: bytes | None, value: bytes | None) -> None:
        state = self._state
        if value is None:
            if short == "alerts" and key is not None:
                state.drop_alert(key.decode("utf-8", "replace"))
                self._alerts.drop(key.decode("utf-8", "replace"))
            elif short == "incidents" and key is not None:
                state.emergency.drop_incident(key.decode("utf-8", "replace"))
            elif short == "dispatches" and key is not None:
                state.emergency.drop_order(key.decode("utf-8", "replace"))
            return
        match short:
            case "stats":
                state.take_stats(stats.decode(value, self._rosters))
            case "forecasts":
                state.take_forecast(forecasts.decode(value, self._rosters))
            case "findings":
                state.take_finding(findings.decode(value))
            case "link-states":
                state.take_link(_decode(value, LinkState))
            case "accounts":
                state.take_account(_decode(value, Account))
            case "alerts":
                alert = _decode(value, Alert)
                if state.take_alert(alert):
                    self._alerts.put(alert)
            case "command-results":
                self._answers.take(_decode(value, CommandResult))
            case "packs" if key == CURRENT_PACK:
                rules = stats.decode(value, self._rosters)
                if isinstance(rules, stats.Rules):
                    state.take_rules(rules)
            case "detector-states":
                entry = signal_log.decode(value)
                if isinstance(entry, signal_log.Report):
                    state.signals.take_report(entry)
            case "incidents":
                state.emergency.take_incident(_decode(value, Incident))
            case "dispatches":
                state.emergency.take_order(_decode(value, Order))
            case "responders":
                state.emergency.take_responder(_decode(value, ResponderState))
            case "signal-plans":
                state.signals.take_plan(_decode(value, Plan))
            case "models":
                try:
                    state.take_fit(fits_decoder.decode(value))
                except JSON_ERRORS as error:
                    raise InvalidInput("head", f"models log: {error}") from error

    def _note_lag(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        lags = dict.fromkeys(READ, 0)
        for partition in partitions:
            end = consumer.last_stable_offset(partition) or 0
            lags[self._short[partition.topic]] += max(0, end - self._next[partition])
        for short, lag in lags.items():
            self._metrics.lag.labels(short).set(lag)


def _decode(value: bytes, form: type[_T]) -> _T:
    try:
        record = msgspec.json.decode(value, type=form)
    except JSON_ERRORS as error:
        raise InvalidInput("head", f"{form.__name__}: {error}") from error
    version: Any = getattr(record, "version", 1)
    if version != 1:
        raise InvalidInput("version", f"{form.__name__}: version {version} is not 1")
    return record
