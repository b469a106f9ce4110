"""Replay: a recording through the engine's own stages, in this process, as fast as it goes.

The stages are those that the worker runs, and the recording is cut by the rule that the edge
agent uses, so the rows are those of a live engine. Nothing here looks at a clock: what the
broker would stamp with its receipt time carries the time that the recording's gateways say
(`sent_ms`), and models are fitted where the live fitter fits them. So the same recording and
pack give the same bytes.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from citybrain import batch, stats
from citybrain.batch import Batch, Heartbeat
from citybrain.city import City
from citybrain.models.refit import Refits
from citybrain.stage import Out, Record, Stage
from citybrain.streams.stages import STAGES

_INPUTS = {row.topic: name for name, row in STAGES.items()}


class Engine:
    """All stages of a city on a log in memory."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._stages: dict[tuple[str, int], Stage] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        self._queue: deque[Record] = deque()
        self._refits = Refits(city)

    def feed(self, entries: Iterable[Batch | Heartbeat]) -> Iterator[Record]:
        """Every record that is written because of the entries, in the order of writing; those
        of the readings log itself are not among them."""
        for entry in entries:
            yield from self.put(self.reading(entry))

    def reading(self, entry: Batch | Heartbeat) -> Record:
        """An entry as the next record of the readings log."""
        shard = entry.head.shard if isinstance(entry, Batch) else entry.shard
        place = ("readings", self._city.shards[shard])
        offset = self._offsets.get(place, 0)
        self._offsets[place] = offset + 1
        return reading(self._city, entry, offset)

    def put(self, record: Record) -> Iterator[Record]:
        """Let the stages work on a record until nothing is left to do."""
        self._queue.append(record)
        while self._queue:
            record = self._queue.popleft()
            if record.topic != "readings":
                yield record
            name = _INPUTS.get(record.topic)
            if name is None:
                continue
            for out in self._stage(name, record.partition).apply(record):
                self._queue.append(self._record(out, record.timestamp_ms))
                if out.topic == "stats":
                    self._fit(out, record.timestamp_ms)

    def write(self, out: Out, at_ms: int) -> None:
        """Put a record into the log from outside; it is worked on with the next one."""
        self._queue.append(self._record(out, at_ms))

    def counts(self, stage: str) -> dict[str, int]:
        """Totals of a stage over all partitions."""
        total: dict[str, int] = {}
        for (name, _), one in self._stages.items():
            if name == stage:
                for what, n in one.counts().items():
                    total[what] = total.get(what, 0) + n
        return total

    def _fit(self, out: Out, at_ms: int) -> None:
        """A model that is due stands in the log right behind the window that made it so."""
        if isinstance(out.entry, stats.Stats):
            for model in self._refits.take(out.entry):
                value = stats.encode_control(model)
                self._queue.append(
                    self._record(Out("stats", value, partition=out.partition), at_ms)
                )

    def _stage(self, name: str, partition: int) -> Stage:
        stage = self._stages.get((name, partition))
        if stage is None:
            stage = self._stages[name, partition] = STAGES[name].make(self._city, partition)
        return stage

    def _record(self, out: Out, at_ms: int) -> Record:
        partition = out.partition or 0
        offset = self._offsets.get((out.topic, partition), 0)
        self._offsets[out.topic, partition] = offset + 1
        return Record(
            out.topic, partition, offset, at_ms, out.value, out.key, out.headers, out.entry
        )  # fmt: skip


def reading(city: City, entry: Batch | Heartbeat, offset: int) -> Record:
    """An entry as a record of the readings log; received when its gateway says it was sent."""
    if isinstance(entry, Batch):
        shard, sent, value = entry.head.shard, entry.head.sent_ms, batch.encode(entry)
    else:
        shard, sent, value = entry.shard, entry.sent_ms, batch.encode_control(entry)
    return Record("readings", city.shards[shard], offset, sent, value, entry=entry)
