"""The simulated city on the real simulator: it flows, it is read, and what goes wrong shows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from citybrain.city import City
from citybrain.edge.world.faults import Reading
from citybrain.edge.world.schedule import Event
from citybrain.edge.world.world import World
from citybrain.pack import load

pytestmark = pytest.mark.world

# A Tuesday, 08:30 in Berlin: the morning peak.
PEAK = 1_791_268_200
WARM_UP_S = 240


@pytest.fixture(scope="module")
def city() -> City:
    return load("adlershof")


def entered(city: City, seed: int = 1, second: int = PEAK, **options: object) -> World:
    world = World(city, seed, second - WARM_UP_S, by_chance=False, **options)  # type: ignore[arg-type]
    while world.second < second:
        world.step()
    return world


def lived(world: World, seconds: int) -> list[Reading]:
    found: list[Reading] = []
    for _ in range(seconds):
        for readings in world.step().values():
            found += readings
    return found


def of(readings: list[Reading], kind: str, link: str = "", city: City | None = None) -> list[float]:
    return [
        value
        for sensor, what, _, value in readings
        if what == kind and (city is None or city.sensors[sensor].link == link)
    ]


@pytest.fixture(scope="module")
def half_an_hour(city: City) -> Iterator[tuple[World, list[Reading]]]:
    world = entered(city)
    yield world, lived(world, 1800)
    world.close()


def test_half_an_hour_of_the_morning_peak_flows_without_teleports(
    half_an_hour: tuple[World, list[Reading]],
) -> None:
    world, readings = half_an_hour
    totals = world.streets.totals
    assert totals.teleported == 0
    assert totals.departed == pytest.approx(1950 * 34 / 60, rel=0.15)
    assert totals.running < 250, "the streets do not fill up"
    assert totals.no_way < 0.02 * totals.departed
    assert 35 < np.mean(of(readings, "vehicle_speed")) < 50


def test_devices_read_plausible_values_of_their_own_kinds_on_time(
    city: City, half_an_hour: tuple[World, list[Reading]]
) -> None:
    _, readings = half_an_hour
    for sensor, kind, time_ms, value in readings:
        row = city.kinds[kind]
        assert kind in city.sensors[sensor].kinds
        assert row.low <= value <= row.high, (sensor, kind, value)
        assert time_ms % row.cadence_ms == 0
    series = {(s, k, t) for s, k, t, _ in readings}
    assert len(series) == len(readings), "no reading twice"
    for sensor in city.sensors.values():
        for kind in sensor.kinds:
            if kind != "vehicle_speed":
                due = 1800_000 // city.kinds[kind].cadence_ms
                mine = sum((sensor.id, kind, (PEAK + s) * 1000) in series for s in range(1801))
                assert mine == due, (sensor.id, kind)


def test_no_speed_is_reported_where_nothing_passed(
    half_an_hour: tuple[World, list[Reading]],
) -> None:
    _, readings = half_an_hour
    counted = {(s, t): v for s, k, t, v in readings if k == "vehicle_count"}
    fast = [(s, t) for s, k, t, _ in readings if k == "vehicle_speed"]
    assert fast
    assert all(counted[at] > 0 for at in fast)


def test_traffic_pedestrians_and_street_air_are_there(
    half_an_hour: tuple[World, list[Reading]],
) -> None:
    _, readings = half_an_hour
    assert sum(of(readings, "pedestrian_count")) > 30
    assert 60 < np.mean(of(readings, "noise_level")) < 80
    assert 5 < np.mean(of(readings, "no2")) < 60


def test_the_same_seed_is_the_same_world_and_another_is_not(city: City) -> None:
    runs = []
    for seed in (1, 1, 2):
        world = World(city, seed, PEAK)
        runs.append(lived(world, 300))
        world.close()
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_world_goes_on_from_its_saved_state_with_the_same_cars_and_troubles(
    city: City, tmp_path: Path
) -> None:
    crash = Event(
        id="c", what="crash", from_ms=(PEAK + 20) * 1000, to_ms=(PEAK + 400) * 1000,
        link="143308542#8", lane="143308542#8_1", pos_m=92.0,
    )  # fmt: skip
    stuck = Event(
        id="s", what="stuck", from_ms=(PEAK + 10) * 1000, to_ms=(PEAK + 400) * 1000,
        sensor="cs-143308542.11-1",
    )  # fmt: skip
    world = entered(city)
    world.plan_events([crash, stuck])
    before = lived(world, 120)
    path = tmp_path / "state.xml.gz"
    world.save(path)
    running, events = world.streets.totals.running, world.events
    on = lived(world, 180)
    world.close()
    again = World(city, 1, PEAK + 120, state=path, by_chance=False)
    resumed = lived(again, 180)
    assert {e.id: e.happened_ms for e in again.events} == {e.id: e.happened_ms for e in events}
    assert abs(again.streets.totals.running - running) < 40
    again.close()
    held = {v for s, k, _, v in before[-1000:] if (s, k) == ("cs-143308542.11-1", "occupancy")}
    still = {v for s, k, _, v in resumed if (s, k) == ("cs-143308542.11-1", "occupancy")}
    assert still == held, "a stuck device sticks at the same value"
    assert np.mean(of(resumed, "vehicle_speed", crash.link, city)) < 20, "the crash is still there"
    # SUMO does not keep the memory of actuated signals: alike, not equal to the bit.
    both = [sum(of(readings, "vehicle_count")) for readings in (on, resumed)]
    assert both[0] == pytest.approx(both[1], rel=0.15)


def test_a_crash_closes_its_lane_and_slows_its_street_until_it_is_cleared(city: City) -> None:
    link, lane, loop = "143308542#8", "143308542#8_1", "d-143308542.8-1"
    crash = Event(
        id="c", what="crash", from_ms=PEAK * 1000, to_ms=(PEAK + 600) * 1000,
        link=link, lane=lane, pos_m=92.0,
    )  # fmt: skip
    before = entered(city)
    usual = lived(before, 600)
    before.close()
    world = entered(city)
    world.plan_events([crash])
    crashed = lived(world, 600)
    assert world.events[0].happened_ms is not None
    assert world.events[0].happened_ms - crash.from_ms < 60_000
    slow = np.mean(of(crashed, "vehicle_speed", link, city)[5:])
    assert slow < 0.4 * np.mean(of(usual, "vehicle_speed", link, city))
    passed = [v for s, k, t, v in crashed if s == loop and k == "vehicle_count"][18:]
    once = [v for s, k, t, v in usual if s == loop and k == "vehicle_count"][18:]
    assert sum(passed) < 0.3 * sum(once), "hardly anybody uses the closed lane"
    lived(world, 180)
    after = lived(world, 300)
    assert np.mean(of(after, "vehicle_speed", link, city)) > 2 * slow
    world.close()


def test_at_night_a_crash_finds_a_car_too(city: City) -> None:
    night = PEAK - 5 * 3600
    world = entered(city, second=night)
    world.plan_events(
        [
            Event(
                id="c",
                what="crash",
                from_ms=night * 1000,
                to_ms=(night + 600) * 1000,
                link="670062908#1",
                lane="670062908#1_2",
                pos_m=30.0,
            )
        ]
    )
    lived(world, 90)
    happened = world.events[0].happened_ms
    world.close()
    assert happened is not None


def test_failing_detectors_fail_as_scheduled(city: City) -> None:
    sensors = ["d-143308542.8-1", "d-143308542.8-2", "cs-143308542.11-1"]
    events = [
        Event(
            id=what,
            what=what,
            from_ms=(PEAK + 60) * 1000,
            to_ms=(PEAK + 240) * 1000,  # type: ignore[arg-type]
            sensor=sensor,
        )
        for what, sensor in zip(("dead", "stuck", "chattering"), sensors, strict=True)
    ]
    world = entered(city)
    world.plan_events(events)
    readings = lived(world, 300)
    world.close()

    def counts(sensor: str, start: int, end: int) -> list[float]:
        return [
            v
            for s, k, t, v in readings
            if (s, k) == (sensor, "occupancy") and PEAK + start < t / 1000 <= PEAK + end
        ]

    dead, stuck, chattering = sensors
    assert len(counts(dead, 0, 60)) == 5, "the reading at 60 s is the first to be missing"
    assert counts(dead, 60, 239) == []
    assert len(set(counts(stuck, 60, 239))) == 1
    assert counts(stuck, 60, 239)[0] > 0
    assert len(counts(chattering, 60, 239)) > 100
    assert len(counts(chattering, 250, 300)) == 5


def test_a_match_fills_the_streets_around_the_stadium(city: City) -> None:
    world = entered(city)
    stadium = world.plan.stadium
    trips = world.streets.totals.departed
    world.plan_events(
        [
            Event(
                id="m",
                what="surge",
                from_ms=PEAK * 1000,
                to_ms=(PEAK + 600) * 1000,
                link=stadium.edge,
                strength=500.0,
            )
        ]
    )
    lived(world, 600)
    more = world.streets.totals.departed - trips
    world.close()
    assert more > 1900 / 6 + 0.6 * 500 / 6


def test_rain_reaches_the_stations_it_passes_over(city: City) -> None:
    burst = Event(
        id="b", what="cloudburst", from_ms=PEAK * 1000, to_ms=(PEAK + 900) * 1000,
        x=1500.0, y=180.0, strength=130.0,
    )  # fmt: skip
    world = entered(city)
    world.plan_events([burst])
    readings = lived(world, 180)
    world.close()
    fell: dict[str, float] = {}
    for sensor, kind, _, value in readings:
        if kind == "precipitation":
            fell[sensor] = fell.get(sensor, 0.0) + value
    assert fell["w-canal"] > 4
    assert fell["w-landscape-park"] < 0.5 * fell["w-canal"]


@pytest.mark.long
def test_a_working_day_flows_through_both_peaks(city: City) -> None:
    world = entered(city, second=PEAK - PEAK % 86_400 + 4 * 3600)
    worst = 0
    for _ in range(16):
        lived(world, 3600)
        worst = max(worst, world.streets.totals.running)
    teleported = world.streets.totals.teleported
    world.close()
    assert worst < 400
    assert teleported <= 5
