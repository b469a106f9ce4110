"""Where all sources meet: judge, merge into batches, store, and only then say yes.

One loop takes everything that came within the linger, judges it in one pass, and stores it
with one fsync; then each request hears what became of its readings. While a store is under
way the next requests gather, so a flood makes batches larger and not the queue longer.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain import batch as readings_log
from citybrain import log
from citybrain.batch import Batch, BatchHead, Heartbeat
from citybrain.clock import Clock
from citybrain.edge import fates, journal
from citybrain.edge.fates import FATES
from citybrain.edge.journal import Ledger, Message, Party, Tally
from citybrain.edge.metrics import EdgeMetrics
from citybrain.edge.spool import Dropped, Put, Spool, SpoolFull
from citybrain.edge.validate import Candidates, Validator
from citybrain.errors import InvalidInput
from citybrain.findings import DeadLetter
from citybrain.findings import encode as encode_json

Lane = Literal["live", "backfill"]
Policy = Literal["drop-oldest", "refuse-newest"]

UNKNOWN = "-"
LARGEST_BATCH = 25_000
LARGEST_LETTER = 256 << 10
_TOTALS_ROOM = 64 << 10
_FLUSH_ROWS = 200_000
_EXPLAINED = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one reading of a request was refused (index from 0)."""

    index: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request's readings. refusals: the first hundred, in order."""

    accepted: int
    duplicate: int
    refused: int
    refusals: tuple[Refusal, ...]


@dataclass(slots=True, eq=False)
class _Offer:
    gateway: str
    rows: Candidates
    lane: Lane
    received_ms: int
    done: "asyncio.Future[Outcome]"


@dataclass(slots=True, eq=False)
class _Ready:
    """Messages that need no judging (a recording's, dead letters), and how they count."""

    messages: list[Message]
    changes: dict[Party, Counter[str]]
    done: "asyncio.Future[None]"


@dataclass(slots=True)
class _Flush:
    """One append in the making."""

    messages: list[Message] = field(default_factory=list)
    changes: dict[Party, Counter[str]] = field(default_factory=dict)
    seqs: dict[Party, int] = field(default_factory=dict)
    answers: list[tuple[_Offer, Outcome]] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    judged: tuple[Candidates, npt.NDArray[np.int8], npt.NDArray[np.float64]] | None = None

    def count(self, party: Party, what: str, n: int) -> None:
        if n:
            self.changes.setdefault(party, Counter())[what] += n


class Intake:
    """The one door. max_delay_ms: how late devices usually deliver (see `watermark_ms`)."""

    def __init__(
        self,
        validator: Validator,
        spool: Spool,
        ledger: Ledger,
        clock: Clock,
        metrics: EdgeMetrics,
        policy: Policy = "drop-oldest",
        linger_ms: int = 100,
        max_delay_ms: int = 5_000,
        pending_bytes: int = 32 << 20,
    ) -> None:
        self.validator = validator
        self.layout = validator.layout
        self.spool = spool
        self.ledger = ledger
        self.metrics = metrics
        self.stored = asyncio.Event()
        self.pending_limit = pending_bytes
        self.pending_bytes = 0
        self.stored_ms = 0
        self.broken = False
        self._clock = clock
        self._policy = policy
        self._linger = linger_ms / 1000
        self._max_delay_ms = max_delay_ms
        self._queue: list[_Offer | _Ready] = []
        self._working: list[_Offer | _Ready] = []
        self._rows = 0
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        self._log = log.get("edge.intake")

    async def offer(self, gateway: str, rows: Candidates, lane: Lane) -> Outcome:
        """Judge and store readings of one gateway; returns when they are on the disk.

        Raises SpoolFull if they cannot be stored (then none of them is).
        """
        offer = _Offer(gateway, rows, lane, self._clock(), _future())
        self._enqueue(offer, len(rows))
        return await offer.done

    async def refuse(self, gateway: str, error: InvalidInput, body: bytes) -> None:
        """Store a dead letter for a body that cannot be read at all; it counts as one reading."""
        party = (self.ledger.incarnation, gateway, UNKNOWN)
        letter = self._letter(gateway, error.reason, str(error), body, 1, "")
        changes = {party: Counter(produced=1, invalid=1)}
        ready = _Ready([letter], changes, _future())
        self.metrics.readings.labels("", "invalid").inc()
        self._enqueue(ready, 1)
        await ready.done

    async def put_recorded(self, items: Sequence[tuple[int, Batch | Heartbeat]]) -> None:
        """Store a recording's items (with their numbers in it) as they are."""
        messages, changes = [], dict[Party, Counter[str]]()
        for cursor, item in items:
            message = self._recorded(item, cursor)
            if message.readings:
                changes.setdefault(message.party, Counter())["produced"] += message.readings
                self.metrics.readings.labels(message.kind, "accepted").inc(message.readings)
            messages.append(message)
        ready = _Ready(messages, changes, _future())
        self._enqueue(ready, _FLUSH_ROWS)
        await ready.done

    def reserve(self, size: int) -> None:
        """Take memory for a body before reading it; `release` gives it back.

        Raises SpoolFull if so much more may not wait.
        """
        if self.pending_bytes + size > self.pending_limit:
            self.metrics.refused_requests.labels("memory").inc()
            raise SpoolFull(f"intake: {self.pending_bytes} bytes are waiting to be stored already")
        self.pending_bytes += size

    def release(self, size: int) -> None:
        """Give back what `reserve` took."""
        self.pending_bytes -= size

    def watermark_ms(self) -> int:
        """Nothing that arrives from now on, at most max_delay after its event, lies before."""
        waiting = [o.received_ms for o in (*self._working, *self._queue) if isinstance(o, _Offer)]
        return min([self._clock(), *waiting]) - self._max_delay_ms

    async def run(self) -> None:
        """Take, judge, store, answer; for ever."""
        while True:
            await self._arrived.wait()
            if not self._urgent.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), self._linger)
            self._take()
            try:
                await self._store(self._judge())
            except SpoolFull as error:
                self._log.warning("refused", why=str(error))
                self.metrics.refused_requests.labels("spool").inc(len(self._working))
                for item in self._working:
                    _fail(item.done, error)
            except BaseException as error:
                self.broken = not isinstance(error, asyncio.CancelledError)
                for item in (*self._working, *self._queue):
                    _fail(item.done, error)
                raise
            finally:
                self._working = []

    def _enqueue(self, item: "_Offer | _Ready", rows: int) -> None:
        self._queue.append(item)
        self._rows += rows
        self._arrived.set()
        if self._rows >= 1_000:
            self._urgent.set()

    def _take(self) -> None:
        rows = taken = 0
        for item in self._queue:
            rows += len(item.rows) if isinstance(item, _Offer) else 0
            if taken and rows > _FLUSH_ROWS:
                break
            taken += 1
        self._working, self._queue = self._queue[:taken], self._queue[taken:]
        if not self._queue:
            self._rows = 0
            self._arrived.clear()
            self._urgent.clear()

    def _judge(self) -> _Flush:
        flush = _Flush()
        for item in self._working:
            if isinstance(item, _Ready):
                flush.messages += item.messages
                for party, more in item.changes.items():
                    flush.changes.setdefault(party, Counter()).update(more)
        offers = [item for item in self._working if isinstance(item, _Offer)]
        if offers:
            self._judge_offers(offers, flush)
        return flush

    def _judge_offers(self, offers: list[_Offer], flush: _Flush) -> None:
        now = self._clock()
        rows = _joined(offers)
        lengths = [len(offer.rows) for offer in offers]
        gateway = np.repeat(
            np.array([self.layout.gateways.get(o.gateway, -1) for o in offers], np.int32), lengths
        )
        fate, value = self.validator.judge(rows, gateway, now)
        flush.judged = (rows, fate, value)
        self._count(rows, fate, [o.gateway for o in offers], lengths, flush)
        start = 0
        for offer, length in zip(offers, lengths, strict=True):
            outcome = self._answer(offer, fate[start : start + length], now, flush)
            flush.answers.append((offer, outcome))
            start += length
        backfill = np.repeat(np.array([o.lane == "backfill" for o in offers]), lengths)
        # What is older than its ring can no longer change a live window.
        backfill |= rows.time_ms < now - self.layout.ring_ms[rows.kind]
        oldest = min(offer.received_ms for offer in offers) - self._max_delay_ms
        self._batches(rows, fate, value, backfill, now, oldest, flush)

    def _count(
        self,
        rows: Candidates,
        fate: npt.NDArray[np.int8],
        gateways: list[str],
        lengths: list[int],
        flush: _Flush,
    ) -> None:
        """Count readings by party, kind and fate; those of no known series by gateway alone."""
        known = (rows.sensor >= 0) & (rows.kind >= 0) & (fate != fates.GATEWAY)
        group = np.where(known, self.layout.group[rows.sensor, rows.kind], -1)
        names = sorted(set(gateways))
        sender = np.repeat([names.index(gateway) for gateway in gateways], lengths)
        # One number for (sender, group, fate), counted by bincount: far faster than by rows.
        groups, words = len(self.layout.groups) + 1, len(FATES)
        packed = (sender * groups + group + 1) * words + fate
        counts = np.bincount(packed)
        for number in np.flatnonzero(counts).tolist():
            rest, code = divmod(number, words)
            who, at = divmod(rest, groups)
            at, n = at - 1, int(counts[number])
            series = self.layout.groups[at] if at >= 0 else None
            party = (self.ledger.incarnation, names[who], series.pair[0] if series else UNKNOWN)
            word = FATES[code] if code < fates.FIELD else "invalid"
            flush.count(party, "produced", n)
            if code != fates.ACCEPTED:
                flush.count(party, word, n)
            flush.kinds[series.kind if series else "", FATES[code]] += n

    def _answer(
        self, offer: _Offer, fate: npt.NDArray[np.int8], now: int, flush: _Flush
    ) -> Outcome:
        """What to tell a request; dead letters of what it got refused."""
        if not fate.any():  # all accepted, as nearly always
            return Outcome(len(fate), 0, 0, ())
        refusals: list[Refusal] = []
        for reason in np.unique(fate[fate >= fates.CONFLICT]).tolist():
            index = np.flatnonzero(fate == reason)
            explained = [
                Refusal(i, FATES[reason], self.validator.explain(
                    offer.rows.row(i), reason, offer.gateway, now))
                for i in index[:_EXPLAINED].tolist()
            ]  # fmt: skip
            refusals += explained
            flush.messages += self._letters(offer, index, explained[0])
        refusals.sort(key=lambda refusal: refusal.index)
        counts = np.bincount(fate, minlength=len(FATES))
        accepted, duplicate = int(counts[fates.ACCEPTED]), int(counts[fates.DUPLICATE])
        refused = len(fate) - accepted - duplicate
        return Outcome(accepted, duplicate, refused, tuple(refusals[:_EXPLAINED]))

    def _letters(self, offer: _Offer, index: npt.NDArray[np.intp], first: Refusal) -> list[Message]:
        """Dead letters of one request's readings that were refused for one reason."""
        original = offer.rows.original(index.tolist())
        if len(original) > LARGEST_LETTER and len(index) > 1:
            half = len(index) // 2
            left = self._letters(offer, index[:half], first)
            return left + self._letters(offer, index[half:], first)
        sensor = offer.rows.row(int(index[0])).sensor
        return [
            self._letter(offer.gateway, first.reason, first.message, original, len(index), sensor)
        ]

    def _letter(
        self, gateway: str, reason: str, message: str, original: bytes, readings: int, sensor: str
    ) -> Message:
        if len(original) > LARGEST_LETTER:
            message += f" (the first {LARGEST_LETTER} of {len(original)} bytes are kept)"
        letter = DeadLetter(
            id=uuid.uuid4().hex, step="edge", reason=reason, message=message, at_ms=self._clock(),
            original=original[:LARGEST_LETTER], readings=readings, gateway=gateway, sensor=sensor,
        )  # fmt: skip
        return Message(
            topic="dead-letter", key=letter.id.encode(), partition=0, value=encode_json(letter),
            readings=readings, incarnation=self.ledger.incarnation, gateway=gateway, shard=UNKNOWN,
        )  # fmt: skip

    def _batches(
        self,
        rows: Candidates,
        fate: npt.NDArray[np.int8],
        value: npt.NDArray[np.float64],
        backfill: npt.NDArray[np.bool_],
        now: int,
        watermark: int,
        flush: _Flush,
    ) -> None:
        """Accepted readings as one message a (gateway, shard, kind) and lane."""
        good = np.flatnonzero(fate == fates.ACCEPTED)
        group = self.layout.group[rows.sensor[good], rows.kind[good]]
        position = self.layout.position[rows.sensor[good], rows.kind[good]]
        lane = backfill[good]
        order = np.lexsort((position, rows.time_ms[good], ~lane, group))
        good, group, position, lane = good[order], group[order], position[order], lane[order]
        edges = np.flatnonzero((group[1:] != group[:-1]) | (lane[1:] != lane[:-1])) + 1
        starts = [0, *edges.tolist()] if len(good) else []
        last_live: dict[Party, int] = {}
        parts: list[tuple[Party, slice]] = []
        for start, end in zip(starts, [*starts[1:], len(good)], strict=False):
            shard, gateway = self.layout.groups[group[start]].pair
            party = (self.ledger.incarnation, gateway, shard)
            for at in range(start, end, LARGEST_BATCH):
                if not lane[start]:
                    last_live[party] = len(parts)
                parts.append((party, slice(at, min(end, at + LARGEST_BATCH))))
        for i, (party, part) in enumerate(parts):
            known = self.layout.groups[group[part.start]]
            books = self.ledger.books(party)
            stated = books.watermark_ms
            # Only the last of a gateway's batches may promise that nothing comes before.
            if last_live.get(party) == i:
                stated = max(stated, watermark)
            seq = flush.seqs.get(party, books.next_seq)
            flush.seqs[party] = seq + 1
            head = BatchHead(
                gateway=party[1], incarnation=party[0], shard=party[2], seq=seq, kind=known.kind,
                watermark_ms=stated, sent_ms=now, generated=self.validator.city.generated,
                lane="backfill" if lane[part.start] else "live",
            )  # fmt: skip
            at_rows = good[part]
            item = Batch(
                head, known.roster, position[part], rows.time_ms[at_rows], value[at_rows],
                rows.quality[at_rows],
            )  # fmt: skip
            flush.messages.append(self._message(item, pushed=True))

    def _message(self, item: Batch, pushed: bool, cursor: int = -1) -> Message:
        head = item.head
        return Message(
            topic="readings", key=head.shard.encode(),
            partition=self.validator.city.shards[head.shard], value=readings_log.encode(item),
            readings=len(item), incarnation=head.incarnation, gateway=head.gateway,
            shard=head.shard, kind=head.kind, seq=head.seq, lane=head.lane,
            watermark_ms=head.watermark_ms, newest_ms=int(item.time_ms.max()), pushed=pushed,
            cursor=cursor,
        )  # fmt: skip

    def _recorded(self, item: Batch | Heartbeat, cursor: int) -> Message:
        now = self._clock()
        if isinstance(item, Batch):
            head = msgspec.structs.replace(item.head, sent_ms=now)
            renewed = Batch(head, item.roster, item.codes, item.time_ms, item.value, item.quality)
            return self._message(renewed, False, cursor)
        beat = msgspec.structs.replace(item, sent_ms=now)
        return Message(
            topic="readings", key=beat.shard.encode(),
            partition=self.validator.city.shards[beat.shard],
            value=readings_log.encode_control(beat), readings=0, incarnation=beat.incarnation,
            gateway=beat.gateway, shard=beat.shard, watermark_ms=beat.watermark_ms, pushed=False,
            cursor=cursor,
        )  # fmt: skip

    async def _store(self, flush: _Flush) -> None:
        puts = [journal.put(message) for message in flush.messages]
        dropping = self._make_room(sum(len(put.payload) for put in puts) + _TOTALS_ROOM)
        try:
            await self._append(puts, flush, dropping)
        except SpoolFull:
            # The disk is full before the bound is: what is oldest goes before it is said.
            dropping = dropping or self.spool.oldest_droppable()
            if self._policy != "drop-oldest" or not dropping:
                raise
            self.spool.discard(dropping)
            await self._append(puts, flush, dropping)
        self.ledger.commit(flush.messages, flush.changes, flush.seqs)
        if flush.judged:
            self.validator.remember(*flush.judged)
        for (kind, what), n in flush.kinds.items():
            self.metrics.readings.labels(kind, what).inc(n)
        self.stored_ms = self._clock()
        self.stored.set()
        for offer, outcome in flush.answers:
            if not offer.done.done():
                offer.done.set_result(outcome)
        for item in self._working:
            if isinstance(item, _Ready) and not item.done.done():
                item.done.set_result(None)

    def _make_room(self, size: int) -> list[Dropped]:
        dropping = self.spool.make_room(size)
        if dropping and self._policy == "refuse-newest":
            raise SpoolFull(f"spool: {self.spool.size_bytes} of {self.spool.max_bytes} bytes used")
        return dropping

    async def _append(self, puts: list[Put], flush: _Flush, dropping: list[Dropped]) -> None:
        """Store messages and the books they change; what gives way is told in the same append,
        so that a crash cannot take the gap for damage."""
        changes = {party: Counter(more) for party, more in flush.changes.items()}
        for dropped in dropping:
            for tally, n in dropped.tally.items():
                if isinstance(tally, Tally) and tally.counts:
                    changes.setdefault(tally.party, Counter())["overflowed"] += n
        gaps = self.ledger.gaps_after(self.spool.saved)
        gaps += [(dropped.first, dropped.last) for dropped in dropping]
        head = [journal.put(self.ledger.whole(gaps))] if self.spool.at_segment_start else []
        tail = journal.put(self.ledger.totals(flush.messages, changes, flush.seqs, gaps))
        began = time.perf_counter()
        await asyncio.to_thread(self.spool.append, [*head, *puts, tail], dropping)
        self.metrics.store_seconds.observe(time.perf_counter() - began)
        flush.changes = changes
        self.ledger.gaps = gaps
        for dropped in dropping:
            for tally, n in dropped.tally.items():
                if isinstance(tally, Tally):
                    self.metrics.overflowed.labels(tally.kind).inc(n)
                    if tally.counts:
                        self.ledger.books(tally.party).spooled -= n


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


def _fail(done: "asyncio.Future[Any]", error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # seen, even if the one who asked has gone


def _joined(offers: Sequence[_Offer]) -> Candidates:
    if len(offers) == 1:
        return offers[0].rows
    rows = [offer.rows for offer in offers]
    return replace(
        rows[0],
        sensor=np.concatenate([r.sensor for r in rows]),
        kind=np.concatenate([r.kind for r in rows]),
        time_ms=np.concatenate([r.time_ms for r in rows]),
        value=np.concatenate([r.value for r in rows]),
        quality=np.concatenate([r.quality for r in rows]),
        wrong=np.concatenate([r.wrong for r in rows]),
    )
