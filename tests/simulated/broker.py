"""A broker in memory: what Kafka promises of logs, transactions and groups, and no more."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from aiokafka.errors import CommitFailedError, ProducerFenced

from tests.simulated.loop import Loop

OPEN, COMMITTED, ABORTED = "open", "committed", "aborted"
_OFFSET = attrgetter("offset")


class Place(NamedTuple):
    """A partition of a topic, by its whole name."""

    topic: str
    partition: int


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction and the partitions that it has written to."""

    state: str = OPEN
    logs: "dict[Log, None]" = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """A record of a log, or (value None, marker) what a transaction leaves at its end."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    transaction: Transaction | None = None
    marker: bool = False


class Log:
    """One partition. `start` is its first offset, `end` the next to be written."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.dropped: list[Entry] = []
        self.start = self.end = 0
        self.waiting: list[Any] = []

    def append(self, at_ms: int, key: bytes | None, value: bytes | None,
               headers: Sequence[tuple[str, bytes]] = (), transaction: Transaction | None = None,
               marker: bool = False) -> int:  # fmt: skip
        """Write at the end; who waits for something new is woken."""
        offset = self.end
        self.entries.append(Entry(offset, at_ms, key, value, tuple(headers), transaction, marker))
        self.end += 1
        self.stir()
        return offset

    def stir(self) -> None:
        """Wake whoever waits: there is more to read, or may be."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    @property
    def stable(self) -> int:
        """Readers of committed records see nothing from here on."""
        for entry in self.entries:
            if entry.transaction is not None and entry.transaction.state == OPEN:
                return entry.offset
        return self.end

    def committed(self, start: int, end: int | None = None) -> list[Entry]:
        """Committed records of [start, end)."""
        end = self.stable if end is None else min(end, self.stable)
        first = bisect_left(self.entries, start, key=_OFFSET)
        last = bisect_left(self.entries, end, key=_OFFSET)
        return [e for e in self.entries[first:last] if _is_record(e)]

    def next(self, start: int) -> Entry | None:
        """The first committed record at or after `start`."""
        stable = self.stable
        for entry in self.entries[bisect_left(self.entries, start, key=_OFFSET) :]:
            if entry.offset >= stable:
                return None
            if _is_record(entry):
                return entry
        return None

    def drop_before(self, offset: int) -> None:
        """Retention."""
        self.start = max(self.start, min(offset, self.end))
        cut = bisect_left(self.entries, self.start, key=_OFFSET)
        self.dropped += self.entries[:cut]
        self.entries = self.entries[cut:]

    def ever(self) -> list[Entry]:
        """All committed records that a reader can have seen."""
        return [e for e in self.dropped if _is_record(e)] + self.committed(0)

    def compact(self) -> None:
        """Keep the last committed record of each key; an open transaction ends the cleaning."""
        stable = self.stable
        last = {e.key: e.offset for e in self.entries if e.offset < stable and _is_record(e)}
        self.entries = [
            e
            for e in self.entries
            if e.offset >= stable
            or (_is_record(e) and last[e.key] == e.offset and e.value is not None)
        ]


def _is_record(entry: Entry) -> bool:
    return not entry.marker and (entry.transaction is None or entry.transaction.state == COMMITTED)


class Broker:
    """Logs, transactions and the offsets of one consumer group.

    fence: whether an owner that is none any more is refused; off to show that it is missed.
    """

    def __init__(self, loop: Loop, clock: Callable[[], int], fence: bool = True) -> None:
        self.loop, self.clock, self.fence = loop, clock, fence
        self.logs: dict[Place, Log] = {}
        self.epochs: dict[str, int] = {}
        self.transactions: dict[str, Transaction] = {}
        self.acknowledged: dict[Place, int] = {}
        self.generation: dict[Place, int] = {}
        self.time_outs = 0

    def log(self, place: tuple[str, int]) -> Log:
        """The log of a partition."""
        found = self.logs.get(place)  # type: ignore[call-overload]  # a Place is a pair
        if found is None:
            found = self.logs[Place(*place)] = Log()
        return found

    def open_producer(self, name: str) -> int:
        """Shut out earlier producers of this transactional id; what they had open is aborted."""
        self.epochs[name] = self.epochs.get(name, 0) + 1
        self.finish(name, ABORTED)
        return self.epochs[name]

    def write(self, name: str | None, epoch: int, place: tuple[str, int], key: bytes | None,
              value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> int:  # fmt: skip
        """One record, of a transaction if `name` says of which producer."""
        transaction = None
        if name is not None:
            self.check(name, epoch)
            transaction = self.transactions.setdefault(name, Transaction())
        log = self.log(place)
        if transaction is not None:
            transaction.logs[log] = None
        return log.append(self.clock(), key, value, headers, transaction)

    def commit(self, name: str, epoch: int) -> None:
        """End a transaction well."""
        self.check(name, epoch)
        self.finish(name, COMMITTED)

    def finish(self, name: str, state: str) -> None:
        """End what is open under a transactional id."""
        transaction = self.transactions.pop(name, None)
        if transaction is not None:
            transaction.state = state
            for log in transaction.logs:
                log.append(self.clock(), None, None, transaction=transaction, marker=True)

    def abandon(self, name: str, epoch: int) -> None:
        """The time of a dead producer's transaction is out."""
        if self.epochs.get(name) == epoch:
            self.finish(name, ABORTED)

    def check(self, name: str, epoch: int) -> None:
        """Raises ProducerFenced for an epoch that is over."""
        if self.fence and epoch != self.epochs[name]:
            raise ProducerFenced(f"{name}: epoch {epoch} is over")

    def acknowledge(self, place: Place, generation: int, offset: int) -> None:
        """Commit a group's offset. Raises CommitFailedError for an earlier generation."""
        if generation != self.generation.get(place):
            raise CommitFailedError(f"{place}: generation {generation} is over")
        self.acknowledged[place] = offset
