"""The rollup stage: batches of readings in, closed windows out; every reading counted once.

One partition is one shard. See `citybrain/stage.py` for the rules that it keeps.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import msgspec

from citybrain import batch as readings
from citybrain import findings, stats
from citybrain.accounts import Account
from citybrain.batch import Batch, Heartbeat, LeaveOut
from citybrain.city import City
from citybrain.columns import Rosters
from citybrain.errors import InvalidInput
from citybrain.stage import Out, Record
from citybrain.streams import blocks
from citybrain.streams.gateways import Gateways
from citybrain.streams.screen import FUTURE_MS, REASONS, part
from citybrain.streams.series import Series

COALESCE_MS = 1_000
PASSED_MS = 1_000
"""Revisions of late readings wait so long for more, by the broker's clock."""

Fate = Literal["counted", "duplicate", "backfilled", "dead_lettered", "gaps", "late"]


class _State(msgspec.Struct, kw_only=True):
    """The shard's own small state. *_ms: broker's clock, save watermark, idle, passed (event)."""

    version: int = blocks.VERSION
    counts: dict[str, int] = {}
    watermark_ms: int | None = None
    idle_ms: int | None = None
    passed_ms: int | None = None
    pending_ms: int | None = None
    account_ms: int = 0
    account_due: bool = False


class Rollup:
    """The rollup of one shard; a partition without a shard refuses everything it gets."""

    def __init__(self, city: City, partition: int) -> None:
        names = [shard for shard, number in city.shards.items() if number == partition]
        self.shard = names[0] if names else ""
        self.partition = partition
        members = [s for s in city.sensors.values() if s.shard == self.shard]
        rings: dict[str, int] = {}
        for sensor in members:
            ring = min(city.kinds[kind].ring_ms for kind in sensor.kinds)
            rings[sensor.gateway] = min(ring, rings.get(sensor.gateway, ring))
        self._gateways = gateways = Gateways(rings)
        self.series = {
            kind: Series(self.shard, row, roster, city.version, gateways.absent)
            for kind, row in city.kinds.items()
            if (roster := city.roster(self.shard, kind))
        }
        self._rank = {name: i for i, name in enumerate(sorted(rings))}
        kinds = [series.kind for series in self.series.values()]
        self._step_ms = min((kind.pane_ms for kind in kinds), default=COALESCE_MS)
        self._delay_ms = min((kind.delay_ms for kind in kinds), default=0)
        self._rosters = Rosters()
        self._state = _State(counts=dict.fromkeys(get_args(Fate), 0))
        self._out: list[Out] = []
        self._told: dict[str, int] = {"windows": 0, "revisions": 0}

    @property
    def watermark_ms(self) -> int | None:
        """What time everybody has passed; None before anybody spoke."""
        return self._gateways.watermark_ms

    def apply(self, record: Record) -> Sequence[Out]:
        """Take one record of the readings log."""
        self._out = []
        try:
            entry = (
                record.entry
                if isinstance(record.entry, Batch | Heartbeat)
                else readings.decode(record.value, self._rosters)
            )
        except InvalidInput as error:
            self._refuse(record, record.value, error.reason, str(error), _claimed(record))
        else:
            if entry_shard(entry) != self.shard:
                message = f"shard: {entry_shard(entry)!r} is not {self.shard!r} of this partition"
                count = len(entry) if isinstance(entry, Batch) else 0
                self._refuse(record, record.value, "shard", message, count)
            elif isinstance(entry, Batch):
                self._batch(entry, record)
            elif isinstance(entry, Heartbeat):
                latest = min(entry.sent_ms, record.timestamp_ms) + FUTURE_MS
                watermark = min(entry.watermark_ms, latest)
                self._gateways.speak(
                    entry.gateway, watermark, record.timestamp_ms, entry.interval_ms
                )
                if entry.leaving:
                    self._gateways.leave(entry.gateway)
            elif isinstance(entry, LeaveOut):
                self._gateways.leave_out(entry, record.timestamp_ms)
            else:
                self._gateways.idle(entry, record.timestamp_ms)
            self._pass(record)
            self._account(record, at_once=not isinstance(entry, Batch))
        return self._out

    def refuse(self, record: Record, reason: str, message: str) -> Sequence[Out]:
        """Count and dead-letter a record that the shell may not apply."""
        self._out = []
        self._refuse(record, record.value, reason, message, _claimed(record))
        return self._out

    def tick(self, now_ms: int) -> Sequence[Out]:
        """Gateways to leave out, or time to pass by itself, by the clock."""
        asked = self._gateways.proposals(self.shard, now_ms, self._step_ms)
        return [
            Out("readings", readings.encode_control(record), partition=self.partition)
            for record in asked
        ]

    def counts(self) -> Mapping[str, int]:
        """Readings by fate; `gaps` are batches that are missing, `late` is within `counted`."""
        return self._state.counts

    def facts(self) -> dict[str, int | None]:
        """Windows and revisions told since the worker began, and the watermark."""
        return {"watermark_ms": self.watermark_ms, **self._told}

    def changed(self) -> Mapping[str, bytes]:
        """State blocks that changed: shard, gateways, kinds, names, panes."""
        state = self._state
        state.watermark_ms, state.idle_ms = self._gateways.watermark_ms, self._gateways.idle_ms
        out = {"shard": msgspec.json.encode(state), **self._gateways.blocks()}
        for series in self.series.values():
            out |= series.changed()
        return out

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Become the state that `changed` described. Raises InvalidInput `version`, `format`."""
        if "shard" not in saved:
            return
        counts = self._state.counts
        self._state = state = msgspec.json.decode(saved["shard"], type=_State)
        blocks.check("shard", state.version)
        state.counts = counts | state.counts
        self._gateways.watermark_ms, self._gateways.idle_ms = state.watermark_ms, state.idle_ms
        for name, block in saved.items():
            if name.startswith("gateway/"):
                self._gateways.restore(name, block)
        self._gateways.settle()
        for series in self.series.values():
            series.restore(saved)

    def _batch(self, batch: Batch, record: Record) -> None:
        head = batch.head
        series = self.series.get(head.kind)
        if series is None:
            message = f"kind: {head.kind!r} is not one of {sorted(self.series)} in this shard"
            self._refuse(record, record.value, "kind", message, len(batch))
            return
        new, missing = self._gateways.take(head.gateway, head.incarnation, head.seq)
        self._count("gaps", missing)
        if not new:
            self._count("duplicate", len(batch))
            return
        latest = min(head.sent_ms, record.timestamp_ms) + FUTURE_MS
        rows = series.screen(batch, latest)
        for reason, refused in rows.refused.items():
            original = readings.encode(part(batch, refused))
            first = batch.roster.names[batch.codes[refused[0]]]
            message = f"{REASONS[reason]}; first: {first} at {batch.time_ms[refused[0]]}"
            self._refuse(record, original, reason, message, len(refused), head.gateway, first)
        if head.lane == "backfill":
            whole = record.value if rows.rows is None else readings.encode(part(batch, rows.rows))
            self._backfill(whole, len(rows.time_ms))
            return
        added = series.add(rows, self._order(head.gateway, head.seq), head.generated, record)
        self._count("counted", added.counted)
        self._count("late", added.late)
        if len(added.too_old):
            old = rows.original(added.too_old)
            self._backfill(readings.encode(part(batch, old)), len(old))
        self._gateways.speak(head.gateway, min(head.watermark_ms, latest), record.timestamp_ms)

    def _pass(self, record: Record) -> None:
        """Close windows that the watermark has passed; tell revisions that have waited."""
        watermark, state = self._gateways.watermark_ms, self._state
        if watermark is not None:
            for series in self.series.values():
                self._tell(series.advance(watermark, record))
        if any(series.pending for series in self.series.values()):
            if state.pending_ms is None:
                state.pending_ms = record.timestamp_ms
            elif record.timestamp_ms - state.pending_ms >= COALESCE_MS:
                for series in self.series.values():
                    self._tell(series.revisions())
                state.pending_ms = None
        else:
            state.pending_ms = None
        if watermark is None:
            return
        # As far as the kind that waits least has come, to the second: whoever follows the
        # windows waits for no other kind, and not for the next window to close.
        passed = (watermark - self._delay_ms) // PASSED_MS * PASSED_MS
        if state.passed_ms is None or passed > state.passed_ms:
            state.passed_ms = passed
            said = stats.Passed(shard=self.shard, through_ms=passed)
            self._emit("stats", stats.encode_control(said))

    def _tell(self, told: Iterable[stats.Stats]) -> None:
        for one in told:
            self._told["revisions" if one.head.revision else "windows"] += 1
            self._emit("stats", stats.encode(one), one)

    def _account(self, record: Record, at_once: bool) -> None:
        state = self._state
        second = record.timestamp_ms // 1_000
        if state.account_due and (at_once or second > state.account_ms // 1_000):
            account = Account(
                party="rollup",
                shard=self.shard,
                at_ms=record.timestamp_ms,
                counts=state.counts,
                next_offset=record.offset + 1,
            )
            key = f"rollup/{self.shard}".encode()
            self._out.append(Out("accounts", msgspec.json.encode(account), key))
            state.account_ms, state.account_due = record.timestamp_ms, False

    def _count(self, fate: Fate, number: int) -> None:
        if number:
            self._state.counts[fate] += number
            self._state.account_due = True

    def _emit(self, topic: str, value: bytes, entry: object = None) -> None:
        self._out.append(Out(topic, value, self.shard.encode(), self.partition, entry=entry))

    def _backfill(self, value: bytes, count: int) -> None:
        if count:
            self._count("backfilled", count)
            headers = (("n", str(count).encode()),)
            key = self.shard.encode()
            self._out.append(Out("backfill", value, key, self.partition, headers))

    def _refuse(
        self,
        record: Record,
        original: bytes,
        reason: str,
        message: str,
        count: int | None,
        gateway: str = "",
        sensor: str = "",
    ) -> None:
        self._count("dead_lettered", count or 0)
        letter = findings.DeadLetter(
            id=f"rollup/{record.partition}/{record.offset}/{reason}",
            step="rollup",
            reason=reason,
            message=message,
            at_ms=record.timestamp_ms,
            original=original,
            readings=count,
            gateway=gateway,
            sensor=sensor,
            retry_topic="readings",
            retry_partition=record.partition,
        )
        self._out.append(Out("dead-letter", findings.encode(letter), letter.id.encode()))

    def _order(self, gateway: str, seq: int) -> int:
        """(gateway, sequence) as one number; gateways that the pack does not name come last."""
        rank = self._rank.get(gateway)
        if rank is None:
            rank = len(self._rank) + zlib.crc32(gateway.encode()) % 2**21
        return (rank << 40) + min(seq, 2**40 - 1)


def entry_shard(entry: Batch | readings.Control) -> str:
    """The shard that a record of the readings log says it is for."""
    return entry.head.shard if isinstance(entry, Batch) else entry.shard


def _claimed(record: Record) -> int | None:
    """How many readings the producer says are in a record that cannot be read."""
    said = dict(record.headers).get("n", b"")
    return int(said) if said.isdigit() else None
