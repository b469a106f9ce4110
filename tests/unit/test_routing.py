"""Routes over a network: no closed road, no forbidden turn, and no slower than need be."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import pack
from citybrain.city import City
from citybrain.errors import PackError
from citybrain.models.routing import Ground, Roads, roads_of
from tests.emergency import EMERGENCY, LENGTH_M, grid_city, grid_links, on


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return grid_city(tmp_path_factory.mktemp("city"))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_route_is_driveable_and_nothing_is_faster(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    names = [f"l{i}" for i in range(count)]
    pairs = list(itertools.permutations(names, 2))
    arcs = data.draw(st.lists(st.sampled_from(pairs), max_size=12, unique=True))
    turns: dict[str, list[str]] = {name: [b for a, b in arcs if a == name] for name in names}
    lengths = data.draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    roads = Roads(names, lengths, [1.0] * count, turns)
    closed = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    start, end = 0, data.draw(st.integers(0, count - 1))
    goal = roads.goal(end, float(lengths[end]), roads.free_s, closed)
    found = roads.route(goal, start, 0.0, roads.free_s)
    every = [
        path
        for size in range(1, count + 1)
        for middle in itertools.permutations(names[1:], size - 1)
        if (path := (names[0], *middle))[-1] == names[end] and roads.broken(path, closed) == ""
    ]
    cost = {path: sum(lengths[roads.index[n]] for n in path) for path in every}
    if not every:
        assert found is None
        return
    assert found is not None
    assert roads.broken(found.links, closed) == ""
    assert found.seconds == pytest.approx(min(cost.values()))
    assert roads.along(found.links, 0.0, lengths[end], roads.free_s) == pytest.approx(found.seconds)


def test_a_goal_behind_on_the_same_road_is_driven_round_to(city: City) -> None:
    roads = roads_of(city.links)
    link = roads.index["1,1>2,1"]
    goal = roads.goal(link, 20.0, roads.free_s, np.zeros(len(roads.names), bool))
    route = roads.route(goal, link, 100.0, roads.free_s)
    assert route is not None
    assert len(route.links) == 5, "once round the block"
    assert route.links[0] == route.links[-1] == "1,1>2,1"


def test_a_point_is_found_on_the_link_that_is_driven_its_way(city: City) -> None:
    roads = roads_of(city.links)
    ground = Ground(roads, city.links)
    point = on("1,1>2,1", 0.25)
    east, west = ground.nearest(*point, moved=(10, 0)), ground.nearest(*point, moved=(-10, 0))
    assert east is not None
    assert west is not None
    assert roads.names[east.link] == "1,1>2,1"
    assert roads.names[west.link] == "2,1>1,1"
    assert east.pos_m == pytest.approx(LENGTH_M / 4, abs=2)
    assert ground.point(east) == pytest.approx(point, abs=1e-5)


def test_links_that_meet_connect_where_a_pack_does_not_say_how(city: City) -> None:
    from dataclasses import replace

    bare = {name: replace(link, next=None) for name, link in city.links.items()}
    told, guessed = roads_of(city.links), roads_of(bare)
    for one, other in itertools.product(grid_links(), repeat=2):
        assert told.may_turn(one, other) == guessed.may_turn(one, other)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('link = "0,0>1,0"', 'link = "nowhere"', "link: 'nowhere' is not in roads.geojson"),
        ("pos_m = 20.0", "pos_m = 2000.0", "pos_m: 2000.0 is not within"),
        ('station = "west"', 'station = "north"', "station: 'north' is not one of"),
        ('id = "amb-2"', 'id = "amb-1"', "responder: id: 'amb-1' is empty or stands here twice"),
        ("confidence = 0.6", "confidence = 6.0", "confidence: 6.0 is not within 0 to 1"),
        ('crash = ["ambulance"]', 'crash = ["tank"]', "needs.crash: 'tank' is not a kind"),
        ('kind = "crash"', 'kind = "ufo"', "alerts.incident: kind: 'ufo' is not one of"),
        ("lon = 116.4002", "lon = 216.4", "lon, lat: 216.4"),
    ],
)
def test_an_emergency_file_that_does_not_hold_together_says_where(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    with pytest.raises(PackError) as caught:
        grid_city(tmp_path, EMERGENCY.replace(old, new, 1))
    assert why in str(caught.value)


def test_the_built_in_city_can_be_driven_from_every_station_to_its_hospital() -> None:
    city = pack.load("adlershof")
    roads = roads_of(city.links)
    (hospital,) = city.emergency.hospital
    goal = roads.goal(
        roads.index[hospital.link], hospital.pos_m, roads.free_s, np.zeros(len(roads.names), bool)
    )
    for base in city.emergency.station:
        route = roads.route(goal, roads.index[base.link], base.pos_m, roads.free_s)
        assert route is not None
        assert route.seconds < 600
