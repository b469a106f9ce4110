"""The historian: every log of a city into Parquet, as one process.

It keeps its own offsets (in the journal, with the files), so the broker's consumer groups
have no part in it. Memory is bounded: it stops fetching while it writes, and writes when
enough is held or a few seconds have passed.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from citybrain import log
from citybrain.city import City
from citybrain.clock import Clock, wall_clock
from citybrain.errors import InvalidInput
from citybrain.history.compact import Compactor
from citybrain.history.intake import Intake
from citybrain.history.journal import Partition
from citybrain.history.recompute import Recompute
from citybrain.history.rows import DECODERS
from citybrain.history.store import Store
from citybrain.kafka import KafkaSettings, consumer_arguments, started
from citybrain.process import Health, running, stop_event
from citybrain.stage import Record
from citybrain.topics import TOPICS, full_name

LOGS = ("readings", "backfill", *DECODERS)
_FETCH_RECORDS = 2_000
_IDLE_POLLS = 8
_TEND_S, _TEND_SOON_S = 10.0, 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """When to write: so many bytes held, or so long after the first of them. quiet_ms: late
    windows are recomputed when nothing more has come for them for so long."""

    bytes: int = 64 << 20
    ms: int = 3_000
    quiet_ms: int = 10_000


class Historian:
    """Takes records, flushes them. Metrics go to `registry`."""

    def __init__(self, store: Store, city: City, registry: CollectorRegistry, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._intake = Intake(city.kinds, store.journal.sequences())
        self._recompute = Recompute(store, city, clock)
        self._compactor = Compactor(store, clock)
        self.stale = bool(store.journal.stale())
        self.offsets: dict[Partition, int] = store.journal.offsets()
        self._moved: dict[Partition, int] = {}
        self._rows = Counter(
            "citybrain_historian_rows", "Rows written to history.", ["table"], registry=registry
        )
        self._refused = Counter(
            "citybrain_historian_refused_records", "Records that cannot be read, by reason.",
            ["topic", "reason"], registry=registry,
        )  # fmt: skip
        self._repeats = Counter(
            "citybrain_historian_repeated_batches", "Batches that came twice.", registry=registry
        )
        self._seconds = Histogram(
            "citybrain_historian_flush_seconds", "How long a flush took.", registry=registry
        )
        self._bytes = Counter(
            "citybrain_historian_written_bytes", "Bytes of files.", registry=registry
        )
        self._recomputed = Counter(
            "citybrain_historian_recomputed_windows", "Windows of late readings written.",
            registry=registry,
        )  # fmt: skip
        self._merged = Counter(
            "citybrain_historian_merged_files", "Files merged or expired.", registry=registry
        )
        self._log = log.get(__name__)
        self.flushed_ms = 0
        self.written_rows = 0

    @property
    def held_bytes(self) -> int:
        """Memory that a flush would free."""
        return self._store.bytes

    @property
    def behind(self) -> bool:
        """Whether there is anything to flush."""
        return bool(self._moved)

    def take(self, record: Record) -> None:
        """Hold the rows of a record. One that cannot be read is counted and passed over: the
        stage that reads the same log writes the dead letter."""
        self.offsets[record.topic, record.partition] = record.offset + 1
        self._moved[record.topic, record.partition] = record.offset + 1
        try:
            got = self._intake.take(record)
        except InvalidInput as error:
            self._refused.labels(record.topic, error.reason).inc()
            self._log.warning(
                "unreadable record", topic=record.topic, partition=record.partition,
                offset=record.offset, error=str(error),
            )  # fmt: skip
            return
        if got is not None:
            self._store.add(got, (record.topic, record.partition, record.offset))

    def flush(self) -> None:
        """Everything taken is in files, and the journal says so."""
        begin = time.monotonic()
        self.stale = self.stale or bool(self._intake.stale)
        files = self._store.flush(self._moved, self._intake.sequences, self._intake.stale)
        self._moved = {}
        self._intake.flushed()
        self._repeats.inc(self._intake.repeats)
        self._intake.repeats = 0
        for file in files:
            self._rows.labels(file.table).inc(file.rows)
            self._bytes.inc(file.bytes)
            self.written_rows += file.rows
        self._seconds.observe(time.monotonic() - begin)
        self.flushed_ms = self._clock()

    def recompute(self, until_ms: int) -> bool:
        """Compute one run of late blocks that are quiet since `until_ms`; False for none.

        All that could belong to them must have been taken and flushed before.
        """
        work = self._recompute.due(until_ms)
        if work is None:
            self.stale = bool(self._store.journal.stale())
            return False
        self._recomputed.inc(self._recompute.run(work))
        return True

    def tend(self) -> bool:
        """Merge small files and let old ones go; True if there may be more to do."""
        gone = self._compactor.step()
        self._compactor.sweep()
        self._merged.inc(gone)
        return gone > 0


async def run(
    settings: KafkaSettings,
    city: City,
    data: Path,
    limits: Limits | None = None,
    port: int = 0,
    stop: asyncio.Event | None = None,
) -> None:
    """Write history until `stop` (SIGTERM, SIGINT); what was taken is flushed before it ends.

    Raises BrokerError, SetupError.
    """
    limits = limits or Limits()
    registry = CollectorRegistry()
    with Store(data / "history") as store:
        historian = Historian(store, city, registry, wall_clock)
        state = _State(historian, registry)
        with running("historian", data, registry, state.health, port):
            stop = stop or stop_event()
            consumer = await started(
                AIOKafkaConsumer(**consumer_arguments(settings, "historian")), settings
            )
            try:
                await _assign(consumer, city, historian)
                await _consume(consumer, city, historian, limits, state, stop)
            finally:
                await consumer.stop()


class _State:
    """What /health and the lag gauge say."""

    def __init__(self, historian: Historian, registry: CollectorRegistry) -> None:
        self.historian = historian
        self.progress_ms = 0
        self.lag: dict[str, int] = {}
        self._gauge = Gauge(
            "citybrain_historian_lag_records", "Records not yet read, by topic.", ["topic"],
            registry=registry,
        )  # fmt: skip

    def measured(self, lag: Mapping[str, int]) -> None:
        self.lag = dict(lag)
        for topic, records in lag.items():
            self._gauge.labels(topic).set(records)

    def health(self) -> Health:
        lag = sum(self.lag.values())
        idle_ms = wall_clock() - self.progress_ms
        waiting = "" if not lag or idle_ms < 30_000 else f"{lag} records are not read"
        if not self.progress_ms:
            waiting = "broker"
        facts: dict[str, float | int | str] = {
            "lag": lag, "rows": self.historian.written_rows,
            "flushed_ms": self.historian.flushed_ms,
        }  # fmt: skip
        return Health(ok=not waiting, waiting=waiting, progress_ms=self.progress_ms, facts=facts)


async def _assign(consumer: AIOKafkaConsumer, city: City, historian: Historian) -> None:
    """Take every partition of every log, each from where the journal stands."""
    parts = [
        TopicPartition(full_name(city.id, name), partition)
        for name in LOGS
        for partition in range(TOPICS[name].partitions(city.partitions))
    ]
    consumer.assign(parts)
    first = await consumer.beginning_offsets(parts)
    for part in parts:
        short = part.topic.rpartition(".")[2]
        wanted = historian.offsets.get((short, part.partition))
        if wanted is not None and wanted < first[part]:
            log.get(__name__).error(
                "records were deleted before history read them", topic=short,
                partition=part.partition, records=first[part] - wanted,
            )  # fmt: skip
        consumer.seek(part, max(first[part], wanted or 0))


async def _consume(
    consumer: AIOKafkaConsumer,
    city: City,
    historian: Historian,
    limits: Limits,
    state: _State,
    stop: asyncio.Event,
) -> None:
    since: float | None = None
    measured = 0.0
    tend = time.monotonic() + _TEND_S
    barrier = _Barrier(consumer, city, limits.quiet_ms)
    while not stop.is_set():
        got = await consumer.getmany(timeout_ms=250, max_records=_FETCH_RECORDS)
        for part, records in got.items():
            short = part.topic.rpartition(".")[2]
            for r in records:
                historian.take(
                    Record(short, part.partition, r.offset, r.timestamp, r.value or b"", r.key)
                )
        now = time.monotonic()
        state.progress_ms = wall_clock()
        if since is None and historian.behind:
            since = now
        if historian.held_bytes >= limits.bytes or (
            since is not None and now - since >= limits.ms / 1000
        ):
            await asyncio.to_thread(historian.flush)
            since = None
        if historian.stale:
            until_ms = await barrier.passed(bool(got))
            if until_ms is not None:
                await asyncio.to_thread(historian.flush)
                since = None
                if not await asyncio.to_thread(historian.recompute, until_ms):
                    barrier.again()
        if now >= tend:
            more = await asyncio.to_thread(historian.tend)
            tend = now + (_TEND_SOON_S if more else _TEND_S)
        if now - measured >= 2:
            state.measured(await _lag(consumer))
            measured = now
    await asyncio.to_thread(historian.flush)


class _Barrier:
    """Says up to which time of the backfill log everything that belongs to it has been read.

    A record of the backfill log comes after its readings in the readings log, but a reader of
    both may meet it first: so the ends of both logs are noted, and awaited.
    """

    def __init__(self, consumer: AIOKafkaConsumer, city: City, quiet_ms: int) -> None:
        self._consumer = consumer
        self._quiet_ms = quiet_ms
        self._parts = [
            TopicPartition(full_name(city.id, name), partition)
            for name in ("readings", "stats")
            for partition in range(TOPICS[name].partitions(city.partitions))
        ]
        self._ends: dict[TopicPartition, int] | None = None
        self._noted_ms = 0
        self._idle = 0

    def again(self) -> None:
        """Note the ends anew."""
        self._ends = None

    async def passed(self, busy: bool) -> int | None:
        """The time, once the ends that were noted have been reached; else None."""
        if self._ends is None:
            if wall_clock() - self._noted_ms < 1_000:
                return None
            self._noted_ms = wall_clock()
            self._ends = await self._consumer.end_offsets(self._parts)
            self._idle = 0
        # The last offsets may be transaction marks, which nobody is given: then silence says it.
        self._idle = 0 if busy else self._idle + 1
        for part, end in self._ends.items():
            if self._idle < _IDLE_POLLS and await self._consumer.position(part) < end:
                return None
        return self._noted_ms - self._quiet_ms


async def _lag(consumer: AIOKafkaConsumer) -> dict[str, int]:
    lag: dict[str, int] = {}
    for part in consumer.assignment():
        short = part.topic.rpartition(".")[2]
        ahead = (consumer.highwater(part) or 0) - await consumer.position(part)
        lag[short] = lag.get(short, 0) + max(0, ahead)
    return lag
