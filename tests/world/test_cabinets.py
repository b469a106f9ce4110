"""The living world's own controllers: plans move real lamps, and its twin is the same world."""

from pathlib import Path

import msgspec
import pytest
import tomli_w

from citybrain import pack
from citybrain.city import City
from citybrain.cli.city import check
from citybrain.edge.world.twin import Entry, enter
from citybrain.edge.world.world import World
from citybrain.errors import PackError
from citybrain.signals import Lamp, Plan, signed
from tests.unit.test_interlock import unsafe

pytestmark = pytest.mark.world

FIRST_S = 1_790_067_600
KEY = b"k" * 32
JUNCTION = "joinedS_0"


@pytest.fixture(scope="module")
def city() -> City:
    return pack.load("adlershof")


def begin(city: City) -> World:
    second = FIRST_S - 30
    return enter(city, Entry(city=str(city.folder), seed=3, second=second, first=FIRST_S), KEY)


def plan(world: World, number: int, stage: str) -> Plan:
    now = world.second * 1_000
    return signed(KEY, Plan(
        junction=JUNCTION, sequence=number, issued_ms=now, expires_ms=now + 10_000,
        source="adaptive", stage=stage, why="a test",
    ))  # fmt: skip


def test_plans_move_the_lamps_safely_and_without_them_everybody_runs_the_local_plan(
    city: City,
) -> None:
    world = World(city, 3, FIRST_S, by_chance=False, signals_key=KEY)
    try:
        cabinets = world.cabinets
        assert cabinets is not None
        names = cabinets.arbiters.keys()
        start = FIRST_S * 1_000
        shown: dict[str, list[tuple[int, dict[str, Lamp]]]] = {
            name: [(start, arbiter.interlock.lamps)] for name, arbiter in cabinets.arbiters.items()
        }
        stages = [stage.name for stage in city.signals[JUNCTION].stages]
        for number in range(90):
            if number < 50:
                cabinets.take([plan(world, number, stages[number // 15 % len(stages)])])
            world.step()
            for name, arbiter in cabinets.arbiters.items():
                shown[name].append((world.second * 1_000, arbiter.interlock.lamps))
            arbiter = cabinets.arbiters[JUNCTION]
            assert arbiter.source == ("adaptive" if number < 62 else arbiter.source)
            state = world.streets.sumo.trafficlight.getRedYellowGreenState(JUNCTION)
            for group in city.signals[JUNCTION].table.groups:
                letters = {state[link].lower() for link in group.links}
                assert letters == {arbiter.interlock.lamps[group.id][0]}, group.id
        assert {arbiter.source for arbiter in cabinets.arbiters.values()} == {"local"}
        for name, lamps in shown.items():
            assert list(unsafe(city.signals[name].table, lamps)) == [], name
        report = cabinets.report()
        assert {one.junction for one in report.shown} == names
        assert report.detections, "the street's detectors say nothing"
        assert cabinets.plans == {"adaptive": 50}
    finally:
        world.close()


def test_two_worlds_that_enter_alike_cost_people_the_same_to_the_last_digit(city: City) -> None:
    told = []
    for _ in range(2):
        world = begin(city)
        try:
            for _ in range(60):
                world.step()
            assert world.cabinets is not None
            told.append((world.cabinets.measured("twin"), world.cabinets.phases()))
        finally:
            world.close()
    assert told[0] == told[1]
    assert told[0][0].delay_s > 0
    assert told[0][0].running > 0


def test_a_table_that_does_not_fit_the_streets_is_refused_by_name(
    city: City, tmp_path: Path
) -> None:
    for path in city.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = [msgspec.to_builtins(junction) for junction in city.signals.values()]
    rows[0]["table"]["conflicts"] = []
    (tmp_path / "signals.toml").write_text(tomli_w.dumps({"junction": rows}), "utf-8")
    with pytest.raises(PackError, match=f"{rows[0]['id']!r}: conflicts: .* cross in the network"):
        check(str(tmp_path))
    check(str(city.folder))
