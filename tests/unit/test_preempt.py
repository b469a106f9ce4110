"""Priority at a junction: who gets a green, from when, and what it is told."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import pack, signal_log
from citybrain.city import City
from citybrain.findings import DeadLetter
from citybrain.models.signals.preempt import LONGEST_MS, Preempt
from citybrain.models.signals.site import Site
from citybrain.models.signals.timing import changeover_ms
from citybrain.priority import PriorityStatus
from citybrain.signal_log import PriorityRequest, Shown, Tick
from citybrain.signals import DetectorState, Junction, Plan
from citybrain.stage import Out, Record
from citybrain.streams.signals import Signals
from tests.unit.test_signals_stage import report

T0 = 1_790_000_000_000


@pytest.fixture(scope="module")
def city() -> City:
    return pack.load("adlershof")


@pytest.fixture(scope="module")
def junction(city: City) -> Junction:
    """The one with most stages."""
    return max(city.signals.values(), key=lambda j: (len(j.stages), j.id))


def site(junction: Junction, at_ms: int = T0, standing: int = 0) -> Site:
    """It shows its first stage; so many cars stand on every area at a stop line."""
    one = Site(junction, "horizon")
    see(one, at_ms)
    if standing:
        lines = {move.detectors[0] for move in junction.movements if move.detectors}
        one.learn({
            area.id: DetectorState(
                detector=area.id, at_ms=at_ms, expires_ms=at_ms + 20_000, passed=0, occupancy=0.0,
                present=standing * (area.id in lines), waiting=standing * (area.id in lines),
            )
            for area in junction.areas
        })  # fmt: skip
    one.decide(at_ms)
    return one


def see(one: Site, at_ms: int, number: int = 0) -> None:
    junction = one.junction
    stage = junction.stages[number]
    one.see(
        Shown(
            junction=junction.id, at_ms=at_ms, source="adaptive", stage=stage.name, stage_ms=30_000,
            lamps="".join("g" if g.id in stage.green else "r" for g in junction.table.groups),
            ready_ms=[
                changeover_ms(junction.table, frozenset(stage.green), frozenset(other.green))
                for other in junction.stages
            ],
        )
    )  # fmt: skip


def approach(junction: Junction, number: int = -1) -> list[str]:
    """Vehicle groups of a stage that the first one does not open."""
    walks = {g.id for g in junction.table.groups if g.kind == "pedestrian"}
    return sorted(set(junction.stages[number].green) - set(junction.stages[0].green) - walks)[:1]


def request(junction: Junction, name: str = "r1", eta_s: float = 5.0, **facts: object) -> (
    PriorityRequest
):  # fmt: skip
    told: dict[str, object] = {
        "id": name, "vehicle": name, "junction": junction.id, "groups": approach(junction),
        "eta_ms": T0 + round(eta_s * 1000), "issued_ms": T0, "expires_ms": T0 + 12_000,
    }  # fmt: skip
    return PriorityRequest(**(told | facts))  # type: ignore[arg-type]  # fields by name


def states(told: list[PriorityStatus]) -> list[tuple[str, str]]:
    return [(status.id, status.state) for status in told]


def test_a_green_is_prepared_when_it_is_due_and_not_before(junction: Junction) -> None:
    preempt, here = Preempt(junction), site(junction)
    assert states(preempt.take(T0, request(junction, eta_s=60))) == [("r1", "queued")]
    decision, told = preempt.decide(T0, here)
    assert (decision, told) == (None, [])
    preempt.take(T0, request(junction, eta_s=6, issued_ms=T0 + 1))
    decision, told = preempt.decide(T0, here)
    assert decision is not None
    green = next(s.green for s in junction.stages if s.name == decision.stage)
    assert set(approach(junction)) <= set(green)
    assert states(told) == [("r1", "granted")]
    see(here, T0 + 1_000, [s.name for s in junction.stages].index(decision.stage))
    _, told = preempt.decide(T0 + 1_000, here)
    assert states(told) == [("r1", "active")]
    passed = request(junction, cancelled=True, issued_ms=T0 + 2_000)
    assert states(preempt.take(T0 + 2_000, passed)) == [("r1", "completed")]
    assert preempt.decide(T0 + 2_000, here) == (None, []), "nothing is held afterwards"


def test_a_queue_before_the_vehicle_is_let_go_earlier(junction: Junction) -> None:
    def begun(standing: int) -> int:
        for eta_s in range(60, -1, -1):
            preempt = Preempt(junction)
            preempt.take(T0, request(junction, eta_s=eta_s))
            decision, _ = preempt.decide(T0, site(junction, standing=standing))
            if decision is not None:
                return eta_s
        raise AssertionError("never")

    assert begun(0) < begun(4) < begun(8)
    assert begun(8) - begun(0) >= 12, "eight cars take a good 16 s"


ASKED = st.tuples(st.sampled_from(["emergency", "priority"]), st.integers(1, 4), st.integers(0, 6))


@settings(max_examples=60, deadline=None)
@given(asked=st.lists(ASKED, min_size=1, max_size=5))
def test_level_importance_arrival_and_name_decide_in_this_order(
    junction: Junction, asked: list[tuple[str, int, int]]
) -> None:
    preempt, here = Preempt(junction), site(junction)
    stages = [n for n in range(1, len(junction.stages)) if approach(junction, n)]
    for number, (level, importance, eta_s) in enumerate(asked):
        preempt.take(T0, request(
            junction, f"r{number}", eta_s, level=level, importance=importance,
            groups=approach(junction, stages[number % len(stages)]),
        ))  # fmt: skip
    decision, _ = preempt.decide(T0, here)
    assert decision is not None
    ranked = sorted(
        range(len(asked)),
        key=lambda n: (asked[n][0] != "emergency", asked[n][1], asked[n][2], f"r{n}"),
    )
    first = preempt.asked[f"r{ranked[0]}"]
    assert first.state in ("granted", "active")
    green = set(next(s.green for s in junction.stages if s.name == decision.stage))
    for one in preempt.asked.values():
        served = set(one.request.groups) <= green
        assert (one.state in ("granted", "active")) == served
        assert served or one.state == "overridden"


def test_who_falls_silent_holds_no_green(junction: Junction) -> None:
    preempt, here = Preempt(junction), site(junction)
    preempt.take(T0, request(junction, eta_s=2))
    assert preempt.decide(T0, here)[0] is not None
    decision, told = preempt.decide(T0 + 12_000, here)
    assert decision is None
    assert states(told) == [("r1", "expired")]


def test_nobody_holds_a_junction_for_ever(junction: Junction) -> None:
    preempt, here = Preempt(junction), site(junction)
    seen = []
    for second in range(0, LONGEST_MS // 1000 + 30, 5):
        now = T0 + second * 1000
        preempt.take(now, request(junction, eta_ms=now, issued_ms=now, expires_ms=now + 12_000))
        decision, _ = preempt.decide(now, here)
        seen.append(decision is not None)
    assert seen[0]
    assert not seen[-1]
    assert preempt.asked["r1"].state == "queued"


@pytest.mark.parametrize(
    ("facts", "state", "why"),
    [
        ({"groups": ["nobody"]}, "rejected", "'nobody' is not one of"),
        ({"own": ["nobody"]}, "rejected", "own: 'nobody' is not one of"),
        ({"groups": []}, "rejected", "groups: [] is empty"),
        ({"expires_ms": T0 - 1}, "expired", "too late"),
    ],
)
def test_a_request_that_cannot_be_served_says_why(
    junction: Junction, facts: dict[str, object], state: str, why: str
) -> None:
    preempt = Preempt(junction)
    (told,) = preempt.take(T0, request(junction, **facts))
    assert (told.state, why in told.why) == (state, True)
    assert preempt.decide(T0, site(junction)) == (None, [])


def test_groups_that_no_stage_opens_together_are_rejected(junction: Junction) -> None:
    one, other = junction.table.conflicts[0]
    (told,) = Preempt(junction).take(T0, request(junction, groups=[one, other]))
    assert told.state == "rejected"
    assert "no stage opens" in told.why


def test_a_replayed_request_changes_nothing(junction: Junction) -> None:
    preempt = Preempt(junction)
    preempt.take(T0, request(junction, issued_ms=T0 + 5))
    assert preempt.take(T0, request(junction, cancelled=True, issued_ms=T0 + 4)) == []
    assert "r1" in preempt.asked


def test_the_signals_stage_tells_plans_with_priority_and_takes_them_back(city: City) -> None:
    stage, log = Signals(city), []  # type: ignore[var-annotated]  # of records
    junction = max(city.signals.values(), key=lambda j: (len(j.stages), j.id))

    def write(entry: signal_log.Entry) -> list[Out]:
        record = Record("detector-states", 0, len(log), T0, signal_log.encode(entry))
        log.append(record)
        return list(stage.apply(record))

    def plans(outs: list[Out]) -> list[Plan]:
        found = [msgspec.json.decode(o.value, type=Plan) for o in outs if o.topic == "signal-plans"]
        return [plan for plan in found if plan.source == "emergency"]

    write(report(city, T0, 20))
    write(request(junction, eta_s=4))
    (plan,) = plans(write(Tick(at_ms=T0 + 1_000)))
    assert plan.junction == junction.id
    copy = Signals(city)
    copy.restore(stage.changed())
    write(request(junction, cancelled=True, issued_ms=T0 + 1_500))
    last = write(Tick(at_ms=T0 + 2_000))
    (release,) = plans(last)
    assert release.expires_ms == T0 + 5_000, "a controller that asks once a second misses it"
    for record in log[-2:-1]:
        copy.apply(record)
    assert list(copy.apply(log[-1])) == last
    assert plans(write(Tick(at_ms=T0 + 3_000))) == []


def test_a_request_at_an_unknown_junction_is_a_dead_letter(city: City, junction: Junction) -> None:
    entry = msgspec.structs.replace(request(junction), junction="nowhere")
    (out,) = Signals(city).apply(Record("detector-states", 0, 0, T0, signal_log.encode(entry)))
    letter = msgspec.json.decode(out.value, type=DeadLetter)
    assert (letter.reason, "'nowhere'" in letter.message) == ("junction", True)


@pytest.mark.parametrize("field", ["groups", "own"])
def test_a_renewal_that_no_stage_serves_is_rejected_and_does_not_end_the_worker(
    junction: Junction, field: str
) -> None:
    for groups in (list(junction.table.conflicts[0]), ["nobody"], []):
        if field == "own" and not groups:
            continue  # then all groups are its own
        preempt, here = Preempt(junction), site(junction)
        preempt.take(T0, request(junction))
        renewed = request(junction, issued_ms=T0 + 1, **{field: groups})
        assert states(preempt.take(T0, renewed)) == [("r1", "rejected")]
        assert preempt.decide(T0, here) == (None, [])


@pytest.mark.parametrize("renewed", [False, True])
def test_a_request_without_end_is_forgotten_a_minute_after_its_vehicle_fell_silent(
    junction: Junction, renewed: bool
) -> None:
    preempt, here = Preempt(junction), site(junction)
    if renewed:
        preempt.take(T0, request(junction))
    preempt.take(T0, request(junction, issued_ms=T0 + 1, expires_ms=T0 * 2))
    assert states(preempt.decide(T0 + 60_000, here)[1]) == [("r1", "expired")]


def test_a_bus_does_not_outrank_as_an_ambulance_does(city: City) -> None:
    stage, junction = Signals(city), max(city.signals.values(), key=lambda j: (len(j.stages), j.id))

    def told(stage: Signals, *entries: signal_log.Entry) -> dict[str, tuple[str, int]]:
        found = {}
        for entry in entries:
            for out in stage.apply(Record("detector-states", 0, 0, T0, signal_log.encode(entry))):
                if out.topic == "signal-plans":
                    plan = msgspec.json.decode(out.value, type=Plan)
                    if plan.junction == junction.id and plan.source != "adaptive":
                        found[plan.source] = (plan.stage, plan.expires_ms - plan.issued_ms)
        return found

    bus = request(junction, eta_s=4, level="priority")
    first = told(stage, report(city, T0, 20), bus, Tick(at_ms=T0 + 1_000))
    assert first.keys() == {"priority"}
    copy = Signals(city)
    copy.restore(stage.changed())
    both = told(copy, request(junction, "r2", eta_s=4), Tick(at_ms=T0 + 2_000))
    stage_now, valid_ms = both["emergency"]
    assert both == {"emergency": (stage_now, valid_ms), "priority": (stage_now, 3_000)}
    ends = [request(junction, name, issued_ms=T0 + 2_500, cancelled=True) for name in ("r1", "r2")]
    after = told(copy, *ends, Tick(at_ms=T0 + 3_000))
    assert {source: valid for source, (_, valid) in after.items()} == {"emergency": 3_000}
