"""Where the readings of one sensor are, hop by hop, as the logs' tails tell it.

Each hop says what it last saw of this sensor and how old that is; what a tail of so many
records does not show is said to be unknown, which is not the same as missing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from citybrain import batch, findings, ledger, stats
from citybrain.accounts import Account
from citybrain.alerts import Alert
from citybrain.batch import Batch, Heartbeat
from citybrain.city import City, Sensor
from citybrain.columns import Rosters
from citybrain.contents import latest, records
from citybrain.errors import InvalidInput, UsageError
from citybrain.findings import DeadLetter, Finding, Progress
from citybrain.kafka import KafkaSettings
from citybrain.overview import health_of
from citybrain.process import living
from citybrain.stats import Stats

TAIL = 2_000
"""How many of a partition's last records a hop looks at."""

Saw = Literal["seen", "nothing", "unknown"]


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One hop. at_ms: event time (or, for the log, receipt) of the last thing seen, 0 unknown.

    age_ms: how old that is; -1 unknown. facts: counts and details, by name.
    """

    hop: str
    saw: Saw
    text: str
    at_ms: int = 0
    age_ms: int = -1
    facts: dict[str, int | float | str] = {}


async def trace(
    kafka: KafkaSettings, city: City, data: Path, sensor: str, now_ms: int, tail: int = TAIL
) -> list[Hop]:
    """The hops of a sensor's readings, from the edge to alerts.

    Raises UsageError for a sensor that the pack does not have, BrokerError if the logs cannot
    be read.
    """
    known = city.sensors.get(sensor)
    if known is None:
        raise UsageError(f"sensor: {sensor!r} is not in {city.folder / 'sensors.csv'}")
    partition = city.shards[known.shard]
    look = _Look(kafka, city, known, partition, now_ms, tail)
    accounts = await ledger.read_accounts(kafka, city.id)
    return [
        Hop(hop="pack", saw="seen", text=f"{known.gateway} -> shard {known.shard}",
            facts={"gateway": known.gateway, "shard": known.shard, "zone": known.zone,
                   "partition": partition, "kinds": ", ".join(known.kinds)}),
        await _agents(data),
        _edge(accounts, known, now_ms),
        await look.readings(),
        _rollup(accounts, known.shard, look.end, now_ms),
        await look.stats(),
        await look.findings(),
        await look.alerts(),
        await look.dead_letters(),
    ]  # fmt: skip


class _Look:
    """Reads tails of the logs for one sensor."""

    def __init__(
        self, kafka: KafkaSettings, city: City, sensor: Sensor, partition: int, now_ms: int,
        tail: int,
    ) -> None:  # fmt: skip
        self._kafka, self._city, self._sensor = kafka, city, sensor
        self._partition, self._now, self._tail = partition, now_ms, tail
        self._rosters = Rosters()
        self.end = -1

    async def _records(self, topic: str, partition: int) -> AsyncIterator[Any]:
        # Other partitions are asked for nothing: they begin behind their end.
        others = {p: 2**62 for p in range(self._city.partitions) if p != partition}
        async for record in records(self._kafka, self._city.id, topic, others, self._tail):
            if record.partition == partition:
                yield record

    async def readings(self) -> Hop:
        """The last batch with this sensor, and the last word of its gateway."""
        last: tuple[Any, Batch, int] | None = None
        beat: Heartbeat | None = None
        bad = 0
        async for record in self._records("readings", self._partition):
            self.end = record.offset + 1
            try:
                item = batch.decode(record.value, self._rosters)
            except InvalidInput:
                bad += 1
                continue
            if isinstance(item, Heartbeat) and item.gateway == self._sensor.gateway:
                beat = item
            if isinstance(item, Batch):
                rows = np.flatnonzero(item.codes == _code(item.roster.names, self._sensor.id))
                if len(rows):
                    last = (record, item, int(rows[-1]))
        facts: dict[str, int | float | str] = {"end_offset": self.end}
        if bad:
            facts["unreadable_records"] = bad
        if beat:
            facts |= {"gateway_heartbeat_age_ms": self._now - beat.sent_ms,
                      "watermark_ms": beat.watermark_ms}  # fmt: skip
        if last is None:
            return self._none("readings log", "no batch with this sensor", facts)
        record, item, row = last
        head = item.head
        facts |= {
            "offset": record.offset, "seq": head.seq, "lane": head.lane, "kind": head.kind,
            "value": float(item.value[row]), "event_ms": int(item.time_ms[row]),
        }  # fmt: skip
        unit = self._city.kinds[head.kind].unit if head.kind in self._city.kinds else ""
        text = f"offset {record.offset}: {head.kind} {item.value[row]:g} {unit} ({head.lane})"
        return self._seen("readings log", text, record.timestamp, facts)

    async def stats(self) -> Hop:
        """The last window with this sensor."""
        last: tuple[Stats, int] | None = None
        async for record in self._records("stats", self._partition):
            try:
                item = stats.decode(record.value, self._rosters)
            except InvalidInput:
                continue
            if isinstance(item, Stats) and not item.head.backfill:
                rows = np.flatnonzero(item.codes == _code(item.roster.names, self._sensor.id))
                if len(rows) and (last is None or item.head.start_ms >= last[0].head.start_ms):
                    last = (item, int(rows[-1]))
        if last is None:
            return self._none("statistics", "no window with this sensor", {})
        item, row = last
        head = item.head
        seen = int(item.seen[row])
        facts: dict[str, int | float | str] = {
            "kind": head.kind, "window_ms": head.window_ms, "start_ms": head.start_ms,
            "revision": head.revision, "seen": seen, "expected": head.expected,
            "late": int(item.late[row]),
        }  # fmt: skip
        text = f"{head.kind} window of {head.window_ms // 1000} s: {seen} of {head.expected} seen"
        return self._seen("statistics", text, head.start_ms + head.window_ms, facts)

    async def findings(self) -> Hop:
        """How far the shard is analysed, and the last finding on this sensor."""
        progress, last = 0, None
        async for record in self._records("findings", 0):
            try:
                entry = findings.decode(record.value)
            except InvalidInput:
                continue
            if isinstance(entry, Progress) and entry.shard == self._sensor.shard:
                progress = max(progress, entry.through_ms)
            if isinstance(entry, Finding) and entry.place.sensor == self._sensor.id:
                last = entry
        facts: dict[str, int | float | str] = {}
        if progress:
            facts |= {"analysed_through_ms": progress, "analysed_age_ms": self._now - progress}
        if last is None:
            return self._none("findings", "no finding on this sensor", facts)
        facts |= {"detector": last.detector, "state": last.state, "kind": last.kind}
        return self._seen("findings", f"{last.detector} {last.state}", last.at_ms, facts)

    async def alerts(self) -> Hop:
        """Alerts at this very sensor (those of its zone are not told from here)."""
        found = await latest(self._kafka, self._city.id, "alerts")
        mine = [
            alert
            for alert in (msgspec.json.decode(value, type=Alert) for value in found.values())
            if alert.place.sensor == self._sensor.id
        ]
        active = sorted(a.id for a in mine if a.active)
        if not mine:
            return Hop(hop="alerts", saw="nothing", text="none at this sensor")
        at = max(a.updated_ms for a in mine)
        text = f"{len(active)} active: {', '.join(active)}" if active else "none active"
        return self._seen("alerts", text, at, {"active": len(active), "all": len(mine)})

    async def dead_letters(self) -> Hop:
        """The last input of this sensor that was refused."""
        last, count = None, 0
        async for record in self._records("dead-letter", 0):
            letter = msgspec.json.decode(record.value, type=DeadLetter)
            if letter.sensor == self._sensor.id:
                last, count = letter, count + 1
        if last is None:
            return self._none("dead letters", "none of this sensor", {})
        facts: dict[str, int | float | str] = {"letters": count, "reason": last.reason}
        return self._seen("dead letters", f"{last.reason}: {last.message}", last.at_ms, facts)

    def _seen(self, hop: str, text: str, at_ms: int, facts: dict[str, int | float | str]) -> Hop:
        return Hop(hop=hop, saw="seen", text=text, at_ms=at_ms, age_ms=self._now - at_ms,
                   facts=facts)  # fmt: skip

    def _none(self, hop: str, what: str, facts: dict[str, int | float | str]) -> Hop:
        text = f"{what} in the last {self._tail} records; earlier ones are not looked at"
        return Hop(hop=hop, saw="unknown", text=text, facts=facts)


def _code(names: tuple[str, ...], sensor: str) -> int:
    return names.index(sensor) if sensor in names else -1


async def _agents(data: Path) -> Hop:
    """The edge agents of this machine, as their health says."""
    runs = [run for run in living(data) if run.process.startswith("edge-")]
    if not runs:
        text = f"no edge agent runs on {data} (it may run on another machine)"
        return Hop(hop="edge agent", saw="unknown", text=text)
    said, facts = [], dict[str, int | float | str]()
    for run in runs:
        state = await asyncio.to_thread(health_of, run)
        said.append(f"{run.process}: {state.waiting or 'ok'}")
        facts |= {f"{run.process}_{name}": value for name, value in state.facts.items()}
    return Hop(hop="edge agent", saw="seen", text="; ".join(said), facts=facts)


def _edge(accounts: list[Account], sensor: Sensor, now_ms: int) -> Hop:
    """The gateway's books in this sensor's shard, over all incarnations of its agent."""
    mine = _sum(accounts, lambda a: a.party.startswith(f"edge/{sensor.gateway}/")
                and a.shard == sensor.shard)  # fmt: skip
    if mine is None:
        text = f"gateway {sensor.gateway} has never told its books"
        return Hop(hop="edge books", saw="nothing", text=text)
    counts, at = mine
    text = f"{counts.get('sent', 0)} sent, {counts.get('spooled', 0)} in the spool"
    return Hop(hop="edge books", saw="seen", text=f"gateway {sensor.gateway}: {text}", at_ms=at,
               age_ms=now_ms - at, facts=dict(counts))  # fmt: skip


def _rollup(accounts: list[Account], shard: str, end: int, now_ms: int) -> Hop:
    """How far the rollup stage has come with the shard."""
    mine = _sum(accounts, lambda a: a.party == "rollup" and a.shard == shard)
    if mine is None:
        return Hop(hop="rollup", saw="nothing", text=f"nobody has counted shard {shard} yet")
    counts, at = mine
    facts: dict[str, int | float | str] = dict(counts)
    text = f"shard {shard}: {counts.get('counted', 0)} counted"
    offset = max(a.next_offset for a in accounts if a.party == "rollup" and a.shard == shard)
    if offset >= 0 and end >= 0:
        facts["lag_records"] = max(0, end - offset)
        text += f", {facts['lag_records']} records behind"
    return Hop(hop="rollup", saw="seen", text=text, at_ms=at, age_ms=now_ms - at, facts=facts)


def _sum(
    accounts: list[Account], wanted: Callable[[Account], bool]
) -> tuple[dict[str, int], int] | None:
    mine = [account for account in accounts if wanted(account)]
    if not mine:
        return None
    counts: dict[str, int] = {}
    for account in mine:
        for name, n in account.counts.items():
            counts[name] = counts.get(name, 0) + n
    return counts, max(account.at_ms for account in mine)
