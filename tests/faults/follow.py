"""Reads what the engine says, as any consumer would, and knows how far it has come."""

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from citybrain import batch, stats
from citybrain.alerts import Alert
from citybrain.batch import Batch
from citybrain.columns import Roster, Rosters
from citybrain.findings import DeadLetter
from citybrain.kafka import KafkaSettings, consumer_arguments
from citybrain.stats import Passed, Stats
from citybrain.topics import full_name

TOPICS = ("stats", "backfill", "dead-letter", "alerts")

Window = tuple[int, int]
"""(length, start) of a window, in milliseconds."""


@dataclass(slots=True)
class Cells:
    """The last revision of one window by sensor."""

    revision: npt.NDArray[np.int64]
    seen: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]


@dataclass(slots=True)
class Told:
    """All that was told. first: revision 0 of each window by (length, start, shard), as it came
    first. contradictions: records that say of the same revision something else."""

    names: Sequence[str]
    windows: dict[Window, Cells] = field(default_factory=dict)
    first: dict[tuple[int, int, str], Stats] = field(default_factory=dict)
    sums: dict[tuple[int, int, str, int, int], int] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    backfilled: list[Batch] = field(default_factory=list)
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    ahead_ms: int = 0
    repeats: int = 0


class Follower:
    """Follows the output topics in a task of its own."""

    def __init__(self, settings: KafkaSettings, city: str, names: Sequence[str]) -> None:
        self._settings, self._city = settings, city
        self._rosters = Rosters()
        self._place: dict[Roster, npt.NDArray[np.int64]] = {}
        self._number = {name: i for i, name in enumerate(names)}
        self.told = Told(names)

    async def run(self) -> None:
        """Until cancelled."""
        topics = [full_name(self._city, name) for name in TOPICS]
        async with AIOKafkaConsumer(*topics, **consumer_arguments(self._settings)) as consumer:
            while True:
                for records in (await consumer.getmany(timeout_ms=200, max_records=200)).values():
                    for record in records:
                        self._take(record)
                await asyncio.sleep(0)

    def _take(self, record: ConsumerRecord[bytes, bytes]) -> None:
        topic = record.topic.rpartition(".")[2]
        told = self.told
        if topic == "stats":
            self._stats(record)
        elif topic == "backfill":
            item = batch.decode(record.value, self._rosters)
            assert isinstance(item, Batch)
            told.backfilled.append(item)
        elif topic == "dead-letter":
            letter = msgspec.json.decode(record.value, type=DeadLetter)
            told.letters[letter.id] = letter
        elif record.value is not None:
            alert = msgspec.json.decode(record.value, type=Alert)
            had = told.alerts.get(alert.id)
            if had is None or alert.revision >= had.revision:
                told.alerts[alert.id] = alert
            else:
                told.contradictions.append(
                    f"alert {alert.id}: revision {alert.revision} after {had.revision}"
                )

    def _stats(self, record: ConsumerRecord[bytes, bytes]) -> None:
        told = self.told
        entry = stats.decode(record.value, self._rosters)
        if isinstance(entry, Passed):
            told.passed[entry.shard] = max(entry.through_ms, told.passed.get(entry.shard, 0))
            told.ahead_ms = max(told.ahead_ms, entry.through_ms - record.timestamp)
        if not isinstance(entry, Stats):
            return
        head = entry.head
        name = (head.window_ms, head.start_ms, head.shard, head.revision, head.part)
        parts = (entry.codes, entry.seen, entry.sum, entry.min, entry.max, entry.last)
        check = zlib.crc32(b"".join(np.ascontiguousarray(p).tobytes() for p in parts))
        if name in told.sums:
            told.repeats += 1
            if told.sums[name] != check:
                told.contradictions.append(f"{name} was told in two ways")
            return
        told.sums[name] = check
        if head.revision == 0:
            told.first[name[:3]] = entry
        window = (head.window_ms, head.start_ms)
        cells = told.windows.get(window)
        if cells is None:
            n = len(told.names)
            cells = told.windows[window] = Cells(
                np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(n)
            )
        at = self._places(entry)[entry.codes]
        newer = cells.revision[at] < head.revision
        at = at[newer]
        cells.revision[at] = head.revision
        cells.seen[at] = entry.seen[newer]
        cells.total[at] = entry.sum[newer]

    def _places(self, entry: Stats) -> npt.NDArray[np.int64]:
        roster = entry.roster
        if roster not in self._place:
            self._place[roster] = np.array([self._number[name] for name in roster.names])
        return self._place[roster]

    def passed_ms(self, shards: Sequence[str]) -> int:
        """The event time that every shard has passed."""
        return min(self.told.passed.get(shard, 0) for shard in shards)
