"""What the spool's entries say, version 1, and the books kept on them; pure.

Two kinds of entries: a message for Kafka with its sequence number, and totals. A new segment
begins with all totals, and each append ends with those that it changed, so the last segment
alone tells where every sequence stands: the books are never a file of their own that could
disagree with the spool.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from citybrain.edge.frames import Entry
from citybrain.edge.spool import Put
from citybrain.errors import InvalidInput

VERSION = 1

Party = tuple[str, str, str]
"""(incarnation, gateway, shard). Shard "-" stands for readings of no known shard."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag="message", tag_field="t"):
    """A record for Kafka. readings: how many it holds; seq -1: it is not a batch.

    newest_ms: event time of its youngest reading. pushed: from a device (a recording's are
    not relabelled when they waited long). cursor: its number in a recording.
    """

    version: int = VERSION
    topic: str
    key: bytes
    partition: int
    value: bytes
    readings: int
    incarnation: str
    gateway: str
    shard: str
    kind: str = ""
    seq: int = -1
    lane: Literal["live", "backfill"] = "live"
    watermark_ms: int = 0
    newest_ms: int = 0
    pushed: bool = True
    cursor: int = -1

    @property
    def party(self) -> Party:
        """Whose books it is in."""
        return (self.incarnation, self.gateway, self.shard)


class Tally(NamedTuple):
    """Under what an entry's readings count if it is dropped; `counts`: they are a batch's."""

    party: Party
    kind: str
    counts: bool


class PartyTotals(msgspec.Struct, frozen=True, kw_only=True):
    """One party's books."""

    incarnation: str
    gateway: str
    shard: str
    next_seq: int
    watermark_ms: int
    counts: dict[str, int]


class Totals(msgspec.Struct, frozen=True, kw_only=True, tag="totals", tag_field="t"):
    """The books of some parties (`whole`: of all). gaps: dropped entries that no reader saw.
    cursors: how far each recording has come, by its incarnation."""

    version: int = VERSION
    incarnation: str
    parties: list[PartyTotals]
    whole: bool = False
    gaps: list[tuple[int, int]] = []
    cursors: dict[str, int] = {}


Payload = Message | Totals
_payload = msgspec.msgpack.Decoder(Payload)
_encoder = msgspec.msgpack.Encoder()


def decode(payload: bytes) -> Payload:
    """What an entry says. Raises InvalidInput `head` or `version`."""
    try:
        found: Payload = _payload.decode(payload)
    except msgspec.MsgspecError as error:
        raise InvalidInput("head", f"spool entry: {error}") from error
    if found.version != VERSION:
        raise InvalidInput("version", f"spool entry: version {found.version} is not {VERSION}")
    return found


def put(payload: Payload) -> Put:
    """The entry of a payload, with the tally under which it counts if it is dropped."""
    if isinstance(payload, Totals):
        return Put(_encoder.encode(payload))
    return Put(_encoder.encode(payload), payload.readings, _tally(payload))


def _tally(message: Message) -> Tally:
    if message.topic == "readings":
        return Tally(message.party, message.kind, counts=True)
    return Tally(message.party, message.topic, counts=False)


@dataclass(slots=True)
class Books:
    """One party: produced = duplicate + conflict + invalid + overflowed + spooled + sent."""

    next_seq: int = 0
    watermark_ms: int = 0
    sent_watermark_ms: int = 0
    spooled: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unclaimed: int = 0

    def promised_ms(self, now_ms: int) -> int:
        """The watermark that was stated. One ahead of the clock is void: the clock was wrong
        then, and to keep such a word would let nobody wait for us until that time."""
        return self.watermark_ms if self.watermark_ms <= now_ms else 0

    @property
    def sent(self) -> int:
        """Readings that Kafka has acknowledged."""
        refused = sum(self.counts[c] for c in ("duplicate", "conflict", "invalid", "overflowed"))
        return self.counts["produced"] - refused - self.spooled

    def account(self) -> dict[str, int]:
        """The counts of `citybrain.accounts` for this party."""
        names = ("produced", "duplicate", "conflict", "invalid", "overflowed")
        return {n: self.counts[n] for n in names} | {"spooled": self.spooled, "sent": self.sent}


class Ledger:
    """The books of all parties, as the spool's entries tell them."""

    def __init__(self) -> None:
        self.incarnation = ""
        self.parties: dict[Party, Books] = {}
        self.gaps: list[tuple[int, int]] = []
        self.cursors: dict[str, int] = {}

    def books(self, party: Party) -> Books:
        """A party's books; new ones are empty."""
        return self.parties.setdefault(party, Books())

    def recall(self, entry: Entry, payload: Payload, acknowledged: int) -> Tally | None:
        """Take an entry found at opening, in order; returns its tally."""
        if isinstance(payload, Totals):
            self.incarnation = payload.incarnation
            self.cursors = dict(payload.cursors)
            self.gaps = payload.gaps
            for totals in payload.parties:
                books = self.books((totals.incarnation, totals.gateway, totals.shard))
                books.next_seq = max(books.next_seq, totals.next_seq)
                books.watermark_ms = max(books.watermark_ms, totals.watermark_ms)
                books.counts = Counter(totals.counts)
                books.unclaimed = 0
            return None
        self.incarnation = self.incarnation or payload.incarnation
        books = self.books(payload.party)
        books.next_seq = max(books.next_seq, payload.seq + 1)
        books.watermark_ms = max(books.watermark_ms, payload.watermark_ms)
        self._note_cursor(payload)
        books.unclaimed += payload.readings if payload.topic == "readings" else 0
        if entry.index > acknowledged:
            self.stored(payload)
        else:
            books.sent_watermark_ms = max(books.sent_watermark_ms, payload.watermark_ms)
        return _tally(payload)

    def settle(self) -> None:
        """After opening: messages whose totals were cut off count as produced."""
        for books in self.parties.values():
            books.counts["produced"] += books.unclaimed
            books.unclaimed = 0

    def stored(self, message: Message) -> None:
        """A message is durable in the spool."""
        if message.topic == "readings":
            self.books(message.party).spooled += message.readings

    def sent(self, message: Message) -> None:
        """Kafka has a message."""
        books = self.books(message.party)
        if message.topic == "readings":
            books.spooled -= message.readings
            books.sent_watermark_ms = max(books.sent_watermark_ms, message.watermark_ms)

    def _note_cursor(self, message: Message) -> None:
        if message.cursor >= 0:
            before = self.cursors.get(message.incarnation, -1)
            self.cursors[message.incarnation] = max(before, message.cursor)

    def gaps_after(self, acknowledged: int) -> list[tuple[int, int]]:
        """The gaps that the reader has not passed yet."""
        return [gap for gap in self.gaps if gap[1] > acknowledged]

    def unexplained(self, missing: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The parts of missing entry ranges that no gap explains."""
        found = []
        for first, last in missing:
            for start, end in sorted(self.gaps):
                if start <= first <= end:
                    first = end + 1
            if first <= last:
                found.append((first, last))
        return found

    def totals(
        self,
        messages: Iterable[Message],
        changes: Mapping[Party, Counter[str]],
        seqs: Mapping[Party, int],
        gaps: list[tuple[int, int]],
    ) -> Totals:
        """The books of the parties that changed, as they will be with these messages."""
        touched = sorted({*changes, *seqs})
        cursors = dict(self.cursors)
        for message in messages:
            if message.cursor >= 0:
                cursors[message.incarnation] = message.cursor
        return Totals(
            incarnation=self.incarnation, gaps=gaps, cursors=cursors,
            parties=[self._totals(p, changes.get(p, Counter()), seqs.get(p, 0)) for p in touched],
        )  # fmt: skip

    def whole(self, gaps: list[tuple[int, int]]) -> Totals:
        """The books of everybody."""
        parties = [self._totals(p, Counter(), 0) for p in sorted(self.parties)]
        return Totals(
            incarnation=self.incarnation, parties=parties, whole=True, gaps=gaps,
            cursors=self.cursors,
        )  # fmt: skip

    def _totals(self, party: Party, more: Counter[str], next_seq: int) -> PartyTotals:
        books = self.books(party)
        return PartyTotals(
            incarnation=party[0], gateway=party[1], shard=party[2],
            next_seq=max(books.next_seq, next_seq), watermark_ms=books.watermark_ms,
            counts=dict(books.counts + more),
        )  # fmt: skip

    def commit(
        self,
        messages: Iterable[Message],
        changes: Mapping[Party, Counter[str]],
        seqs: Mapping[Party, int],
    ) -> None:
        """An append succeeded."""
        for message in messages:
            self.stored(message)
            books = self.books(message.party)
            books.watermark_ms = max(books.watermark_ms, message.watermark_ms)
            self._note_cursor(message)
        for party, more in changes.items():
            self.books(party).counts.update(more)
        for party, next_seq in seqs.items():
            self.books(party).next_seq = next_seq
