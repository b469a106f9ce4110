"""The alerting stage on its log: order, shards that stop, commands, state."""

import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import findings, stats
from citybrain.alerts import Alert
from citybrain.columns import Rosters
from citybrain.errors import InvalidInput
from citybrain.findings import (
    Acknowledge,
    Assign,
    CommandResult,
    DeadLetter,
    LeaveOutShard,
    Progress,
    SetMaintenance,
    SetThreshold,
    Shelve,
)  # fmt: skip
from citybrain.kinds import DAY, HOUR, MINUTE
from citybrain.outbox import Effect
from citybrain.pack import load
from citybrain.stage import Out, Record
from citybrain.streams.alerting import Alerting
from citybrain.streams.frontier import PATIENCE_MS
from tests.alerting import T0, finding, small_city

WALL = T0 + 5_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("city")


class Log:
    """A findings log in memory before a stage."""

    def __init__(self, folder: Path) -> None:
        self.city = small_city(folder)
        self.stage = Alerting(self.city)
        self.outs: list[Out] = []
        self.offset = 0
        self.wall_ms = WALL
        # The first record makes the stage say which rules hold; this one does nothing else.
        self.began = self.write(LeaveOutShard(shard="north", through_ms=1, at_ms=0))
        self.outs.clear()

    def write(self, *entries: msgspec.Struct | bytes) -> list[Out]:
        """Append records; what the stage wrote because of them."""
        got: list[Out] = []
        for entry in entries:
            value = entry if isinstance(entry, bytes) else findings.encode(entry)
            got += self.stage.apply(Record("findings", 0, self.offset, self.wall_ms, value))
            self.offset += 1
        self.outs += got
        return got

    def progress(self, minute: float) -> list[Out]:
        return self.write(*(passed(shard, minute) for shard in ("north", "south")))


def passed(shard: str, minute: float) -> Progress:
    return Progress(shard=shard, through_ms=T0 + round(minute * MINUTE))


def alerts(outs: Iterable[Out]) -> list[Alert]:
    return [
        msgspec.json.decode(o.value, type=Alert) for o in outs if o.topic == "alerts" and o.value
    ]


def answers(outs: Iterable[Out]) -> list[CommandResult]:
    return [
        msgspec.json.decode(o.value, type=CommandResult)
        for o in outs
        if o.topic == "command-results"
    ]


def command(kind: type[Any], **facts: Any) -> Any:
    common = {"id": "c1", "person": "operator-1", "issued_ms": WALL, "expires_ms": WALL + 10_000}
    return kind(**(common | facts))


def test_findings_wait_for_the_slower_shard(folder: Path) -> None:
    log = Log(folder)
    assert log.write(finding("rain", "d1", 1), passed("north", 2)) == []
    assert [a.transition for a in alerts(log.write(passed("south", 1)))] == ["raised"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_order_in_which_shards_run_does_not_matter(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    told: dict[str, list[msgspec.Struct]] = {}
    # South tells its progress seldom, so that the frontier goes forward in leaps.
    for shard, sensors, every in (("north", ("d1", "d2"), 1), ("south", ("d3",), 4)):
        told[shard] = []
        for minute in range(1, 9):
            told[shard] += [
                finding(rule, sensor, minute - 0.5, state, score, 7)
                for sensor in sensors
                for rule, state, score in _story(minute)
            ]
            if minute % every == 0:
                told[shard].append(passed(shard, minute))

    def run(choose: random.Random) -> list[Out]:
        log = Log(folder)
        left = {shard: list(entries) for shard, entries in told.items()}
        while any(left.values()):
            shard = choose.choice([s for s in left if left[s]])
            log.write(left[shard].pop(0))
        return log.outs

    assert run(chance) == run(random.Random(0))


def _story(minute: int) -> list[tuple[str, str, float]]:
    return {
        1: [("rain", "raised", 1.5), ("silent", "raised", 1.0)],
        2: [("rain", "updated", 4.5), ("outage", "raised", 1.0)],
        3: [("rain", "updated", 2.5)],
        5: [("outage", "cleared", 0.0), ("rain", "cleared", 0.0)],
        7: [("silent", "cleared", 0.0)],
    }.get(minute, [])


def test_a_shard_that_stops_is_left_out_by_a_record_and_comes_back(folder: Path) -> None:
    log = Log(folder)
    log.progress(1)
    log.write(finding("rain", "d1", 1.5), passed("north", 2))
    assert log.stage.tick(WALL + PATIENCE_MS - 1) == []
    log.wall_ms = WALL + PATIENCE_MS
    (asked,) = log.stage.tick(log.wall_ms)
    assert (asked.topic, asked.partition) == ("findings", 0)
    record = findings.decode(asked.value)
    assert isinstance(record, LeaveOutShard)
    assert (record.shard, record.through_ms) == ("south", T0 + MINUTE)
    assert [a.transition for a in alerts(log.write(asked.value))] == ["raised"]
    assert log.stage.tick(log.wall_ms + 10 * PATIENCE_MS) == []
    # South makes up for lost time: nobody waits for it, and its findings count as they come.
    late = log.write(finding("outage", "d3", 1.2), passed("south", 1.5))
    assert [a.rule for a in alerts(late)] == ["outage"]
    assert alerts(log.write(finding("outage", "d1", 2.5), passed("north", 3)))
    # It has caught up, so it is waited for again.
    log.write(passed("south", 3))
    assert log.write(finding("jam", "d1", 3.5, score=0.3), passed("north", 4)) == []
    assert alerts(log.write(passed("south", 4)))


def test_a_decision_to_leave_out_a_shard_is_void_if_it_moved_meanwhile(folder: Path) -> None:
    log = Log(folder)
    log.progress(1)
    log.write(finding("rain", "d1", 1.5), passed("north", 2))
    (asked,) = log.stage.tick(WALL + PATIENCE_MS)
    log.write(passed("south", 1.2))
    assert log.write(asked.value) == []
    assert alerts(log.write(passed("south", 2)))


def test_a_worker_whose_clock_is_an_hour_ahead_leaves_no_shard_out(folder: Path) -> None:
    log = Log(folder)
    log.progress(1)
    log.write(finding("rain", "d1", 1.5), passed("north", 2))
    (asked,) = log.stage.tick(log.wall_ms + 60 * PATIENCE_MS)
    assert log.write(asked.value) == []
    assert alerts(log.write(passed("south", 2)))


def test_a_shard_that_was_never_heard_of_does_not_block_for_ever(folder: Path) -> None:
    log = Log(folder)
    assert log.write(finding("rain", "d1", 1), passed("north", 2)) == []
    log.wall_ms += PATIENCE_MS
    assert alerts(log.write(*(out.value for out in log.stage.tick(log.wall_ms))))


def test_repeats_after_a_crash_of_an_analyser_change_nothing(folder: Path) -> None:
    log = Log(folder)
    story = (finding("rain", "d1", 1), finding("silent", "d2", 1.5), passed("north", 2))
    log.write(*story)
    log.write(*story)
    assert len(alerts(log.write(passed("south", 2)))) == 2
    assert log.write(*story) == []
    assert log.stage.facts()["findings"] == 4  # two taken, two looked at again
    assert log.stage.facts()["repeats"] == 2


def raised(log: Log) -> Alert:
    log.write(finding("rain", "d1", 1))
    return alerts(log.progress(2))[0]


def test_commands_are_answered_applied_refused_or_expired(folder: Path) -> None:
    log = Log(folder)
    alert = raised(log)
    acknowledge = command(Acknowledge, alert=alert.id, comment="seen")
    outs = log.write(acknowledge)
    assert [a.acknowledged_by for a in alerts(outs)] == ["operator-1"]
    assert answers(outs) == [
        CommandResult(id="c1", outcome="applied", at_ms=T0 + 2 * MINUTE),
    ]
    assert answers(log.write(acknowledge)) == answers(outs)  # sent twice, done once
    (no,) = answers(log.write(command(Acknowledge, id="c2", alert=alert.id)))
    assert (no.outcome, no.why) == ("refused", f"{alert.id} is acknowledged already, by operator-1")
    log.wall_ms = WALL + 10_001
    (late,) = answers(log.write(command(Assign, id="c3", alert=alert.id, assignee="crew-7")))
    assert late.outcome == "expired"
    (nobody,) = answers(
        log.write(
            command(Assign, id="c4", alert=alert.id, assignee="x", person="", expires_ms=WALL * 2)
        )
    )
    assert nobody.why == "person: is empty; a command says whose it is"


def test_a_shelf_ends_when_event_time_has_passed_it(folder: Path) -> None:
    log = Log(folder)
    alert = raised(log)
    until_ms = T0 + HOUR
    log.write(command(Shelve, alert=alert.id, until_ms=until_ms, reason="known"))
    log.wall_ms += DAY  # the wall clock does not matter
    assert alerts(log.progress(59)) == []
    assert [a.transition for a in alerts(log.progress(60))] == ["unshelved"]


def test_an_alert_leaves_the_table_when_nobody_can_act_on_it_any_more(folder: Path) -> None:
    log = Log(folder)
    alert = raised(log)
    log.write(finding("rain", "d1", 3, "cleared"), command(Acknowledge, alert=alert.id))
    log.progress(3)
    gone = [o for o in log.progress(3 + 24 * 60) if o.topic == "alerts"]
    assert [(o.key, o.value) for o in gone] == [(alert.id.encode(), b"")]
    assert [o for o in log.progress(4 + 24 * 60) if o.topic == "alerts"] == []


def test_a_changed_threshold_goes_to_every_shard_with_a_new_version(folder: Path) -> None:
    log = Log(folder)
    outs = log.write(command(SetThreshold, rule="rain", field="levels.1", value=5.0))
    told = [(o.partition, stats.decode(o.value, Rosters())) for o in outs if o.topic == "stats"]
    assert [(p, r.shard) for p, r in told if isinstance(r, stats.Rules)] == [
        (0, "north"), (1, "south"),
    ]  # fmt: skip
    (current,) = [o for o in outs if o.topic == "packs"]
    assert current.key == b"current"
    for record in (stats.decode(current.value, Rosters()), *(r for _, r in told)):
        assert isinstance(record, stats.Rules)
        assert record.settings == {"rain.levels.1": 5.0}
        assert record.pack.startswith(log.city.version + "+")
    log.write(finding("rain", "d1", 1, score=4.5))
    (alert,) = alerts(log.progress(2))
    assert (alert.severity, alert.pack) == (2, told[0][1].pack)  # type: ignore[union-attr]  # Rules, as asserted above


@pytest.mark.parametrize(
    ("rule", "field", "value", "why"),
    [
        ("nothing", "raise_at", 1.0, "rule: 'nothing' is not one of"),
        ("rain", "severity", 1.0, "rain.severity: not a field of this rule"),
        ("rain", "levels.1", 0.5, "do not grow towards severity 1"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(
    folder: Path, rule: str, field: str, value: float, why: str
) -> None:
    log = Log(folder)
    outs = log.write(command(SetThreshold, rule=rule, field=field, value=value))
    assert [out.topic for out in outs] == ["command-results"]
    assert why in answers(outs)[0].why


def test_a_rule_that_is_turned_off_ends_its_alerts_and_raises_none_until_it_is_on(
    folder: Path,
) -> None:
    log = Log(folder)
    log.write(finding("outage"), finding("silent", "d1", 1))
    outs = log.progress(1)
    assert [(a.rule, bool(a.suppressed_by)) for a in alerts(outs)] == [
        ("outage", False), ("silent", True),
    ]  # fmt: skip
    outs = log.write(command(SetThreshold, rule="outage", field="enabled", value=False))
    assert answers(outs)[0].outcome == "applied"
    assert [(a.rule, a.transition, a.active, a.person) for a in alerts(outs)] == [
        ("outage", "cleared", False, "operator-1"), ("silent", "released", True, ""),
    ]  # fmt: skip
    # What was on its way is no alert any more, and neither is anything after it.
    log.write(finding("outage", "d2", 2), finding("outage", "d1", 2, "updated"))
    assert alerts(log.progress(3)) == []
    log.write(command(SetThreshold, id="c2", rule="outage", field="enabled", value=True))
    log.write(finding("outage", "d1", 4, onset=4))
    first = alerts(log.progress(5))[0]
    assert (first.rule, first.transition) == ("outage", "raised")
    log.write(finding("outage", "d1", 6, "cleared", onset=4))
    ended = [a for a in alerts(log.progress(7)) if a.rule == "outage"]
    assert [(a.transition, a.active) for a in ended] == [("cleared", False)]


def test_the_severity_of_a_rule_without_levels_can_be_changed(folder: Path) -> None:
    log = Log(folder)
    log.write(command(SetThreshold, rule="silent", field="severity", value=1.0))
    log.write(finding("silent"))
    assert [a.severity for a in alerts(log.progress(1))] == [1]


def _rules(outs: list[Out]) -> list[stats.Rules]:
    records = [stats.decode(o.value, Rosters()) for o in outs if o.topic == "stats"]
    return [r for r in records if isinstance(r, stats.Rules)]


def test_the_log_says_which_rules_hold_from_the_start_and_after_the_pack_was_edited(
    folder: Path, tmp_path: Path
) -> None:
    log = Log(folder)
    first = _rules(log.began)
    assert [(r.shard, r.pack) for r in first] == [
        ("north", log.city.version), ("south", log.city.version),
    ]  # fmt: skip
    assert {rule.name: rule for rule in first[0].rules} == log.city.rules
    log.write(command(SetThreshold, rule="rain", field="levels.1", value=5.0))

    saved = dict(log.stage.changed())

    def again(pack: Path) -> list[Out]:
        stage = Alerting(load(str(pack)))
        stage.restore(saved)
        heard = findings.encode(Progress(shard="north", through_ms=T0))
        return [
            out
            for offset in (90, 91)
            for out in stage.apply(Record("findings", 0, offset, WALL, heard))
        ]

    assert _rules(again(log.city.folder)) == []  # the same pack as before: nothing to say
    edited = tmp_path / "edited"
    shutil.copytree(log.city.folder, edited)
    rules = edited / "rules.toml"
    rules.write_text(rules.read_text().replace("severity = 2", "severity = 1", 1))
    told = _rules(again(edited))
    assert [r.shard for r in told] == ["north", "south"]
    assert {r.name: r.severity for r in told[0].rules}["outage"] == 1
    assert told[0].settings == {"rain.levels.1": 5.0}
    assert told[0].pack.startswith(load(str(edited)).version + "+")


def test_a_sensor_is_parked_until_an_event_time(folder: Path) -> None:
    log = Log(folder)
    log.progress(1)
    told = log.write(command(SetMaintenance, sensor="d1", until_ms=T0 + HOUR))
    assert _parked(told) == [True, True]
    assert _parked(log.progress(59)) == []
    assert _parked(log.progress(60)) == [False, False]
    (no,) = answers(log.write(command(SetMaintenance, id="c2", sensor="zz", until_ms=T0 + DAY)))
    assert no.why == "sensor: 'zz' is not in the pack of small"
    (no,) = answers(log.write(command(SetMaintenance, id="c3", sensor="d1", until_ms=0)))
    assert no.why == "d1 is not in maintenance"


def _parked(outs: list[Out]) -> list[object]:
    records = [stats.decode(o.value, Rosters()) for o in outs if o.topic == "stats"]
    return [r.settings["maintenance.d1"] for r in records if isinstance(r, stats.Rules)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\x00", "head"),
        (b'{"type": "finding"}', "head"),
        (b'{"type": "progress", "version": 99, "shard": "north", "through_ms": 1}', "version"),
        (findings.encode(Progress(shard="nowhere", through_ms=1)), "unknown_shard"),
        (findings.encode(finding("nothing")), "unknown_rule"),
    ],
)
def test_what_cannot_be_taken_goes_to_the_dead_letter_whole(
    folder: Path, value: bytes, reason: str
) -> None:
    log = Log(folder)
    (out,) = log.write(value)
    letter = msgspec.json.decode(out.value, type=DeadLetter)
    assert (letter.reason, letter.original, letter.step) == (reason, value, "alerting")
    assert (letter.id, letter.retry_topic, letter.retry_partition) == (
        "findings/0/1",
        "findings",
        0,
    )
    assert alerts(log.progress(1)) == []


def test_a_finding_a_day_late_is_refused_with_a_reason(folder: Path) -> None:
    log = Log(folder)
    log.progress(25 * 60)
    (out,) = log.write(finding("rain", "d1", 1))
    assert msgspec.json.decode(out.value, type=DeadLetter).reason == "late"


def test_what_goes_out_is_what_is_new_or_worse_and_not_hidden(folder: Path) -> None:
    log = Log(folder)
    log.write(finding("outage", "d2", 1), finding("silent", "d1", 1))
    log.progress(1)
    log.write(finding("rain", "d1", 1.5))
    log.progress(2)
    log.write(finding("rain", "d1", 2.5, "updated", score=4.5))
    log.progress(3)
    log.write(finding("rain", "d1", 3.5, "cleared"), finding("outage", "d2", 3.5, "cleared"))
    log.progress(4)
    effects = [msgspec.json.decode(o.value, type=Effect) for o in log.outs if o.topic == "outbox"]
    assert [(e.alert.rule, e.alert.transition, e.alert.severity) for e in effects] == [
        ("outage", "raised", 2),
        ("rain", "raised", 4),
        ("rain", "escalated", 1),
        ("silent", "released", 3),
    ]
    assert len({effect.key for effect in effects}) == 4


def effects(outs: Iterable[Out]) -> list[tuple[str, str]]:
    found = [msgspec.json.decode(o.value, type=Effect).alert for o in outs if o.topic == "outbox"]
    return [(alert.rule, alert.transition) for alert in found]


def test_sensors_of_a_gateway_that_is_noticed_seconds_later_tell_nobody(folder: Path) -> None:
    log = Log(folder)
    log.write(finding("silent", "d1", 1), finding("silent", "d2", 1), finding("silent", "d3", 1))
    log.write(finding("outage", "d2", 1.2))
    assert effects(log.progress(1.4)) == [("outage", "raised")]
    assert effects(log.progress(1.5)) == [("silent", "raised")]  # of the other zone
    assert effects(log.progress(9)) == []


def test_what_is_over_or_acknowledged_before_it_was_told_is_not_told(folder: Path) -> None:
    log = Log(folder)
    log.write(finding("silent", "d1", 1), finding("silent", "d3", 1))
    first, _ = alerts(log.progress(1.1))
    log.write(command(Acknowledge, alert=first.id), finding("silent", "d3", 1.3, "cleared"))
    assert effects(log.progress(5)) == []


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(0, 40), max_size=8))
def test_a_stage_restored_anywhere_goes_on_as_if_nothing_had_happened(
    folder: Path, cuts: set[int]
) -> None:
    def run(cuts: set[int]) -> list[Out]:
        log, blocks = Log(folder), dict[str, bytes]()
        for step, entry in enumerate(_eventful()):
            log.write(entry)
            if step in cuts:
                blocks |= log.stage.changed()
                log.stage = Alerting(log.city)
                log.stage.restore({name: block for name, block in blocks.items() if block})
        return log.outs

    assert run(cuts) == run(set())


def _eventful() -> list[msgspec.Struct]:
    rain = "rain/city/20270115T080030Z"
    entries: list[msgspec.Struct] = []
    for minute in range(1, 9):
        entries += [
            finding(rule, sensor, minute - 0.5, state, score, 7)
            for sensor in ("d1", "d3")
            for rule, state, score in _story(minute)
        ]
        entries += [passed("north", minute), passed("south", minute)]
        if minute == 2:
            entries.append(command(Acknowledge, alert=rain))
            entries.append(command(SetThreshold, id="c2", rule="rain", field="levels.3", value=2.7))
        if minute == 3:
            until_ms = T0 + 6 * MINUTE
            entries.append(command(Shelve, id="c3", alert=rain, until_ms=until_ms, reason="known"))
            entries.append(command(SetMaintenance, id="c4", sensor="d2", until_ms=until_ms))
            entries.append(command(Acknowledge, alert=rain))
    return entries


def test_a_snapshot_of_another_version_is_not_guessed_at(folder: Path) -> None:
    log = Log(folder)
    blocks = dict(log.stage.changed())
    blocks["head"] = blocks["head"].replace(b'"version":1', b'"version":9', 1)
    with pytest.raises(InvalidInput, match="alerting snapshot: 9, not 1"):
        Alerting(log.city).restore(blocks)
    with pytest.raises(InvalidInput, match="head"):
        Alerting(log.city).restore({})


def test_only_what_changed_is_written_again(folder: Path) -> None:
    log = Log(folder)
    log.write(finding("silent", "d1", 1), finding("silent", "d2", 1))
    log.progress(2)
    log.stage.changed()
    assert set(log.stage.changed()) == {"head"}
    log.write(finding("silent", "d2", 2.5, "cleared"))
    log.progress(3)
    assert set(log.stage.changed()) == {"head", "held", "case/silent/d2/20270115T080100Z"}
