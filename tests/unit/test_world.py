"""The simulated world's pure parts: demand, rain, weather, air, schedule, faults, spans."""

import itertools
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain.city import find
from citybrain.edge.world import schedule
from citybrain.edge.world.air import Air, Traffic
from citybrain.edge.world.crashes import CrashMemory
from citybrain.edge.world.demand import Demand, Ends, Surge, vehicles_per_hour
from citybrain.edge.world.faults import Faults, Reading
from citybrain.edge.world.folder import Folder, Progress, gaps, joined
from citybrain.edge.world.memory import Memory, StreetsMemory, memory_file
from citybrain.edge.world.network import plain
from citybrain.edge.world.noise import curve
from citybrain.edge.world.places import ZONES, zone_at
from citybrain.edge.world.plan import Plan
from citybrain.edge.world.rain import RainField, cloudburst
from citybrain.edge.world.schedule import Event, Spot, Stage
from citybrain.edge.world.weather import Weather
from citybrain.errors import PackError, SetupError, UsageError
from citybrain.kinds import KINDS

HOUR = 3_600_000
START = 1_790_000_000_000 // HOUR * HOUR


def ends(prefix: str, count: int) -> Ends:
    x = np.arange(count) * 1000.0
    return Ends(tuple(f"{prefix}{i}" for i in range(count)), np.ones(count), x, np.zeros(count))


def demand(seed: int = 1) -> Demand:
    return Demand(seed, ends("in", 4), ends("out", 4), ends("home", 6), ends("path", 5))


def stage() -> Stage:
    spots = [Spot(f"d{i}", "z", f"link{i}", f"link{i}_0", 40.0, 100.0 * i, 0.0) for i in range(12)]
    place = Spot("", "z", "arena", "", 0.0, 0.0, 0.0)
    return Stage(spots, spots, place, [Spot("w1", "z", "", "", 0.0, 900.0, 500.0)])


# Demand ---------------------------------------------------------------------------------------


def test_the_same_seed_and_second_give_the_same_trips_whatever_came_before() -> None:
    early, late = demand(), demand()
    for second in range(50):
        early.trips(second, 8.0, free=False)
    assert early.trips(77, 8.0, free=False) == late.trips(77, 8.0, free=False)
    other = [demand(2).trips(s, 8.0, free=False) for s in range(60)]
    assert other != [demand(1).trips(s, 8.0, free=False) for s in range(60)]


def test_trips_of_an_hour_are_as_many_as_the_rate_says() -> None:
    trips = [t for s in range(3600) for t in demand().trips(s, 8.5, free=False)]
    driven = [t for t in trips if t.mode != "walk"]
    assert len(driven) == pytest.approx(1900, rel=0.1)
    assert len(trips) - len(driven) == pytest.approx(1900 * 0.45, rel=0.1)
    assert sum(t.mode == "truck" for t in driven) == pytest.approx(0.07 * 1900, rel=0.3)


def test_a_free_day_has_no_morning_peak() -> None:
    assert vehicles_per_hour(8.5, free=False) > 2.5 * vehicles_per_hour(8.5, free=True)


@given(st.floats(0, 24, exclude_max=True), st.booleans())
def test_the_rate_is_smooth_over_midnight_and_within_what_the_streets_carry(
    hour: float, free: bool
) -> None:
    rate = vehicles_per_hour(hour, free)
    assert 100 <= rate <= 2400
    assert abs(vehicles_per_hour((hour + 0.01) % 24, free) - rate) < 10


def test_mornings_go_in_and_evenings_come_out() -> None:
    def inwards(hour: float) -> int:
        trips = [t for s in range(3600) for t in demand().trips(s, hour, free=False)]
        coming = sum(t.origin.startswith("in") and "home" in t.destination for t in trips)
        leaving = sum("home" in t.origin and t.destination.startswith("out") for t in trips)
        return coming - leaving

    assert inwards(8.0) > 0 > inwards(18.0)


def test_cars_do_not_go_round_the_corner_where_anything_farther_is_there() -> None:
    places = {f"{p}{i}": i * 1000.0 for p in ("in", "out", "home") for i in range(6)}
    for second in range(2000):
        for trip in demand().trips(second, 12.0, free=False):
            if trip.mode != "walk":
                assert abs(places[trip.origin] - places[trip.destination]) >= 800


def test_a_surge_brings_people_to_one_place_and_takes_them_away() -> None:
    coming, leaving = Surge("path2", 1800.0), Surge("path2", 1800.0, outwards=True)
    quiet = sum(len(demand().trips(s, 20.0, free=False)) for s in range(600))
    for surge, end in ((coming, "destination"), (leaving, "origin")):
        trips = [t for s in range(600) for t in demand().trips(s, 20.0, False, [surge])]
        mine = [t for t in trips if getattr(t, end) == "path2"]
        assert sum(t.mode == "car" for t in mine) == pytest.approx(300, rel=0.2)
        assert len(trips) == pytest.approx(quiet + 600, rel=0.15)


# Rain and weather -----------------------------------------------------------------------------


def test_a_cloudburst_is_heavy_within_a_minute_and_moves_with_the_wind() -> None:
    cell = cloudburst(START, START + 20 * 60_000, 1000.0, 500.0, 120.0)
    x, y = np.array([1000.0, 3500.0]), np.array([500.0, 500.0])
    assert (cell.rate(x, y, START - 1) == 0).all()
    near, far = cell.rate(x, y, START + 60_000)
    assert near > 100 > 5 > far
    later = cell.rate(np.array([1000.0, 1800.0]), np.array([500.0, 900.0]), START + 15 * 60_000)
    assert later[1] > later[0], "its core has moved on"
    assert (cell.rate(x, y, START + 20 * 60_000) == 0).all()


def test_rain_at_any_moment_follows_from_the_seed_alone() -> None:
    x, y = np.linspace(0, 2600, 7), np.linspace(0, 1500, 7)
    one, two = RainField(5), RainField(5)
    for hour in range(200):
        one.rate(x, y, START + hour * HOUR)
    times = [START + k * 600_000 for k in range(0, 6 * 500, 7)]
    field = np.array([two.rate(x, y, t) for t in times])
    assert np.array_equal(field, np.array([one.rate(x, y, t) for t in times]))
    assert not np.array_equal(field, np.array([RainField(6).rate(x, y, t) for t in times]))


def test_it_rains_sometimes_not_always_and_not_more_than_a_cloud_holds() -> None:
    x, y = np.array([1300.0]), np.array([750.0])
    rates = np.array([RainField(1).rate(x, y, START + k * 300_000)[0] for k in range(12 * 24 * 30)])
    assert 0.005 < (rates > 0).mean() < 0.4
    assert rates.max() < 150
    month_mm = rates.sum() / 12
    assert 5 < month_mm < 200


def test_what_stations_measure_lies_within_the_kinds_range() -> None:
    weather = Weather(1, np.array([0.0, 2000.0]), np.array([0.0, 1000.0]))
    burst = cloudburst(START, START + HOUR, 0.0, 0.0, 160.0)
    for minute in range(0, 24 * 60 * 40, 173):
        time_ms = START + minute * 60_000
        for kind, values in weather.at(time_ms, (minute / 60) % 24, [burst]).items():
            assert ((KINDS[kind].low <= values) & (values <= KINDS[kind].high)).all(), kind


def test_winter_is_colder_than_summer_and_night_than_day() -> None:
    weather = Weather(1, np.zeros(1), np.zeros(1))

    def mean(month: int, hour: float) -> float:
        first = datetime(2026, month, 10, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
        times = [int((first + day * 86_400) * 1000) for day in range(14)]
        return float(np.mean([weather.temperature(t, hour) for t in times]))

    assert mean(1, 14) < mean(7, 14) - 12
    assert mean(7, 4) < mean(7, 15) - 3


def test_a_cloudburst_adds_its_own_rain() -> None:
    weather = Weather(1, np.array([0.0]), np.array([0.0]))
    burst = cloudburst(START, START + HOUR, 0.0, 0.0, 120.0)
    dry, wet = (weather.rain(START + 60_000, cells)[0] for cells in ([], [burst]))
    assert wet - dry == pytest.approx(120.0, rel=0.05)


@given(st.integers(0, 2**42), st.integers(1000, 10**8))
def test_random_curves_are_bounded_and_continuous(time_ms: int, period_ms: int) -> None:
    here, next_to = (curve(3, "x", t, period_ms) for t in (time_ms, time_ms + 1))
    assert abs(here) <= 1
    assert abs(here - next_to) <= 4 / period_ms


# Air ------------------------------------------------------------------------------------------


def traffic(nox: float = 0.0, pm: float = 0.0, energy: float = 0.0) -> Traffic:
    return Traffic(np.array([nox]), np.array([pm]), np.array([0.0]), np.array([energy]), samples=1)


def test_traffic_makes_the_air_worse_and_wind_carries_it_off() -> None:
    air = Air(1, np.array([500.0]))
    for _ in range(30):
        air.step(traffic(nox=5000.0, pm=200.0), 60, 3.0, np.zeros(1))
    busy = dict(air.boxes)
    assert busy["nox"][0] > 1
    assert busy["pm"][0] > 0.01
    for _ in range(10):
        air.step(traffic(), 60, 6.0, np.zeros(1))
    assert air.boxes["nox"][0] < 0.05 * busy["nox"][0]


def test_a_box_settles_where_inflow_and_outflow_are_equal_whatever_the_step() -> None:
    fine, coarse = Air(1, np.array([500.0])), Air(1, np.array([500.0]))
    for _ in range(600):
        fine.step(traffic(nox=50.0), 1, 3.0, np.zeros(1))
    for _ in range(10):
        coarse.step(traffic(nox=3000.0), 60, 3.0, np.zeros(1))
    assert fine.boxes["nox"] == pytest.approx(coarse.boxes["nox"], rel=1e-9)


def test_rain_washes_particles_out_of_the_air() -> None:
    air = Air(1, np.array([500.0]))
    dry, wet = (
        air.values(START, 12.0, 8.0, 3.0, np.array([rain]), traffic())["pm25"][0]
        for rain in (0.0, 20.0)
    )
    assert wet < 0.5 * dry


def test_ten_times_the_sound_energy_is_ten_decibels() -> None:
    air = Air(1, np.array([500.0]))
    loud, louder = (
        air.values(START, 12.0, 8.0, 3.0, np.zeros(1), traffic(energy=e))["noise_level"][0]
        for e in (1e7, 1e8)
    )
    assert louder - loud == pytest.approx(10.0, abs=0.1)


# Schedule -------------------------------------------------------------------------------------


def test_the_first_minutes_bring_one_of_each_in_time_to_be_seen() -> None:
    events = schedule.opening(1, START, stage())
    assert {e.what for e in events} == {"dead", "stuck", "chattering", "crash", "cloudburst"}
    for event in events:
        assert START + 10_000 <= event.from_ms <= START + 25_000
        assert event.to_ms - START > 240_000, "it lasts beyond a short run"
    places = [e.sensor or e.link for e in events if e.what != "cloudburst"]
    assert len(set(places)) == 4
    burst = next(e for e in events if e.what == "cloudburst")
    assert burst.zone == "z", "the zone whose gauge feels it first"
    assert abs(burst.x - 900) + abs(burst.y - 500) < 800
    failing = [e for e in events if e.sensor]
    crash = next(e for e in events if e.what == "crash")
    assert crash.link not in {e.link for e in failing}, "no failing detector hides the crash"


def test_the_schedule_follows_from_seed_and_start() -> None:
    assert schedule.opening(1, START, stage()) == schedule.opening(1, START, stage())
    assert schedule.opening(1, START, stage()) != schedule.opening(2, START, stage())
    assert schedule.opening(1, START, stage()) != schedule.opening(1, START + 60_000, stage())
    assert schedule.hour(1, START, stage(), True) == schedule.hour(1, START, stage(), True)


def test_a_day_has_some_events_and_no_two_alike() -> None:
    days = 30
    events = [
        e for h in range(24 * days) for e in schedule.hour(1, START + h * HOUR, stage(), False)
    ]
    assert len({e.id for e in events}) == len(events)
    crashes = sum(e.what == "crash" for e in events)
    assert 1 * days < crashes < 8 * days
    assert all(e.from_ms < e.to_ms for e in events)


def test_a_match_fills_the_stadium() -> None:
    surge = [e for e in schedule.hour(1, START, stage(), True) if e.what == "surge"]
    assert len(surge) == 1
    assert (surge[0].link, surge[0].strength > 0) == ("arena", True)


def test_a_schedule_can_be_kept_and_given(tmp_path: Path) -> None:
    events = schedule.opening(1, START, stage())
    schedule.write(tmp_path / "a" / "events.json", events)
    assert schedule.read(tmp_path / "a" / "events.json") == events
    body = msgspec.json.decode((tmp_path / "a" / "events.json").read_bytes())
    assert body["generated"] is True


def test_a_schedule_with_a_wrong_field_names_it(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"events": [{"id": "a", "what": "earthquake"}]}')
    with pytest.raises(UsageError, match=r"s\.json: .*what"):
        schedule.read(tmp_path / "s.json")
    (tmp_path / "s.json").write_text("[}")
    with pytest.raises(UsageError, match=r"s\.json: "):
        schedule.read(tmp_path / "s.json")
    with pytest.raises(UsageError, match=r"none\.json: No such file"):
        schedule.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sensor": "d99"}, "sensor: 'd99'"),
        ({"to_ms": 0}, "to_ms: 0"),
        ({"what": "crash", "lane": "link1_0"}, "lane: 'link1_0'"),
    ],
)
def test_an_event_that_cannot_happen_here_is_refused(change: dict[str, object], word: str) -> None:
    good = Event(id="e", what="dead", from_ms=0, to_ms=9, sensor="d1", link="link0")
    lanes = {"link0_0": "link0", "link1_0": "link1"}
    schedule.check([good], {"d1"}, lanes)
    with pytest.raises(UsageError, match=f"e: {word}"):
        schedule.check([msgspec.structs.replace(good, **change)], {"d1"}, lanes)


# Faults ---------------------------------------------------------------------------------------


def fault(what: str) -> Event:
    return Event(
        id=what, what=what, from_ms=START, to_ms=START + 60_000, sensor="d1",  # type: ignore[arg-type]  # one of the words
    )  # fmt: skip


def readings(time_ms: int, count: float) -> list[Reading]:
    return [
        ("d1", "vehicle_count", time_ms, count),
        ("d1", "occupancy", time_ms, count * 4.2),
        ("d2", "vehicle_count", time_ms, count),
    ]


def test_a_dead_detector_says_nothing_while_it_lasts() -> None:
    faults = Faults(1)
    events = [fault("dead")]
    assert faults.bend(readings(START - 1, 2.0), events) == readings(START - 1, 2.0)
    assert faults.bend(readings(START, 2.0), events) == readings(START, 2.0)[2:]
    assert faults.bend(readings(START + 60_000, 2.0), events) == readings(START + 60_000, 2.0)


def test_a_stuck_detector_repeats_one_value_with_fresh_times() -> None:
    faults = Faults(1)
    sent = [
        faults.bend(readings(START + k * 10_000, float(k + 2)), [fault("stuck")]) for k in range(5)
    ]
    mine = [r for batch in sent for r in batch if r[:2] == ("d1", "vehicle_count")]
    assert [r[3] for r in mine] == [2.0] * 5
    assert [r[2] for r in mine] == [START + k * 10_000 for k in range(5)]
    others = [r[3] for batch in sent for r in batch if r[0] == "d2"]
    assert others == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_a_detector_that_sticks_while_nothing_passes_does_not_look_like_an_empty_road() -> None:
    sent = Faults(1).bend(readings(START, 0.0), [fault("stuck")])
    assert sent[0][3] > 0
    assert sent[1][3] > 0


def test_a_chattering_detector_sends_ten_times_as_much_and_never_twice_the_same_time() -> None:
    sent = Faults(1).bend(readings(START + 10_000, 2.0), [fault("chattering")])
    counts = [r for r in sent if r[:2] == ("d1", "vehicle_count")]
    assert len(counts) == 10
    assert len({r[2] for r in counts}) == 10
    assert all(START < r[2] <= START + 10_000 and 0 <= r[3] <= 1000 for r in counts)
    assert sent == Faults(1).bend(readings(START + 10_000, 2.0), [fault("chattering")])


# Spans and tokens -----------------------------------------------------------------------------

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted).map(tuple))


@given(SPANS, st.integers(0, 50), st.integers(0, 50))
def test_gaps_are_exactly_what_no_span_covers(
    spans: list[tuple[int, int]], start: int, end: int
) -> None:
    covered = {t for a, b in spans for t in range(a, b)}
    open_ = [t for a, b in gaps((start, end), spans) for t in range(a, b)]
    assert open_ == [t for t in range(start, end) if t not in covered]
    whole = joined(spans)
    assert {t for a, b in whole for t in range(a, b)} == covered
    assert all(before[1] < after[0] for before, after in itertools.pairwise(whole))


def test_a_world_beside_its_edge_agent_gives_itself_tokens_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "world")
    first = folder.tokens(["g1", "g2"], tmp_path, 0)
    assert folder.tokens(["g1", "g2"], tmp_path, 1) == first
    assert (tmp_path / "world" / "tokens.json").stat().st_mode & 0o077 == 0
    (tmp_path / "secrets" / "tokens.json").unlink()
    assert folder.tokens(["g1", "g2"], tmp_path, 1) == first, "given tokens are used as they are"
    with pytest.raises(SetupError, match="gateway 'g3' has no token"):
        folder.tokens(["g1", "g3"], tmp_path, 1)


def test_a_token_that_the_agent_no_longer_knows_is_replaced(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "world")
    first = folder.tokens(["g1"], tmp_path, 0)
    (tmp_path / "secrets" / "tokens.json").write_text('{"version": 1, "grants": []}')
    assert folder.tokens(["g1"], tmp_path, 0) != first


def test_progress_is_kept_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.progress() == Progress()
    folder.write_progress(Progress(from_ms=1, to_ms=9, done=[(1, 4)], readings=7))
    assert folder.progress().done == [(1, 4)]
    assert folder.progress().generated is True


def test_a_state_shortly_before_a_second_is_found_an_old_or_strange_one_is_not(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path)
    memory = Memory(
        boxes={}, traffic=[], samples=0, held={}, events=[],
        streets=StreetsMemory(CrashMemory(), {}, {}),
    )  # fmt: skip
    for second in (1000, 1060, 1080, 2000):
        folder.state_file(second).touch()
        memory_file(folder.state_file(second)).write_bytes(msgspec.json.encode(memory))
    memory_file(folder.state_file(1080)).write_text('{"version": 99}')
    assert folder.state(1100) == (folder.state_file(1060), 1060)
    assert folder.state(1999) is None
    folder.forget_state(1060)
    assert folder.state(1100) == (folder.state_file(1000), 1000)


# Places ---------------------------------------------------------------------------------------


@given(st.floats(0, 2628), st.floats(0, 3334))
def test_every_point_lies_in_a_zone_of_the_pack(x: float, y: float) -> None:
    assert zone_at(x, y) in ZONES


def test_edges_get_names_that_need_no_quoting_and_stay_apart() -> None:
    assert plain("-72230304#1") == "72230304.1r"
    assert len({plain(e) for e in ("5#1", "-5#1", "5", "-5", "51")}) == 5


def test_the_worlds_side_of_the_pack_fits_the_pack() -> None:
    plan = Plan.read(find("adlershof"))
    assert len(plan.entries.edges) == len(plan.entries.weights) > 10
    assert all(bus.stops and set(bus.stops) <= set(bus.edges) for bus in plan.buses)


def test_a_city_without_a_simulated_world_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"world\.toml: missing"):
        Plan.read(tmp_path)
    (tmp_path / "world.toml").write_text("entries = 3")
    with pytest.raises(PackError, match=r"world\.toml: .*entries"):
        Plan.read(tmp_path)
