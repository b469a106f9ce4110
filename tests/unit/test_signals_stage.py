"""The signals stage: what it plans, from a log alone, and that a crash changes none of it."""

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


def run(stage: Signals, entries: list[bytes], first: int = 0) -> list[Out]:
    outs: list[Out] = []
    for offset, value in enumerate(entries, first):
        outs += stage.apply(Record("detector-states", 0, offset, START_MS, value))
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
