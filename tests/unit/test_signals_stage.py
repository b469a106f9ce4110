"""The signals stage: what it plans, from a log alone, and that a crash changes none of it."""

import dataclasses
from itertools import pairwise

import msgspec
import pytest

from citybrain import pack, signal_log
from citybrain.alerts import Alert
from citybrain.city import City
from citybrain.findings import DeadLetter, Place
from citybrain.models.signals.timing import changeover_ms
from citybrain.signal_log import GATEWAY, Detections, Notice, Report, Shown, Tick
from citybrain.signals import Plan
from citybrain.stage import Out, Record
from citybrain.streams.signals import AGAIN_MS, PLAN_MS, Signals

START_MS = 1_790_000_000_000


@pytest.fixture(scope="module")
def city() -> City:
    return pack.load("adlershof")


def report(city: City, at_ms: int, second: int) -> Report:
    """Everybody shows their first stage; cars stand where the others would open."""
    shown, names, present = [], [], []
    for junction in city.signals.values():
        stage = junction.stages[0]
        lamps = "".join("g" if g.id in stage.green else "r" for g in junction.table.groups)
        shown.append(
            Shown(
                junction=junction.id, at_ms=at_ms, source="local", stage=stage.name,
                stage_ms=second * 1_000, lamps=lamps, ready_ms=[
                    changeover_ms(junction.table, frozenset(stage.green), frozenset(other.green))
                    for other in junction.stages
                ],
            )
        )  # fmt: skip
        closed = {m.detectors[0] for m in junction.movements
                  if m.detectors and m.group not in stage.green}  # fmt: skip
        for area in junction.areas:
            names.append(area.id)
            present.append(6 if area.id in closed else 0)
    detections = []
    if second % 5 == 0:
        zeros = [0] * len(names)
        detections = [
            Detections(at_ms=at_ms - 5_000, expires_ms=at_ms + 15_000, detectors=names,
                       passed=zeros, present=present, waiting=present)
        ]  # fmt: skip
    return Report(gateway=GATEWAY, at_ms=at_ms, shown=shown, detections=detections)


def alert(city: City, **facts: object) -> Alert:
    told: dict[str, object] = {
        "id": "a", "revision": 0, "transition": "raised", "rule": "speed-anomaly",
        "cause": "incident", "severity": 2, "active": True, "acknowledged": False,
        "opened_ms": START_MS, "updated_ms": START_MS, "place": Place(zone=""),
    }  # fmt: skip
    return Alert(**(told | facts))  # type: ignore[arg-type]  # facts of many types


def log(city: City, seconds: int) -> list[bytes]:
    entries: list[bytes] = []
    for second in range(seconds):
        at_ms = START_MS + second * 1_000
        entries.append(signal_log.encode(report(city, at_ms, second)))
        entries.append(signal_log.encode(Tick(at_ms=at_ms + 100)))
    return entries


def written_ms(value: bytes) -> int:
    """When the broker got it: at once, by its own clock."""
    try:
        return int(msgspec.json.decode(value)["at_ms"])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return START_MS


def run(stage: Signals, entries: list[bytes], first: int = 0) -> list[Out]:
    outs: list[Out] = []
    for offset, value in enumerate(entries, first):
        outs += stage.apply(Record("detector-states", 0, offset, written_ms(value), value))
    return outs


def plans(outs: list[Out]) -> list[Plan]:
    return [msgspec.json.decode(o.value, type=Plan) for o in outs if o.topic == "signal-plans"]


def test_cars_that_wait_at_red_get_a_plan_to_open_it_and_it_is_told_again(city: City) -> None:
    told = plans(run(Signals(city), log(city, 30)))
    by_junction: dict[str, list[Plan]] = {}
    for plan in told:
        by_junction.setdefault(plan.junction, []).append(plan)
    assert by_junction.keys() == city.signals.keys()
    for name, found in by_junction.items():
        first = city.signals[name].stages[0]
        waits = {m.group for m in city.signals[name].movements if m.detectors} - set(first.green)
        moved = any(plan.stage != first.name for plan in found)
        assert moved == bool(waits), f"{name}: {waits} wait at red"
        numbers = [plan.sequence for plan in found]
        assert numbers == sorted(set(numbers)), "a replayed plan could not be told"
        gaps = [b.issued_ms - a.issued_ms for a, b in pairwise(found)]
        assert max(gaps) <= AGAIN_MS + 1_000 < PLAN_MS, "a plan runs out before it is told again"
        assert all(plan.why and plan.why_zh for plan in found)


def test_a_crash_at_any_moment_and_a_replay_give_the_same_plans_byte_for_byte(city: City) -> None:
    entries = log(city, 12)
    place = next(iter(city.signals.values())).movements[0].lanes_in[0].rpartition("_")[0]
    notice = Notice(alert=alert(city, place=Place(zone="", link=place)))
    entries.insert(9, signal_log.encode(notice))
    whole = run(Signals(city), entries)
    assert run(Signals(city), entries) == whole
    for cut in (1, 8, 10, 17):
        before = Signals(city)
        outs = run(before, entries[:cut])
        after = Signals(city)
        after.restore(before.changed())
        assert outs + run(after, entries[cut:], cut) == whole, f"crash after record {cut}"


def test_nobody_is_planned_for_without_reports_or_detectors(city: City) -> None:
    stage = Signals(city)
    assert run(stage, [signal_log.encode(Tick(at_ms=START_MS))]) == []
    assert stage.tick(START_MS) == [], "there is nobody to decide for"
    blind = msgspec.structs.replace(report(city, START_MS, 0), detections=[])
    outs = run(stage, [signal_log.encode(blind), signal_log.encode(Tick(at_ms=START_MS + 1))])
    assert plans(outs) == []
    assert [out.topic for out in stage.tick(START_MS + 1_100)] == ["detector-states"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r, ""),
        (lambda r: msgspec.structs.replace(r, shown=[
            msgspec.structs.replace(r.shown[0], junction="nowhere")]), "junction"),
        (lambda r: msgspec.structs.replace(r, shown=[
            msgspec.structs.replace(r.shown[0], lamps="g")]), "shown"),
        (lambda r: msgspec.structs.replace(r, shown=[
            msgspec.structs.replace(r.shown[0], stage="s99")]), "shown"),
        (lambda r: msgspec.structs.replace(r, detections=[
            msgspec.structs.replace(r.detections[0], passed=[])]), "columns"),
        (lambda r: msgspec.structs.replace(r, version=9), "version"),
    ],
)  # fmt: skip
def test_a_report_that_does_not_fit_is_a_dead_letter_and_the_others_go_on(
    city: City, change: object, reason: str
) -> None:
    assert callable(change)
    stage = Signals(city)
    outs = run(stage, [signal_log.encode(change(report(city, START_MS, 0)))])
    letters = [msgspec.json.decode(out.value, type=DeadLetter) for out in outs]
    assert [letter.reason for letter in letters] == ([reason] if reason else [])
    assert plans(run(stage, log(city, 12), 1))


@pytest.mark.parametrize("more", ["area", "movement", "group", "stage"])
def test_a_junction_that_the_pack_has_changed_starts_empty_and_the_others_go_on(
    city: City, more: str
) -> None:
    before = Signals(city)
    run(before, log(city, 12))
    name, old = next(iter(city.signals.items()))
    replace = msgspec.structs.replace
    match more:
        case "area":
            new = replace(old, areas=[*old.areas, replace(old.areas[0], id="new")])
        case "movement":
            new = replace(old, movements=[*old.movements, old.movements[0]])
        case "group":
            group = replace(old.table.groups[0], id="new", links=[])
            new = replace(old, table=replace(old.table, groups=[*old.table.groups, group]))
        case _:
            new = replace(old, stages=[*old.stages, replace(old.stages[0], name="new")])
    changed = dataclasses.replace(city, signals=city.signals | {name: new})
    after = Signals(changed)
    after.restore(before.changed())
    assert after.facts()["sites begun anew"] == 1
    found = plans(run(after, log(changed, 30)[24:], 24))
    assert found, "nobody is planned for after an edit of the pack"


def test_hostile_bytes_are_a_dead_letter(city: City) -> None:
    for value in (b"", b"{}", b"\xff" * 9, b"[" * 100_000, b'{"type":"tick"}'):
        (letter,) = run(Signals(city), [value])
        assert letter.topic == "dead-letter"


def test_an_incident_weighs_on_the_movements_around_it_and_the_plan_says_why(city: City) -> None:
    junction = city.signals["joinedS_0"]
    link = junction.movements[0].lanes_in[0].rpartition("_")[0]
    raised = alert(city, place=Place(zone="", link=link))
    told = plans(run(Signals(city), [signal_log.encode(Notice(alert=raised)), *log(city, 12)]))
    here = [plan for plan in told if plan.junction == "joinedS_0"]
    assert all([b.alert for b in plan.because] == ["a"] for plan in here)
    assert all(b.zh and b.en for plan in here for b in plan.because)
    far = {plan.junction for plan in told if not plan.because}
    assert len(far) >= 10, "an incident on one link is everybody's reason"
    cleared = msgspec.structs.replace(raised, revision=1, active=False)
    entries = [signal_log.encode(Notice(alert=one)) for one in (raised, cleared, raised)]
    assert all(not plan.because for plan in plans(run(Signals(city), entries + log(city, 12))))


def test_a_cloudburst_counts_for_walkers_everywhere(city: City) -> None:
    rain = signal_log.encode(Notice(alert=alert(city, cause="cloudburst", rule="cloudburst")))
    told = plans(run(Signals(city), [rain, *log(city, 12)]))
    walked = {
        name for name, junction in city.signals.items()
        if any(group.kind == "pedestrian" for group in junction.table.groups)
    }  # fmt: skip
    assert {plan.junction for plan in told if plan.because} == walked


@pytest.mark.parametrize("field", ["at_ms", "stage_ms", "ready_ms", "lamp_ms"])
@pytest.mark.parametrize("number", [2**53 + 1, 2**63 + 1, -2])
def test_a_number_that_no_array_holds_does_not_end_the_worker(
    city: City, field: str, number: int
) -> None:
    told = report(city, START_MS, 0)
    value: object = [number] * 20 if field in ("ready_ms", "lamp_ms") else number
    shown = msgspec.structs.replace(told.shown[0], **{field: value})
    entry = signal_log.encode(msgspec.structs.replace(told, shown=[shown]))
    (out,) = Signals(city).apply(Record("detector-states", 0, 0, START_MS, entry))
    letter = msgspec.json.decode(out.value, type=DeadLetter)
    assert (letter.reason, field in letter.message) == ("head", True)


@pytest.mark.parametrize("field", ["passed", "present", "waiting", "at_ms"])
def test_a_count_that_no_array_holds_does_not_end_the_worker(city: City, field: str) -> None:
    told = report(city, START_MS, 0)
    old = told.detections[0]
    value: object = 2**63 + 1 if field == "at_ms" else [2**63 + 1] * len(old.detectors)
    odd = msgspec.structs.replace(old, **{field: value})
    entry = signal_log.encode(msgspec.structs.replace(told, detections=[odd]))
    (out,) = Signals(city).apply(Record("detector-states", 0, 0, START_MS, entry))
    assert msgspec.json.decode(out.value, type=DeadLetter).reason == "head"


def test_a_controller_an_hour_ahead_does_not_freeze_its_junction_or_the_others(
    city: City,
) -> None:
    stage, told = Signals(city), report(city, START_MS, 0)
    ahead = msgspec.structs.replace(told.shown[0], at_ms=START_MS + 3_600_000)
    odd = msgspec.structs.replace(told, shown=[ahead, *told.shown[1:]])
    letters = [msgspec.json.decode(o.value, type=DeadLetter) for o in run(
        stage, [signal_log.encode(odd)])]  # fmt: skip
    assert [letter.reason for letter in letters] == ["clock"]
    assert ahead.junction in letters[0].message
    found = plans(run(stage, log(city, 12), 1))
    assert {plan.junction for plan in found} == city.signals.keys()


def test_detectors_of_an_hour_ahead_are_refused_and_expired_ones_are_no_news(city: City) -> None:
    told = report(city, START_MS, 0)
    (old,) = told.detections
    later = msgspec.structs.replace(old, at_ms=START_MS + 3_600_000, expires_ms=START_MS * 2)
    (out,) = run(Signals(city), [signal_log.encode(msgspec.structs.replace(
        told, detections=[later]))])  # fmt: skip
    assert msgspec.json.decode(out.value, type=DeadLetter).reason == "clock"
    stage = Signals(city)
    over = msgspec.structs.replace(old, expires_ms=START_MS - 1)
    entries = [msgspec.structs.replace(told, detections=[over]), Tick(at_ms=START_MS + 100)]
    assert plans(run(stage, [signal_log.encode(entry) for entry in entries])) == []
    assert stage.facts()["detections expired"] == 1


def test_a_clock_that_was_an_hour_ahead_does_not_stop_the_plans_for_an_hour(city: City) -> None:
    stage, hour = Signals(city), 3_600_000
    run(stage, log(city, 3))
    early = signal_log.encode(Tick(at_ms=START_MS + hour))
    stage.apply(Record("detector-states", 0, 9, START_MS + 3_000, early))
    assert stage.tick(START_MS + 3_100), "no tick is asked for until the hour is over"
    again = Signals(city)
    again.restore(stage.changed())
    entries = log(city, 20)[6:]
    outs = run(stage, entries, 10)
    assert {plan.junction for plan in plans(outs)} == city.signals.keys()
    assert run(again, entries, 10) == outs, "a crash in between changes the plans"
    late = signal_log.encode(Tick(at_ms=START_MS + 5_000))
    record = Record("detector-states", 0, 99, START_MS + 19_200, late)
    assert stage.apply(record) == [], "an old tick that comes late turns the time back"
