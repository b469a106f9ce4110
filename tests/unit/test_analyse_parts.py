"""Windows of a shard with more sensors than one message holds."""

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from citybrain.columns import Roster
from citybrain.kinds import SECOND
from citybrain.stage import Out, Record
from citybrain.stats import Stats
from citybrain.streams.analyse import Analyse
from tests.analysing import MONDAY, SENSORS, Log, city, found, link_states, rule, window

RULES = [
    rule("hot", "threshold", kinds=["vehicle_speed"], window_s=10, raise_at=90.0, clear_at=80.0),
    rule("silent", "health", settings={"condition": "silent"}),
]


def split(message: Stats, *cuts: int) -> list[Stats]:
    """The window in parts, each with a dictionary of its own sensors."""
    edges = [0, *cuts, len(SENSORS)]
    parts = []
    for i, (a, b) in enumerate(pairwise(edges)):
        columns = {
            name: getattr(message, name)[a:b]
            for name in ("seen", "late", "sum", "sumsq", "min", "max", "last", "last_ms")
        }
        head = msgspec.structs.replace(message.head, part=i, parts=len(edges) - 1)
        roster, codes = Roster(SENSORS[a:b]), np.arange(b - a, dtype=np.int32)
        parts.append(replace(message, head=head, roster=roster, codes=codes, **columns))
    return parts


def windows() -> list[Stats]:
    speeds = [{name: [50.0] for name in SENSORS}, {"d1": [40.0], "d4": [95.0]}, {"d3": [99.0]}]
    return [
        window("vehicle_speed", MONDAY + i * 10 * SECOND, values)
        for i, values in enumerate(speeds * 3)
    ]


def played(records: list[Record], cut: int = -1) -> list[Out]:
    stage, blocks, outs = Analyse(city(RULES), 0), dict[str, bytes](), list[Out]()
    for i, record in enumerate(records):
        if i == cut:
            blocks |= stage.changed()
            stage = Analyse(city(RULES), 0)
            stage.restore({name: block for name, block in blocks.items() if block})
        outs += stage.apply(record)
    return outs


def test_a_window_in_parts_says_what_the_whole_says() -> None:
    log, whole = Log(), [Log().record(w) for w in windows()]
    parts = [log.record(p) for w in windows() for p in split(w, 1, 3)]
    assert played(parts) == played(whole)
    assert {f.place.sensor for f in found(played(parts))} == {"d3", "d4"}
    assert link_states(played(parts))


@pytest.mark.parametrize("cut", [1, 2, 4, 8])
def test_a_crash_between_two_parts_changes_nothing(cut: int) -> None:
    log = Log()
    parts = [log.record(p) for w in windows() for p in split(w, 2)]
    assert played(parts, cut) == played(parts)


def test_a_part_that_never_comes_holds_nothing_back() -> None:
    log = Log()
    parts = [p for w in windows() for p in split(w, 2)]
    told = played([log.record(p) for i, p in enumerate(parts) if i != 2])
    assert {f.place.sensor for f in found(told)} == {"d3", "d4"}
