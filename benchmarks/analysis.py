"""Windows, baseline, anomaly and health of many sensors in one process, without a broker.

The rollup stage's messages go to the analyse stage as bytes, as they do over the log. Readings
are counted by CPU seconds of the process. State is what each part has to keep, as it is saved:
panes compressed, the others as they are in memory.
"""

import gc
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from benchmarks.frame import Row, Size, of
from citybrain import batch as readings
from citybrain import stats
from citybrain.batch import Batch, BatchHead
from citybrain.city import Calendar, City, Sensor
from citybrain.columns import Roster
from citybrain.kinds import HOUR, KINDS, SECOND
from citybrain.models import fitting
from citybrain.models.baseline import empty
from citybrain.models.block import pack
from citybrain.models.fit import FitHead
from citybrain.rules import Rule
from citybrain.stage import Record, Stage
from citybrain.streams.analyse import Analyse
from citybrain.streams.rollup import Rollup

SENSORS, A_MESSAGE = 50_000, 5_000
KIND = "parking_occupied"
_PART = 1_000  # sensors in one part of the model
T0 = 1_700_000_000_000 // HOUR * HOUR
CONDITIONS = ("silent", "stuck", "chattering", "impossible")


def rate(size: Size) -> Iterable[Row]:
    """Readings a second of one core, and bytes a sensor of each part."""
    minutes = 5 if size == "small" else 30
    rules = [_rule("odd", "anomaly")] + [
        _rule(name, "health", settings={"condition": name}) for name in CONDITIONS
    ]
    none: list[Rule] = []
    for name, some in (("windows", none), ("windows + baseline + anomaly + health", rules)):
        city = a_city(some)
        analyse = Analyse(city, 0) if some else None
        if analyse is not None:
            _teach(analyse, city)
        runs, share, held = _run(city, analyse, minutes)
        facts: dict[str, float | int | str] = {
            "sensors": SENSORS, "readings a message": A_MESSAGE, "readings a window": 12,
            "rules": len(some), "share of analyse": round(share, 3),
        }  # fmt: skip
        yield Row(name, "readings/s per core", of(runs), facts, goal=5e6)
    for part, size_of in sorted(held.items()):
        yield Row(f"state of {part}", "bytes a sensor", of([size_of / SENSORS]))
    tables = empty(city.kinds[KIND].analysed_ms, 1)
    arrays = (tables.mean, tables.scale, tables.visits, tables.seen)
    in_use = sum(4 * table.size for table in arrays)
    yield Row("a model's tables in use, beside its record", "bytes a sensor", of([float(in_use)]))


def _run(
    city: City, analyse: Stage | None, minutes: int
) -> tuple[list[float], float, dict[str, int]]:
    """Rates by minute, the analyse stage's share of the time, and bytes by part of the state."""
    rollup = Rollup(city, 0)
    messages = [_messages(city, T0 + step * 5 * SECOND) for step in range(minutes * 12 + 1)]
    offset, spent, rates, held = 0, 0.0, list[float](), dict[str, int]()
    for minute in range(minutes):
        gc.collect()
        begin = time.process_time()
        for values in messages[minute * 12 : (minute + 1) * 12]:
            for value in values:
                outs = rollup.apply(Record("readings", 0, offset, T0, value))
                offset += 1
                since = time.process_time()
                for out in outs:
                    if analyse is not None and out.topic == "stats":
                        analyse.apply(Record("stats", 0, offset, T0, out.value))
                spent += time.process_time() - since
        rates.append(SENSORS * 12 / (time.process_time() - begin))
    for name, stage in (("rollup", rollup), ("analyse", analyse)):
        for block, value in (stage.changed() if stage else {}).items():
            part = f"{name} {block.split('/')[0]}"
            held[part] = held.get(part, 0) + len(value)
    # The first minute fills caches, and no window closes in it.
    total = sum(SENSORS * 12 / one for one in rates)
    return rates[1:], spent / total, held


def _messages(city: City, at: int) -> list[bytes]:
    random = np.random.default_rng(at // 1000)
    names = city.roster("s", KIND)
    found = []
    for gateway in range(SENSORS // A_MESSAGE):
        mine = slice(gateway * A_MESSAGE, (gateway + 1) * A_MESSAGE)
        head = BatchHead(
            gateway=f"g{gateway:03}", incarnation="i", shard="s", seq=(at - T0) // 5_000,
            kind=KIND, watermark_ms=at, sent_ms=at,
        )  # fmt: skip
        value = random.integers(90, 110, A_MESSAGE).astype(np.float64)
        roster = _ROSTERS.setdefault(gateway, Roster(names[mine]))
        codes = np.arange(A_MESSAGE, dtype=np.int32)
        when, good = np.full(A_MESSAGE, at, np.int64), np.zeros(A_MESSAGE, np.uint8)
        found.append(readings.encode(Batch(head, roster, codes, when, value, good)))
    return found


_ROSTERS: dict[int, Roster] = {}


def _teach(analyse: Stage, city: City) -> None:
    """A model whose baseline knows every sensor: level 100, scale 6."""
    names, step = city.roster("s", KIND), city.kinds[KIND].analysed_ms
    parts = []
    for at in range(0, len(names), _PART):
        some = names[at : at + _PART]
        known = empty(step, len(some))
        known.mean[:], known.scale[:], known.visits[:] = 100.0, 6.0, 10.0
        head = FitHead(
            kind=KIND, step_ms=step, names=some, forecaster=fitting.FORECASTER, horizons_ms=(),
            since_ms=0, until_ms=T0, rows=0,
        )  # fmt: skip
        more = {"ceiling": np.full(len(some), 5.0), "width": np.zeros((len(some), 0))}
        parts.append(pack(head, known.arrays() | more))
    for offset, record in enumerate(fitting.effective("s", KIND, parts, T0)):
        analyse.apply(Record("stats", 0, offset, T0, stats.encode_control(record)))


def _rule(name: str, detector: str, **more: Any) -> Rule:
    return Rule(
        name=name, detector=detector, cause=name, severity=4, advice=name, zh=name, en=name, **more
    )


def a_city(rules: list[Rule]) -> City:
    """One shard of one kind, in gateways of `A_MESSAGE` sensors."""
    sensors = {
        f"d{i:06}": Sensor(f"d{i:06}", (KIND,), "z", "s", f"g{i // A_MESSAGE:03}", 0.0, 0.0)
        for i in range(SENSORS)
    }
    # Forecasts are another row; the kind is one whose shortest window is a minute.
    kind = replace(KINDS[KIND].at_cadence(5 * SECOND), horizons_ms=())
    return City(
        id="bench", zh="测", en="Bench", zone_info=ZoneInfo("UTC"), generated=True,
        kinds={KIND: kind}, zones={"z": ("区", "Zone")}, shards={"s": 0}, partitions=1,
        sensors=sensors, links={}, rules={rule.name: rule for rule in rules},
        calendar=Calendar(), version="b", folder=Path("bench"),
    )  # fmt: skip
