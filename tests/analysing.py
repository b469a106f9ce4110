"""A small city in memory and its statistics log, for tests of the analyse stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from citybrain import findings, stats
from citybrain.city import Calendar, City, Link, Sensor
from citybrain.columns import Roster
from citybrain.findings import Finding, LinkState, Progress
from citybrain.kinds import KINDS, SECOND
from citybrain.rules import Rule
from citybrain.stage import Out, Record
from citybrain.stats import Stats, StatsHead

SENSORS = ("d1", "d2", "d3", "d4")
KIND_NAMES = ("vehicle_count", "vehicle_speed", "occupancy", "temperature", "precipitation", "pm25")
MONDAY = 1_767_571_200_000  # 2026-01-05T00:00:00Z


def rule(name: str, detector: str, **more: object) -> Rule:
    facts: dict[str, object] = {
        "name": name, "detector": detector, "cause": name, "severity": 4,
        "advice": name, "zh": name, "en": name,
    }  # fmt: skip
    return Rule(**(facts | more))  # type: ignore[arg-type]  # fields are written out above


def city(rules: Sequence[Rule] = (), zone: str = "Asia/Shanghai", **cadence_s: int) -> City:
    """One zone, one shard `north` on partition 0, four sensors on two links, two gateways."""
    kinds = {name: KINDS[name] for name in KIND_NAMES}
    kinds |= {name: KINDS[name].at_cadence(s * 1000) for name, s in cadence_s.items()}
    line = ((116.4, 39.9), (116.41, 39.9))
    return City(
        id="small",
        zh="小城",
        en="Small",
        zone_info=ZoneInfo(zone),
        generated=False,
        kinds=kinds,
        zones={"north": ("北", "North")},
        shards={"north": 0},
        partitions=2,
        sensors={
            name: Sensor(name, KIND_NAMES, "north", "north", gateway, 116.4, 39.9, link)
            for name, gateway, link in zip(
                SENSORS, ("g1", "g1", "g2", "g2"), ("a", "a", "b", "b"), strict=True
            )
        },
        links={name: Link(name, name, "north", 500.0, 50.0, 2, line) for name in ("a", "b")},
        rules={r.name: r for r in rules},
        calendar=Calendar(),
        version="p1",
        folder=Path("small"),
    )


def window(
    kind: str,
    start_ms: int,
    values: Mapping[str, Sequence[float]],
    window_ms: int = 10 * SECOND,
    expected: int = 1,
    cadence_ms: int = 10 * SECOND,
    **head: object,
) -> Stats:
    """A closed window in which each sensor read these values, evenly spread."""
    rows = [np.array(values.get(name, ()), dtype=np.float64) for name in SENSORS]
    full = [len(row) > 0 for row in rows]
    facts: dict[str, object] = {
        "shard": "north", "kind": kind, "window_ms": window_ms, "step_ms": window_ms,
        "start_ms": start_ms, "revision": 0, "expected": expected, "cause_offset": 7,
        "cause_ms": start_ms + window_ms + 5,
    }  # fmt: skip

    def by(function: object, empty: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([function(r) if len(r) else empty for r in rows], dtype=np.float64)  # type: ignore[operator]  # a numpy reduction

    return Stats(
        head=StatsHead(**(facts | head)),  # type: ignore[arg-type]  # fields are written out above
        roster=Roster(SENSORS),
        codes=np.arange(len(SENSORS), dtype=np.int32),
        seen=np.array([len(r) for r in rows], dtype=np.int32),
        late=np.zeros(len(SENSORS), dtype=np.int32),
        sum=by(np.sum, 0.0),
        sumsq=by(lambda r: np.sum(r * r), 0.0),
        min=by(np.min, np.nan),
        max=by(np.max, np.nan),
        last=by(lambda r: r[-1], np.nan),
        last_ms=np.where(full, start_ms + window_ms - min(cadence_ms, window_ms), -1),
    )


class Log:
    """Makes records of one partition of the stats log, in order."""

    def __init__(self, partition: int = 0) -> None:
        self._offset = -1
        self._partition = partition

    def record(self, entry: Stats | msgspec.Struct | bytes) -> Record:
        self._offset += 1
        if isinstance(entry, Stats):
            value = stats.encode(entry)
        else:
            value = entry if isinstance(entry, bytes) else msgspec.json.encode(entry)
        return Record("stats", self._partition, self._offset, MONDAY + self._offset, value)


def found(outs: Sequence[Out]) -> list[Finding]:
    """The findings among outputs."""
    entries = [findings.decode(out.value) for out in outs if out.topic == "findings"]
    return [entry for entry in entries if isinstance(entry, Finding)]


def progress(outs: Sequence[Out]) -> list[int]:
    """How far the outputs say that the shard has come."""
    entries = [findings.decode(out.value) for out in outs if out.topic == "findings"]
    return [entry.through_ms for entry in entries if isinstance(entry, Progress)]


def link_states(outs: Sequence[Out]) -> list[LinkState]:
    """The link states among outputs."""
    values = [out.value for out in outs if out.topic == "link-states"]
    return [msgspec.json.decode(value, type=LinkState) for value in values]
