"""From judged requests to what is stored: batches, dead letters, counts, answers; pure.

Given the same requests, books and time it says the same. Nothing is changed here: sequence
numbers and counts are proposed, and the books take them when they are on the disk.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain import batch as readings_log
from citybrain.batch import Batch, BatchHead, Heartbeat
from citybrain.edge import fates
from citybrain.edge.fates import FATES
from citybrain.edge.journal import Ledger, Message, Party
from citybrain.edge.validate import Candidates, Validator
from citybrain.findings import DeadLetter
from citybrain.findings import encode as encode_json

Lane = Literal["live", "backfill"]

UNKNOWN = "-"
LARGEST_BATCH = 25_000
LARGEST_LETTER = 256 << 10
EXPLAINED = 100


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


@dataclass(frozen=True, slots=True)
class Request:
    """Readings that one gateway sent together, with the time at which they came."""

    gateway: str
    rows: Candidates
    lane: Lane
    received_ms: int
    body: bytes = b""


@dataclass(slots=True)
class Merged:
    """One append in the making. outcomes: by request; kinds: readings by (kind, fate)."""

    messages: list[Message] = field(default_factory=list)
    changes: dict[Party, Counter[str]] = field(default_factory=dict)
    seqs: dict[Party, int] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    judged: tuple[Candidates, npt.NDArray[np.int8], npt.NDArray[np.float64]] | None = None

    def count(self, party: Party, what: str, n: int) -> None:
        """Let a party's count grow."""
        if n:
            self.changes.setdefault(party, Counter())[what] += n

    def add(self, other: "Merged") -> None:
        """Take in what needs no judging."""
        self.messages += other.messages
        self.kinds.update(other.kinds)
        for party, more in other.changes.items():
            self.changes.setdefault(party, Counter()).update(more)


class Merger:
    """max_delay_ms: how late devices usually deliver. new_id: names of dead letters."""

    def __init__(
        self,
        validator: Validator,
        ledger: Ledger,
        max_delay_ms: int,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._validator = validator
        self._layout = validator.layout
        self._ledger = ledger
        self._max_delay_ms = max_delay_ms
        self._new_id = new_id

    def refused(self, gateway: str, reason: str, why: str, body: bytes, now_ms: int) -> Merged:
        """A body that cannot be read at all: a dead letter, which counts as one reading."""
        party = (self._ledger.incarnation, gateway, UNKNOWN)
        return Merged(
            messages=[self._letter(gateway, reason, why, body, 1, "", now_ms)],
            changes={party: Counter(produced=1, invalid=1)},
            kinds=Counter({("", reason): 1}),
        )

    def recorded(self, items: Sequence[tuple[int, Batch | Heartbeat]], now_ms: int) -> Merged:
        """A recording's items, with their numbers in it, as they are."""
        merged = Merged()
        for cursor, item in items:
            message = self._recorded(item, cursor, now_ms)
            merged.count(message.party, "produced", message.readings)
            merged.kinds[message.kind, "accepted"] += message.readings
            merged.messages.append(message)
        return merged

    def merge(self, requests: Sequence[Request], now: int) -> Merged:
        """Judge requests together and say what is to be stored and answered."""
        flush = Merged()
        if not requests:
            return flush
        rows = _joined(requests)
        lengths = [len(request.rows) for request in requests]
        gateway = np.repeat(
            np.array([self._layout.gateways.get(r.gateway, -1) for r in requests], np.int32),
            lengths,
        )
        fate, value = self._validator.judge(rows, gateway, now)
        flush.judged = (rows, fate, value)
        self._count(rows, fate, [r.gateway for r in requests], lengths, flush)
        start = 0
        for request, length in zip(requests, lengths, strict=True):
            outcome = self._answer(request, fate[start : start + length], now, flush)
            flush.outcomes.append(outcome)
            start += length
        backfill = np.repeat(np.array([r.lane == "backfill" for r in requests]), lengths)
        # What is older than its ring can no longer change a live window.
        backfill |= rows.time_ms < now - self._layout.ring_ms[rows.kind]
        oldest = min(request.received_ms for request in requests) - self._max_delay_ms
        self._batches(rows, fate, value, backfill, now, oldest, flush)
        return flush

    def _count(
        self,
        rows: Candidates,
        fate: npt.NDArray[np.int8],
        gateways: list[str],
        lengths: list[int],
        flush: Merged,
    ) -> None:
        """Count readings by party, kind and fate; those of no known series by gateway alone."""
        known = (rows.sensor >= 0) & (rows.kind >= 0) & (fate != fates.GATEWAY)
        group = np.where(known, self._layout.group[rows.sensor, rows.kind], -1)
        names = sorted(set(gateways))
        sender = np.repeat([names.index(gateway) for gateway in gateways], lengths)
        # One number for (sender, group, fate), counted by bincount: far faster than by rows.
        groups, words = len(self._layout.groups) + 1, len(FATES)
        packed = (sender * groups + group + 1) * words + fate
        counts = np.bincount(packed)
        for number in np.flatnonzero(counts).tolist():
            rest, code = divmod(number, words)
            who, at = divmod(rest, groups)
            at, n = at - 1, int(counts[number])
            series = self._layout.groups[at] if at >= 0 else None
            party = (self._ledger.incarnation, names[who], series.pair[0] if series else UNKNOWN)
            word = FATES[code] if code < fates.FIELD else "invalid"
            flush.count(party, "produced", n)
            if code != fates.ACCEPTED:
                flush.count(party, word, n)
            flush.kinds[series.kind if series else "", FATES[code]] += n

    def _answer(
        self, request: Request, fate: npt.NDArray[np.int8], now: int, flush: Merged
    ) -> Outcome:
        """What to tell a request; dead letters of what it got refused."""
        if not fate.any():  # all accepted, as nearly always
            return Outcome(len(fate), 0, 0, ())
        refusals: list[Refusal] = []
        for reason in np.unique(fate[fate >= fates.CONFLICT]).tolist():
            index = np.flatnonzero(fate == reason)
            explained = [
                Refusal(i, FATES[reason], self._validator.explain(
                    request.rows.row(i), reason, request.gateway, now))
                for i in index[:EXPLAINED].tolist()
            ]  # fmt: skip
            refusals += explained
            flush.messages += self._letters(request, index, explained[0], now)
        refusals.sort(key=lambda refusal: refusal.index)
        counts = np.bincount(fate, minlength=len(FATES))
        accepted, duplicate = int(counts[fates.ACCEPTED]), int(counts[fates.DUPLICATE])
        refused = len(fate) - accepted - duplicate
        return Outcome(accepted, duplicate, refused, tuple(refusals[:EXPLAINED]))

    def _letters(
        self, request: Request, index: npt.NDArray[np.intp], first: Refusal, now: int
    ) -> list[Message]:
        """Dead letters of one request's readings that were refused for one reason."""
        original = request.rows.original(index.tolist())
        if len(original) > LARGEST_LETTER and len(index) > 1:
            half = len(index) // 2
            left = self._letters(request, index[:half], first, now)
            return left + self._letters(request, index[half:], first, now)
        sensor = request.rows.row(int(index[0])).sensor
        return [
            self._letter(
                request.gateway, first.reason, first.message, original, len(index), sensor, now
            )
        ]

    def _letter(
        self,
        gateway: str,
        reason: str,
        message: str,
        original: bytes,
        readings: int,
        sensor: str,
        now: int,
    ) -> Message:
        if len(original) > LARGEST_LETTER:
            message += f" (the first {LARGEST_LETTER} of {len(original)} bytes are kept)"
        letter = DeadLetter(
            id=self._new_id(), step="edge", reason=reason, message=message, at_ms=now,
            original=original[:LARGEST_LETTER], readings=readings, gateway=gateway, sensor=sensor,
        )  # fmt: skip
        return Message(
            topic="dead-letter", key=letter.id.encode(), partition=0, value=encode_json(letter),
            readings=readings, incarnation=self._ledger.incarnation, gateway=gateway, shard=UNKNOWN,
        )  # fmt: skip

    def _batches(
        self,
        rows: Candidates,
        fate: npt.NDArray[np.int8],
        value: npt.NDArray[np.float64],
        backfill: npt.NDArray[np.bool_],
        now: int,
        watermark: int,
        flush: Merged,
    ) -> None:
        """Accepted readings as one message a (gateway, shard, kind) and lane."""
        good = np.flatnonzero(fate == fates.ACCEPTED)
        group = self._layout.group[rows.sensor[good], rows.kind[good]]
        position = self._layout.position[rows.sensor[good], rows.kind[good]]
        lane = backfill[good]
        order = np.lexsort((position, rows.time_ms[good], ~lane, group))
        good, group, position, lane = good[order], group[order], position[order], lane[order]
        edges = np.flatnonzero((group[1:] != group[:-1]) | (lane[1:] != lane[:-1])) + 1
        starts = [0, *edges.tolist()] if len(good) else []
        last_live: dict[Party, int] = {}
        parts: list[tuple[Party, slice]] = []
        for start, end in zip(starts, [*starts[1:], len(good)], strict=False):
            shard, gateway = self._layout.groups[group[start]].pair
            party = (self._ledger.incarnation, gateway, shard)
            for at in range(start, end, LARGEST_BATCH):
                if not lane[start]:
                    last_live[party] = len(parts)
                parts.append((party, slice(at, min(end, at + LARGEST_BATCH))))
        for i, (party, part) in enumerate(parts):
            known = self._layout.groups[group[part.start]]
            books = self._ledger.books(party)
            stated = books.promised_ms(now)
            # Only the last of a gateway's batches may promise that nothing comes before.
            if last_live.get(party) == i:
                stated = max(stated, watermark)
            seq = flush.seqs.get(party, books.next_seq)
            flush.seqs[party] = seq + 1
            head = BatchHead(
                gateway=party[1], incarnation=party[0], shard=party[2], seq=seq, kind=known.kind,
                watermark_ms=stated, sent_ms=now, generated=self._validator.city.generated,
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
            partition=self._validator.city.shards[head.shard], value=readings_log.encode(item),
            readings=len(item), incarnation=head.incarnation, gateway=head.gateway,
            shard=head.shard, kind=head.kind, seq=head.seq, lane=head.lane,
            watermark_ms=head.watermark_ms, newest_ms=int(item.time_ms.max()), pushed=pushed,
            cursor=cursor,
        )  # fmt: skip

    def _recorded(self, item: Batch | Heartbeat, cursor: int, now: int) -> Message:
        if isinstance(item, Batch):
            head = msgspec.structs.replace(item.head, sent_ms=now)
            renewed = Batch(head, item.roster, item.codes, item.time_ms, item.value, item.quality)
            return self._message(renewed, False, cursor)
        beat = msgspec.structs.replace(item, sent_ms=now)
        return Message(
            topic="readings", key=beat.shard.encode(),
            partition=self._validator.city.shards[beat.shard],
            value=readings_log.encode_control(beat), readings=0, incarnation=beat.incarnation,
            gateway=beat.gateway, shard=beat.shard, watermark_ms=beat.watermark_ms, pushed=False,
            cursor=cursor,
        )  # fmt: skip


def _joined(requests: Sequence[Request]) -> Candidates:
    if len(requests) == 1:
        return requests[0].rows
    rows = [request.rows for request in requests]
    return replace(
        rows[0],
        sensor=np.concatenate([r.sensor for r in rows]),
        kind=np.concatenate([r.kind for r in rows]),
        time_ms=np.concatenate([r.time_ms for r in rows]),
        value=np.concatenate([r.value for r in rows]),
        quality=np.concatenate([r.quality for r in rows]),
        wrong=np.concatenate([r.wrong for r in rows]),
    )
