"""The analyse stage after a crash anywhere says what it would have said without one."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain.errors import InvalidInput
from citybrain.kinds import MINUTE, SECOND
from citybrain.stage import Out, Record
from citybrain.stats import Rules
from citybrain.streams.analyse import Analyse
from tests.analysing import MONDAY, SENSORS, Log, city, rule, window

RULES = [
    rule("hot", "threshold", kinds=["temperature"], raise_at=30.0, clear_at=28.0, hold_s=120),
    rule("jam", "congestion", raise_at=0.45, clear_at=0.6, below=True, hold_s=30),
    rule("silent", "health", settings={"condition": "silent"}),
    rule("stuck", "health", settings={"condition": "stuck"}),
    rule("mad", "health", settings={"condition": "chattering"}),
    rule("odd", "health", settings={"condition": "impossible"}),
    rule("outage", "health", settings={"condition": "gateway-silent", "share": 0.8}),
    rule("rain", "rain", kinds=["precipitation"], window_s=10800, raise_at=5.0),
]


def story(seed: int, minutes: int) -> list[Record]:
    """A log with jams, heat, rain, dead sensors, a parked one and a changed threshold."""
    chance, log, records = random.Random(seed), Log(), []
    for minute in range(minutes):
        start = MONDAY + minute * MINUTE
        for pane in range(6):
            at = start + pane * 10 * SECOND
            for kind, low, high in (("vehicle_speed", 3, 50), ("occupancy", 0, 100)):
                base = chance.choice([low, high, 20])
                alive = [name for name in SENSORS if chance.random() < 0.8]
                values = {name: [float(base + chance.randrange(3))] for name in alive}
                records.append(log.record(window(kind, at, values)))
        heat = {name: [float(chance.choice([20, 29, 31, 45, 60]))] for name in SENSORS[:3]}
        records.append(log.record(window("temperature", start, heat, window_ms=MINUTE)))
        rain = {name: [chance.choice([0.0, 0.5, 3.0])] for name in SENSORS}
        records.append(log.record(window("precipitation", start, rain, window_ms=MINUTE)))
        if minute == minutes // 3:
            change = {"maintenance.d1": True, "hot.raise_at": 25.0}
            records.append(log.record(Rules(shard="north", pack="p", settings=change, at_ms=0)))
        if minute == minutes // 2:
            records.append(records[-1])
            back: dict[str, float | str | bool] = {"maintenance.d1": False}
            records.append(log.record(Rules(shard="north", pack="p", settings=back, at_ms=0)))
    return records


def played(records: list[Record], cuts: set[int]) -> list[tuple[Out, ...]]:
    """Outputs by record, with the stage made anew from its blocks before each cut."""
    stage, blocks, outs = Analyse(city(RULES), 0), dict[str, bytes](), []
    for i, record in enumerate(records):
        if i in cuts:
            blocks |= stage.changed()
            stage = Analyse(city(RULES), 0)
            stage.restore(blocks)
        outs.append(tuple(stage.apply(record)))
    return outs


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**16), st.sets(st.integers(1, 150), min_size=1, max_size=4))
def test_a_crash_anywhere_changes_nothing(seed: int, cuts: set[int]) -> None:
    records = story(seed, 12)
    assert played(records, cuts) == played(records, set())


def test_the_story_has_findings_of_every_rule() -> None:
    text = b"".join(out.value for outs in played(story(1, 30), set()) for out in outs)
    for name in ("hot", "jam", "silent", "odd", "rain"):
        assert b'"rule":"%s"' % name.encode() in text


def test_a_state_of_an_unknown_version_is_refused_not_guessed() -> None:
    stage = Analyse(city(RULES), 0)
    for record in story(1, 1):
        stage.apply(record)
    blocks = dict(stage.changed())
    blocks["core"] = blocks["core"].replace(b"\xa7version\x01", b"\xa7version\x63")
    with pytest.raises(InvalidInput, match="99 is not 1"):
        Analyse(city(RULES), 0).restore(blocks)


def test_only_what_changed_is_written_again() -> None:
    stage, log = Analyse(city(RULES), 0), Log()
    for record in story(1, 2):
        stage.apply(record)
    stage.changed()
    stage.apply(log.record(window("temperature", MONDAY + 99 * MINUTE, {}, window_ms=MINUTE)))
    changed = set(stage.changed())
    assert "links" not in changed
    assert changed <= {"core", *(f"watch/{r.name}/temperature" for r in RULES)}
    assert set(stage.changed()) == {"core"}
