"""Controllers, timing and queues on a small junction, without a simulator."""

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import pack
from citybrain.edge.interlock import Interlock
from citybrain.edge.sequencer import Sequencer
from citybrain.errors import PackError
from citybrain.models.signals import CONTROLLERS, webster
from citybrain.models.signals.base import View
from citybrain.models.signals.horizon import Horizon, decide_all
from citybrain.models.signals.queues import HORIZON_S, Queues
from citybrain.models.signals.timing import changeover_ms, cycle_ms, fitted, useful_stages
from citybrain.signals import (
    Area,
    DetectorState,
    Group,
    Junction,
    Lamp,
    LocalPlan,
    Movement,
    StageDef,
    Step,
    Table,
)
from tests.unit.test_interlock import CROSSING, unsafe, walker


def vehicle(name: str, link: int) -> Group:
    return Group(
        id=name, kind="vehicle", links=[link], min_green_ms=5_000, yellow_ms=3_000,
        clear_ms=2_000, max_red_ms=120_000,
    )  # fmt: skip


def movement(group: str, link: int) -> Movement:
    return Movement(
        group=group, lanes_in=[f"{group}_in_0"], lanes_out=[f"{group}_out_0"],
        detectors=[f"{group}:0", f"{group}:1"], shares=[1.0, 1.0], near_m=[0.0, 50.0],
        exits=[f"{group}:x"], links=[link], speed_m_s=12.5,
    )  # fmt: skip


def areas(group: str) -> list[Area]:
    return [
        Area(id=f"{group}:0", lane=f"{group}_in_0", begin_m=50, end_m=100),
        Area(id=f"{group}:1", lane=f"{group}_in_0", begin_m=0, end_m=50),
        Area(id=f"{group}:x", lane=f"{group}_out_0", begin_m=0, end_m=60),
    ]


#   main and side cross; the walkers go with side and cross main.
JUNCTION = Junction(
    id="j",
    table=Table(
        junction="j",
        groups=[
            vehicle("main", 0),
            vehicle("side", 1),
            msgspec.structs.replace(walker("walk"), links=[2]),
        ],
        conflicts=[("main", "side"), ("main", "walk")],
    ),
    stages=[StageDef(name="a", green=["main"]), StageDef(name="b", green=["side", "walk"])],
    plan=LocalPlan(
        steps=[Step(stage="a", green_ms=40_000), Step(stage="b", green_ms=20_000)], offset_ms=7_000
    ),
    movements=[
        movement("main", 0),
        movement("side", 1),
        Movement(group="walk", lanes_in=["w_0"], lanes_out=[":c0_0"], links=[2]),
    ],
    areas=[*areas("main"), *areas("side")],
)


def view(**change: object) -> View:
    count = len(JUNCTION.movements)
    facts: dict[str, object] = {
        "now_ms": 1_000_000, "stage": "a", "stage_s": 20.0, "changing": False,
        "ready_s": lambda stage: 0.0 if stage == "a" else 5.0, "queue": np.zeros(count),
        "coming": np.zeros((count, HORIZON_S)), "room": np.ones(count),
        "waited_s": np.zeros(count), "red_s": np.array([0.0, 25.0, 25.0]),
        "age_s": np.full(count, 5.0), "served": np.ones(count),
    }  # fmt: skip
    return View(**(facts | change))  # type: ignore[arg-type]  # the facts are of the view's types


def state(name: str, present: int, waiting: int, at_ms: int = 0) -> DetectorState:
    return DetectorState(
        detector=name, at_ms=at_ms, expires_ms=at_ms + 20_000, passed=0, occupancy=0.0,
        present=present, waiting=waiting,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(CONTROLLERS))
def test_every_controller_names_a_stage_of_the_junction_and_is_deterministic(name: str) -> None:
    stages = {stage.name for stage in JUNCTION.stages}
    rng = np.random.default_rng(1)
    asked = [
        view(
            now_ms=1_000_000 + 1_000 * n, stage_s=float(n % 60), stage="ab"[n // 60 % 2],
            queue=rng.integers(0, 9, 3).astype(float), room=rng.random(3),
            red_s=rng.random(3) * 120,
        )
        for n in range(240)
    ]  # fmt: skip
    runs = []
    for _ in range(2):
        controller = CONTROLLERS[name](JUNCTION)
        runs.append([controller.decide(v) for v in asked])
    assert runs[0] == runs[1]
    assert {d.stage for d in runs[0] if d is not None} <= stages
    assert all(d is None or d.why for d in runs[0])


def test_the_queue_gets_green_and_one_car_does_not() -> None:
    make = CONTROLLERS["horizon"]
    long = make(JUNCTION).decide(view(queue=np.array([0.0, 8.0, 0.0])))
    assert long is not None
    assert long.stage == "b"
    flowing = np.zeros((3, HORIZON_S))
    flowing[0] = 0.45
    one = make(JUNCTION).decide(view(queue=np.array([3.0, 0.3, 0.0]), coming=flowing))
    assert one is not None
    assert one.stage == "a"


def test_nothing_is_sent_into_a_full_exit_while_another_way_is_free() -> None:
    full = np.array([1.0, 0.0, 1.0])
    decision = CONTROLLERS["horizon"](JUNCTION).decide(
        view(queue=np.array([4.0, 9.0, 0.0]), room=full)
    )
    assert decision is not None
    assert decision.stage == "a"


def test_a_flooded_road_that_is_green_is_left_after_its_minimum_though_its_queue_is_long() -> None:
    make, flood = CONTROLLERS["horizon"](JUNCTION), frozenset({"main"})
    queue = np.array([30.0, 0.0, 0.0])
    for stage_s, stage in ((1.0, "a"), (10.0, "b"), (60.0, "b")):
        decision = make.decide(view(stage_s=stage_s, queue=queue, blocked=flood))
        assert decision is not None
        assert decision.stage == stage, f"after {stage_s} s: {decision.why}"
        assert decision.why
        assert decision.why_zh
    dry = make.decide(view(stage_s=10.0, queue=queue))
    assert dry is not None
    assert dry.stage == "a"


def test_where_every_stage_opens_a_flooded_road_the_one_with_fewest_is_taken() -> None:
    decision = CONTROLLERS["horizon"](JUNCTION).decide(
        view(stage="b", queue=np.array([0.0, 9.0, 0.0]), red_s=np.array([25.0, 0.0, 0.0]),
             blocked=frozenset({"main", "side", "walk"}))
    )  # fmt: skip
    assert decision is not None
    assert decision.stage == "a"


def test_a_group_gets_green_though_its_detectors_say_nothing() -> None:
    decision = CONTROLLERS["horizon"](JUNCTION).decide(
        view(queue=np.array([9.0, 0.0, 0.0]), red_s=np.array([0.0, 101.0, 0.0]))
    )
    assert decision is not None
    assert (decision.stage, decision.why) == ("b", "side red for 101 s")


def test_without_detectors_the_junction_is_left_to_its_local_plan() -> None:
    for age in (np.nan, 61.0):
        decision = CONTROLLERS["horizon"](JUNCTION).decide(view(age_s=np.full(3, age)))
        assert decision is None


def test_a_person_who_waits_is_a_call() -> None:
    decision = CONTROLLERS["horizon"](JUNCTION).decide(
        view(queue=np.array([0.0, 0.0, 1.0]), waited_s=np.array([0.0, 0.0, 30.0]))
    )
    assert decision is not None
    assert decision.stage == "b"


def test_a_plan_that_is_followed_holds_its_cycle_and_offset() -> None:
    assert cycle_ms(JUNCTION) == 40_000 + 20_000 + 5_000 + 9_000
    fixed = CONTROLLERS["fixed"](JUNCTION)
    shown = []
    for now in range(7_000, 7_000 + 3 * 74_000, 1_000):
        decision = fixed.decide(view(now_ms=now))
        assert decision is not None
        shown.append(decision.stage)
    runs = [(stage, len(list(group))) for stage, group in itertools.groupby(shown)]
    assert runs == [("a", 49), ("b", 25)] * 3


def test_a_change_takes_as_long_as_its_slowest_closing_group() -> None:
    table = JUNCTION.table
    assert changeover_ms(table, frozenset({"main"}), frozenset({"side", "walk"})) == 5_000
    assert changeover_ms(table, frozenset({"side", "walk"}), frozenset({"main"})) == 9_000
    assert changeover_ms(table, frozenset({"main"}), frozenset({"main"})) == 0


@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(1_000, 9_000)), min_size=1, max_size=6),
    st.integers(60_000, 120_000),
)
def test_fitted_greens_never_fall_below_their_shortest(
    rows: list[tuple[int, int]], total: int
) -> None:
    shortest = [least for _, least in rows]
    greens = fitted([green for green, _ in rows], shortest, total)
    assert all(g >= least - 1 for g, least in zip(greens, shortest, strict=True))
    assert abs(sum(greens) - total) <= len(rows)


def test_a_stage_that_only_opens_less_is_not_chosen() -> None:
    less = msgspec.structs.replace(
        JUNCTION, stages=[*JUNCTION.stages, StageDef(name="c", green=["side"])]
    )
    assert useful_stages(less) == ["a", "b"]
    protects = msgspec.structs.replace(less, yields={"1": [2]})
    assert useful_stages(protects) == ["a", "b", "c"]


def test_vehicles_seen_are_at_the_stop_line_when_they_should_be() -> None:
    queues = Queues(JUNCTION)
    for second in range(1, 6):
        queues.tick(second * 1_000, frozenset())
    queues.learn(5_000, {"main:0": state("main:0", 4, 4), "main:1": state("main:1", 2, 0)})
    assert queues.queue[0] == pytest.approx(4.0 + 2 * 1 / 4, abs=0.6)
    for second in range(6, 12):
        queues.tick(second * 1_000, frozenset())
    assert queues.queue[0] == pytest.approx(6.0, abs=0.3)
    for second in range(12, 22):
        queues.tick(second * 1_000, frozenset({"main"}))
    assert queues.queue[0] == pytest.approx(6.0 - 0.5 * 10, abs=0.6)


def test_an_older_state_never_replaces_a_newer_one() -> None:
    queues = Queues(JUNCTION)
    queues.tick(10_000, frozenset())
    queues.learn(10_000, {"main:0": state("main:0", 5, 5, 9_000)})
    queues.learn(10_000, {"main:0": state("main:0", 0, 0, 4_000), "nobody": state("nobody", 9, 9)})
    assert queues.queue[0] == pytest.approx(5.0, abs=0.1)


def test_websters_plan_gives_green_where_the_flow_is() -> None:
    flows = {("main_in", "main_out"): 300.0, ("side_in", "side_out"): 900.0}
    (timed,) = webster.retimed([JUNCTION], flows)
    main, side = (step.green_ms for step in timed.plan.steps)
    assert side > 2 * main
    assert webster.SHORTEST_MS <= cycle_ms(timed) <= webster.LONGEST_MS


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 30), st.booleans()), max_size=40))
def test_whatever_stages_are_asked_for_the_interlock_has_nothing_to_refuse(
    asked: list[tuple[str, int, bool]],
) -> None:
    now = 0
    sequencer, lock = Sequencer(JUNCTION, now), Interlock(JUNCTION.table, now)
    shown: list[tuple[int, dict[str, Lamp]]] = [(now, lock.lamps)]
    for stage, seconds, called in asked:
        sequencer.aim(stage)
        if called:
            sequencer.calls.add("walk")
        for _ in range(seconds):
            now += 1_000
            verdict = lock.change(now, sequencer.step(now))
            assert verdict.granted, verdict.refusals
            sequencer.shown(now, verdict.lamps)
            shown.append((now, verdict.lamps))
    assert list(unsafe(JUNCTION.table, shown)) == []


def test_walkers_do_not_keep_cars_that_may_still_go() -> None:
    now = 0
    sequencer, lock = Sequencer(JUNCTION, now), Interlock(JUNCTION.table, now)
    lamps: dict[str, Lamp] = {}
    walked = 0
    sequencer.aim("b")
    sequencer.recall = True
    for now in range(1_000, 40_000, 1_000):
        if now == 25_000:
            sequencer.aim("a")
        verdict = lock.change(now, sequencer.step(now))
        sequencer.shown(now, verdict.lamps)
        lamps = verdict.lamps
        walked += lamps["walk"] == "red" and lamps["side"] == "green"
        if lamps["main"] == "green":
            break
    assert lamps["main"] == "green"
    assert now == 25_000 + 9_000
    assert walked >= 4, "cars of the closing stage stood while people cleared"


def test_a_stage_that_opens_two_that_exclude_each_other_is_refused() -> None:
    wrong = msgspec.structs.replace(
        JUNCTION, table=CROSSING, stages=[StageDef(name="a", green=["main", "side"])]
    )
    with pytest.raises(PackError, match="main and side exclude"):
        Sequencer(wrong, 0)


def test_many_junctions_decided_together_decide_as_each_alone() -> None:
    rng = np.random.default_rng(3)
    asked = []
    for junction in pack.load("adlershof").signals.values():
        count = len(junction.movements)
        controller = Horizon(junction)
        for n in range(6):
            stage = junction.stages[n % len(junction.stages)].name
            asked.append((controller, view(
                stage=stage, stage_s=float(5 + 8 * n), queue=rng.integers(0, 6, count) * 1.0,
                coming=rng.random((count, HORIZON_S)) * 0.2, room=rng.random(count),
                waited_s=rng.random(count) * 60, red_s=rng.random(count) * 110,
                age_s=np.full(count, 5.0), served=np.ones(count),
                ready_s=lambda name, now=stage: 0.0 if name == now else 5.0,
            )))  # fmt: skip
    together = decide_all(asked)
    assert together == [controller.decide(one) for controller, one in asked]
    moved = [d for d, (_, one) in zip(together, asked, strict=True) if d and d.stage != one.stage]
    assert 10 < len(moved) < len(asked), "the views decide nothing"


def test_nothing_to_gain_means_no_change() -> None:
    for second in range(5, 90, 5):
        decision = Horizon(JUNCTION).decide(view(stage_s=float(second)))
        assert decision is not None
        assert decision.stage == "a"


def test_a_red_is_ended_well_before_the_table_calls_it_too_long() -> None:
    main, side = (msgspec.structs.replace(vehicle(n, i), max_red_ms=60_000)
                  for i, n in enumerate(("main", "side")))  # fmt: skip
    groups = [main, side, *JUNCTION.table.groups[2:]]
    table = msgspec.structs.replace(JUNCTION.table, groups=groups)
    junction = msgspec.structs.replace(JUNCTION, table=table)
    busy = {"queue": np.array([9.0, 0.0, 0.0]), "stage_s": 30.0}
    stays = Horizon(junction).decide(view(**busy, red_s=np.array([0.0, 35.0, 35.0])))
    goes = Horizon(junction).decide(view(**busy, red_s=np.array([0.0, 41.0, 41.0])))
    assert stays is not None
    assert goes is not None
    assert (stays.stage, goes.stage) == ("a", "b")
