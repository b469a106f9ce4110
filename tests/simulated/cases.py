"""Readings logs of a few minutes, with the truth about them computed one reading at a time."""

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from citybrain import batch as readings
from citybrain.batch import Batch, BatchHead, Heartbeat
from citybrain.city import Calendar, City, Sensor
from citybrain.columns import Roster
from citybrain.kinds import HOUR, KINDS, MINUTE, SECOND
from citybrain.rules import Rule

T0 = 1_700_000_000_000 // HOUR * HOUR
FOREVER = 24 * HOUR
POISON = b"choke"
JAM = 200.0
"""A count far above all others, in time and never late."""
SHARDS = ("north", "south")
SENSORS = {
    "north": {"vehicle_count": ("d1", "d2"), "temperature": ("w1",)},
    "south": {"vehicle_count": ("d3",), "temperature": ("w2",)},
}


def small_city(shards: int = 1, rules: Iterable[Rule] = ()) -> City:
    """A city with short windows and a ring of two minutes, so that little shows everything."""
    kinds = {
        "vehicle_count": replace(
            KINDS["vehicle_count"], windows_ms=(10 * SECOND, 20 * SECOND), ring_ms=2 * MINUTE,
            horizons_ms=(),
        ),
        "temperature": replace(
            KINDS["temperature"], cadence_ms=10 * SECOND, windows_ms=(20 * SECOND,),
            rolling_ms=(40 * SECOND,), ring_ms=2 * MINUTE, horizons_ms=(),
        ),
    }  # fmt: skip
    names = SHARDS[:shards]
    sensors = {
        name: Sensor(name, (kind,), shard, shard, f"{kind[0]}-{shard}", 116.4, 39.9)
        for shard in names
        for kind, members in SENSORS[shard].items()
        for name in members
    }
    return City(
        id="sim", zh="仿真", en="Simulated", zone_info=ZoneInfo("Asia/Shanghai"), generated=False,
        kinds=kinds, zones={shard: (shard, shard) for shard in names},
        shards={shard: i for i, shard in enumerate(names)}, partitions=len(names),
        sensors=sensors, links={}, rules={rule.name: rule for rule in rules},
        calendar=Calendar(), version="p1", folder=Path("sim"),
    )  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A record to be produced: partition, when, value, and how many readings it claims."""

    partition: int
    at_ms: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


Window = tuple[str, int, int, str]
"""(kind, length, start, sensor)"""
Statistics = tuple[int, float, float, float, float, float, int]
"""(seen, sum, sum of squares, min, max, last, last_ms)"""


@dataclass
class Truth:
    """What must come out: windows, rows of the backfill, readings by fate and by reason."""

    windows: dict[Window, Statistics] = field(default_factory=dict)
    backfill: set[tuple[str, str, int, float]] = field(default_factory=set)
    fates: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    letters: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


@dataclass(frozen=True)
class Case:
    """A log and its truth. flaky: a batch at which the first attempt fails."""

    city: City
    entries: list[Entry]
    truth: Truth
    flaky: bytes


class _Writer:
    def __init__(self, city: City, rng: random.Random) -> None:
        self.city, self.rng = city, rng
        self.entries: list[Entry] = []
        self.truth = Truth()
        self.rows: dict[Window, list[tuple[int, int, int, float]]] = defaultdict(list)
        self.seq: dict[tuple[str, str], int] = defaultdict(int)
        self.batches: list[tuple[Entry, str, int]] = []

    def batch(self, shard: str, kind: str, rows: list[tuple[str, int, float]], now: int,
              lane: str = "live", hold: bool = False) -> None:  # fmt: skip
        """A batch of good rows; those of the backfill lane or older than the ring go there."""
        gateway = f"{kind[0]}-{shard}"
        seq = self.seq[shard, gateway]
        self.seq[shard, gateway] += 1
        entry = self._entry(shard, gateway, kind, rows, now, seq, lane)
        rank = sorted({s.gateway for s in self.city.sensors.values() if s.shard == shard})
        for sensor, at, value in rows:
            if lane == "backfill" or at < T0:
                self.truth.backfill.add((kind, sensor, at, value))
                self.truth.fates[shard, "backfilled"] += 1
                continue
            self.truth.fates[shard, "counted"] += 1
            row = self.city.kinds[kind]
            order = (rank.index(gateway) << 40) + seq
            for length in row.windows_ms:
                name = (kind, length, at - at % length, sensor)
                self.rows[name].append((at, order, len(self.rows[name]), value))
            step = row.windows_ms[-1]
            for length in row.rolling_ms:
                for end in range(at - at % step + step, at - at % step + length + 1, step):
                    name = (kind, length, end - length, sensor)
                    self.rows[name].append((at, order, len(self.rows[name]), value))
        self.batches.append((entry, shard, len(rows)))
        self.entries.append(entry)

    def _entry(self, shard: str, gateway: str, kind: str, rows: list[tuple[str, int, float]],
               now: int, seq: int, lane: str) -> Entry:  # fmt: skip
        names = tuple(dict.fromkeys(sensor for sensor, _, _ in rows))
        head = BatchHead(
            gateway=gateway, incarnation="a", shard=shard, seq=seq, kind=kind,
            watermark_ms=now - 3 * SECOND, sent_ms=now, lane=lane,
        )  # fmt: skip
        value = readings.encode(
            Batch(
                head,
                Roster(names),
                np.array([names.index(s) for s, _, _ in rows], np.int32),
                np.array([t for _, t, _ in rows], np.int64),
                np.array([v for _, _, v in rows], np.float64),
                np.zeros(len(rows), np.uint8),
            )
        )
        return Entry(self.city.shards[shard], now, value, (("n", str(len(rows)).encode()),))

    def bad_row(self, shard: str, now: int) -> None:
        """A good row and one outside the kind's range."""
        sensor = SENSORS[shard]["vehicle_count"][0]
        gateway = f"v-{shard}"
        seq = self.seq[shard, gateway]
        self.seq[shard, gateway] += 1
        rows = [(sensor, now, -5.0)]
        self.entries.append(self._entry(shard, gateway, "vehicle_count", rows, now, seq, "live"))
        self.letter(shard, "range", 1)

    def raw(self, shard: str, value: bytes, now: int, reason: str, n: int) -> None:
        """Bytes that are no batch."""
        headers = (("n", str(n).encode()),)
        self.entries.append(Entry(self.city.shards[shard], now, value, headers))
        if reason:
            self.letter(shard, reason, n)

    def letter(self, shard: str, reason: str, n: int) -> None:
        """These readings end as dead letters."""
        self.truth.fates[shard, "dead_lettered"] += n
        self.truth.letters[shard, reason] += n

    def again(self, now: int) -> None:
        """Transport brings an earlier batch once more."""
        entry, shard, n = self.rng.choice(self.batches)
        self.entries.append(replace(entry, at_ms=now))
        self.truth.fates[shard, "duplicate"] += n

    def beat(self, shard: str, gateway: str, watermark: int, now: int) -> None:
        """A heartbeat."""
        beat = Heartbeat(
            gateway=gateway, incarnation="a", shard=shard, watermark_ms=watermark, sent_ms=now,
            interval_ms=FOREVER,
        )  # fmt: skip
        value = readings.encode_control(beat)
        self.entries.append(Entry(self.city.shards[shard], now, value))

    def finish(self) -> Case:
        for name, rows in self.rows.items():
            values = np.array([value for *_, value in rows])
            at, _, _, last = max(rows)
            self.truth.windows[name] = (
                len(rows), float(values.sum()), float((values * values).sum()),
                float(values.min()), float(values.max()), last, at,
            )  # fmt: skip
        flaky = self.rng.choice(self.batches)[0].value if self.rng.random() < 0.5 else b""
        return Case(self.city, self.entries, self.truth, flaky)


@lru_cache(maxsize=256)
def case(
    number: int, shards: int = 1, steps: int = 5, poison: bool = False, jams: bool = False
) -> Case:
    """The log of a number: batches, late, old, repeated, swapped, wrong and damaged ones."""
    rng = random.Random(number)
    city = small_city(shards)
    out = _Writer(city, rng)
    for step in range(steps):
        for shard in city.shards:
            now = T0 + step * 10 * SECOND + 4 * SECOND
            count, mild = SENSORS[shard]["vehicle_count"], SENSORS[shard]["temperature"]
            rows = [(s, now - 4_000 + i, float(rng.randint(0, 9))) for i, s in enumerate(count)]
            if jams and rng.random() < 0.3:
                rows[0] = (rows[0][0], rows[0][1], JAM)
            out.batch(shard, "vehicle_count", rows, now)
            out.batch(shard, "temperature", [(mild[0], now - 2_000, rng.randint(-9, 80) / 4)],
                      now + 100)  # fmt: skip
            if step == 0:
                continue
            what = rng.randrange(8)
            sensor = rng.choice(count)
            if what == 0:
                late = now - rng.randint(12, 25) * SECOND
                out.batch(shard, "vehicle_count", [(sensor, max(T0, late), 3.0)], now + 200)
            elif what == 1:
                out.batch(shard, "vehicle_count", [(sensor, T0 - HOUR + step, 5.0)], now + 200)
            elif what == 2:
                out.batch(shard, "temperature", [(mild[0], now - 5 * SECOND + 1, 2.5)], now + 200,
                          lane="backfill")  # fmt: skip
            elif what == 3:
                out.again(now + 300)
            elif what == 4:
                out.bad_row(shard, now + 300)
            elif what == 5:
                out.raw(shard, b"nonsense", now + 300, "format", rng.randint(1, 9))
            elif what == 6 and len(out.entries) > 3:
                # A batch is overtaken by the one behind it, which leaves a gap until it comes.
                out.entries[-1], out.entries[-2] = (
                    replace(out.entries[-2], at_ms=out.entries[-1].at_ms),
                    replace(out.entries[-1], at_ms=out.entries[-2].at_ms),
                )
    if poison:
        out.raw(SHARDS[0], POISON, now + 400, "poison", 2)
    end = T0 + steps * 10 * SECOND
    for shard in city.shards:
        for wait in (0, 1, 2):  # the last ones are there for revisions that wait a second
            for kind in SENSORS[shard]:
                until = end + 50 * SECOND
                out.beat(shard, f"{kind[0]}-{shard}", until, end + wait * 2 * SECOND)
    return out.finish()
