"""The analyse stage: what it says, when, and that nothing about it depends on luck."""

import msgspec
import pytest

from citybrain import findings
from citybrain.changes import Changes
from citybrain.findings import DeadLetter
from citybrain.kinds import HOUR, MINUTE, SECOND
from citybrain.stage import Out
from citybrain.stats import Passed, Rules
from citybrain.streams.analyse import Analyse
from tests.analysing import MONDAY, Log, city, found, link_states, progress, rule, window

PANE = 10 * SECOND
HOT = rule("hot", "threshold", kinds=["temperature"], raise_at=30.0, clear_at=28.0)
JAM = rule(
    "jam", "congestion", kinds=["vehicle_speed"], raise_at=0.45, clear_at=0.6, below=True,
    levels={"4": 0.45, "3": 0.3, "2": 0.15},
)  # fmt: skip
SILENT = rule("silent", "health", settings={"condition": "silent"})


def temperature(minute: int, **values: float) -> object:
    return window(
        "temperature",
        MONDAY + minute * MINUTE,
        {name: [value] for name, value in values.items()},
        window_ms=MINUTE,
        cadence_ms=MINUTE,
    )


def run(stage: Analyse, log: Log, *entries: object) -> list[Out]:
    return [out for entry in entries for out in stage.apply(log.record(entry))]  # type: ignore[arg-type]  # entries of the log


def test_a_threshold_raises_updates_and_clears_with_the_same_id() -> None:
    stage, log = Analyse(city([HOT]), 0), Log()
    outs = run(stage, log, *(temperature(m, d1=t, d2=20.0) for m, t in enumerate([29, 31, 39, 27])))
    told = found(outs)
    assert [f.state for f in told] == ["raised", "updated", "cleared"]
    assert {f.id for f in told} == {f"hot/temperature/d1/{MONDAY + MINUTE}"}
    first = told[0]
    assert (first.rule, first.detector, first.place.sensor) == ("hot", "threshold", "d1")
    assert (first.observed, first.threshold, first.unit) == (31.0, 30.0, "Cel")
    assert first.at_ms == MONDAY + 2 * MINUTE
    assert first.onset_ms == first.evidence[-1].start_ms == MONDAY + MINUTE
    assert first.evidence[-1].value == 31.0
    assert first.cause_ms == MONDAY + 2 * MINUTE + 5
    assert told[-1].params["reason"] == "calm"


def test_progress_never_promises_more_than_is_written() -> None:
    """A finding after a promise is dated behind it, whatever its window was."""
    stage, log = Analyse(city([HOT]), 0), Log()
    outs = run(
        stage, log,
        window("vehicle_count", MONDAY + 5 * MINUTE, {"d1": [1.0]}),
        Passed(shard="north", through_ms=MONDAY + 5 * MINUTE + PANE),
        temperature(0, d1=31.0),
        Passed(shard="north", through_ms=MONDAY + 5 * MINUTE + PANE),
    )  # fmt: skip
    entries = [findings.decode(out.value) for out in outs if out.topic == "findings"]
    promised = -1
    for entry in entries:
        if isinstance(entry, findings.Progress):
            assert entry.through_ms > promised
            promised = entry.through_ms
        elif isinstance(entry, findings.Finding):
            assert entry.at_ms > promised
    assert promised == MONDAY + 5 * MINUTE + PANE + 1


def test_a_shard_without_windows_still_makes_progress() -> None:
    stage, log = Analyse(city(), 0), Log()
    outs = run(stage, log, Passed(shard="north", through_ms=MONDAY + HOUR))
    assert progress(outs) == [MONDAY + HOUR]


def test_a_window_counts_once_and_revisions_and_backfill_not_at_all() -> None:
    stage, log = Analyse(city([HOT]), 0), Log()
    hot = temperature(3, d1=31.0)
    run(stage, log, hot)
    late = {"revision": 1}, {"backfill": True}
    for head in late:
        again = window("temperature", MONDAY + 9 * MINUTE, {"d1": [1.0]}, MINUTE, **head)  # type: ignore[arg-type]  # head fields
        assert run(stage, log, again) == []
    assert run(stage, log, hot) == []
    assert run(stage, log, temperature(2, d1=20.0)) == []
    assert stage.counts() == {"windows": 1, "findings": 1, "revisions": 2, "repeats": 2}


def test_a_silent_sensor_is_found_and_comes_back() -> None:
    stage, log = Analyse(city([SILENT]), 0), Log()
    everybody = {name: [3.0] for name in ("d1", "d2", "d3", "d4")}
    without = {name: [3.0] for name in ("d1", "d2", "d3")}
    outs = run(stage, log, window("vehicle_count", MONDAY, everybody))
    panes = (window("vehicle_count", MONDAY + i * PANE, without) for i in range(1, 8))
    outs += run(stage, log, *panes)
    outs += run(stage, log, window("vehicle_count", MONDAY + 8 * PANE, everybody))
    told = found(outs)
    assert {f.place.sensor for f in told} == {"d4"}
    assert [f.state for f in told if f.state != "updated"] == ["raised", "cleared"]
    assert told[0].params == {"condition": "silent"}
    # Spoke last at second 0, silent_ms is 40 s: the window that ends at 40 s decides.
    assert told[0].at_ms == MONDAY + 40 * SECOND


def test_an_outage_of_everything_is_one_finding_and_not_one_a_sensor() -> None:
    """As after a restart of the whole system: what could not be heard is not silent."""
    outage = rule("outage", "health", settings={"condition": "gateway-silent"})
    stage, log = Analyse(city([SILENT, outage]), 0), Log()
    everybody = {name: [3.0] for name in ("d1", "d2", "d3", "d4")}
    outs = run(stage, log, window("vehicle_count", MONDAY, everybody))
    outs += run(stage, log, *(window("vehicle_count", MONDAY + i * PANE, {}) for i in range(1, 9)))
    outs += run(stage, log, window("vehicle_count", MONDAY + 9 * PANE, everybody))
    assert {f.rule for f in found(outs)} == {"outage"}
    # Who stays away when the others are back is silent, for as long as that could be known.
    without = {name: [3.0] for name in ("d1", "d2", "d3")}
    panes = (window("vehicle_count", MONDAY + i * PANE, without) for i in range(10, 20))
    assert {f.place.sensor for f in found(run(stage, log, *panes)) if f.rule == "silent"} == {"d4"}


def test_a_planned_stop_is_no_finding_at_all() -> None:
    outage = rule("outage", "health", settings={"condition": "gateway-silent"})
    stage, log = Analyse(city([SILENT, outage]), 0), Log()
    everybody = {name: [3.0] for name in ("d1", "d2", "d3", "d4")}
    both = {"absent": ("g1", "g2")}
    outs = run(stage, log, window("vehicle_count", MONDAY, everybody))
    panes = (window("vehicle_count", MONDAY + i * PANE, {}, **both) for i in range(1, 9))  # type: ignore[arg-type]  # head fields
    outs += run(stage, log, *panes)
    outs += run(stage, log, window("vehicle_count", MONDAY + 9 * PANE, everybody))
    assert found(outs) == []


def test_a_sensor_in_maintenance_is_neither_silent_nor_hot() -> None:
    stage, log = Analyse(city([HOT, SILENT]), 0), Log()
    parked = Rules(shard="north", pack="p1", settings={"maintenance.d1": True}, at_ms=0)
    back = Rules(shard="north", pack="p1", settings={"maintenance.d1": False}, at_ms=0)
    outs = run(stage, log, temperature(0, d1=31.0), parked, temperature(1, d1=31.0))
    assert [f.params.get("reason") for f in found(outs)] == [None, "maintenance"]
    others = {"d2": 20.0, "d3": 20.0, "d4": 20.0}
    outs = run(stage, log, *(temperature(m, **others) for m in range(2, 10)))
    assert found(outs) == []
    outs = run(stage, log, back, temperature(10, d1=31.0, **others))
    assert [(f.state, f.rule) for f in found(outs)] == [("raised", "hot")]


def test_a_changed_threshold_takes_effect_where_it_stands_in_the_log() -> None:
    stage, log = Analyse(city([HOT]), 0), Log()
    change = Rules(shard="north", pack="p1", settings={"hot.raise_at": 35.0}, at_ms=0)
    outs = run(stage, log, change, temperature(0, d1=31.0), temperature(1, d1=36.0))
    assert [(f.state, f.threshold) for f in found(outs)] == [("raised", 35.0)]


def test_a_finding_says_which_rules_judged_it() -> None:
    here = city([HOT])
    stage, log = Analyse(here, 0), Log()
    change = Rules(shard="north", pack="p1", settings={"hot.raise_at": 30.5}, at_ms=0)
    outs = run(stage, log, temperature(0, d1=31.0), change, temperature(1, d2=31.0))
    versions = {f.place.sensor: f.pack for f in found(outs)}
    assert versions["d1"] == here.version
    assert versions["d2"] == Changes(settings={"hot.raise_at": 30.5}).version(here.version)
    assert versions["d2"] != versions["d1"]


def test_a_rule_that_is_turned_off_is_forgotten_and_begins_anew_also_after_a_crash() -> None:
    here = city([HOT])
    stage, log = Analyse(here, 0), Log()
    off, on = (
        Rules(shard="north", pack="p1", settings={"hot.enabled": value}, at_ms=0)
        for value in (False, True)
    )
    assert len(found(run(stage, log, temperature(0, d1=31.0)))) == 1
    blocks = dict(stage.changed())
    assert found(run(stage, log, off, temperature(1, d1=32.0))) == []
    blocks |= stage.changed()
    other = Analyse(here, 0)
    other.restore({name: block for name, block in blocks.items() if block})
    again = [found(run(one, log, on, temperature(2, d1=33.0))) for one in (stage, other)]
    assert [[(f.state, f.onset_ms) for f in each] for each in again] == [
        [("raised", again[0][0].onset_ms)]
    ] * 2
    assert dict(stage.changed()) == dict(other.changed())


def test_links_are_said_on_change_and_again_before_they_expire() -> None:
    stage, log = Analyse(city([JAM]), 0), Log()

    def speeds(i: int, kmh: float) -> object:
        return window("vehicle_speed", MONDAY + i * PANE, {"d1": [kmh], "d2": [kmh]})

    outs = run(stage, log, *(speeds(i, 45.0) for i in range(7)))
    states = link_states(outs)
    assert [(s.link, s.state, s.at_ms - MONDAY) for s in states] == [
        ("a", "smooth", PANE), ("a", "smooth", 70 * SECOND),
    ]  # fmt: skip
    assert all(s.expires_ms == s.at_ms + 2 * MINUTE for s in states)
    outs = run(stage, log, *(speeds(i, 5.0) for i in range(7, 40)))
    assert link_states(outs)[-1].state == "heavy-jam"
    first = found(outs)[0]
    assert (first.state, first.place.link, first.place.sensor) == ("raised", "a", "")
    # Nobody speaks any more: it is said that nothing is known, and the jam does not stay.
    quiet = (window("vehicle_speed", MONDAY + i * PANE, {}) for i in range(40, 90))
    outs = run(stage, log, *quiet)
    assert [s.state for s in link_states(outs)][-1] == "unknown"
    assert [(f.state, f.params["reason"]) for f in found(outs)] == [("cleared", "no-data")]


@pytest.mark.parametrize(
    ("bytes_", "reason"),
    [
        (b"\xff\xff\xff\xffcut", "format"),
        (b'{"type": "weather"}', "head"),
        (msgspec.json.encode(Passed(shard="elsewhere", through_ms=1)), "shard"),
    ],
)
def test_what_cannot_be_read_goes_to_the_dead_letter_with_its_bytes(
    bytes_: bytes, reason: str
) -> None:
    stage, log = Analyse(city(), 0), Log()
    (out,) = stage.apply(log.record(bytes_))
    letter = msgspec.json.decode(out.value, type=DeadLetter)
    assert (out.topic, letter.reason, letter.original) == ("dead-letter", reason, bytes_)
    assert stage.counts() == {"dead_lettered": 1}
