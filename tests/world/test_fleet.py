"""Responders in the simulated streets, driven by the emergency stage's orders."""

from collections.abc import Iterator

import numpy as np
import pytest

from citybrain import pack
from citybrain.city import City
from citybrain.edge.world.world import World
from citybrain.emergency import CloseRoad, Order, ReportIncident
from citybrain.findings import Place
from citybrain.models.routing import roads_of
from tests.emergency import Log

pytestmark = pytest.mark.world
NIGHT_S = 1_767_236_400
"""2026-01-01 03:00 UTC: nearly nobody is out."""


@pytest.fixture
def city() -> City:
    return pack.load("adlershof")


@pytest.fixture
def world(city: City) -> Iterator[World]:
    world = World(city, 1, NIGHT_S, by_chance=False, signals_key=b"k" * 32)
    yield world
    world.close()


def drive(world: World, log: Log, seconds: int, until: str) -> Order | None:
    """Let the world and the stage speak to each other as over the wire."""
    assert world.fleet is not None
    for _ in range(seconds):
        world.step()
        second = world.second
        orders = list(log.orders().values())
        world.fleet.take(orders)
        log.write(*world.fleet.positions(second, second * 1000))
        found = next((o for o in log.orders().values() if o.state == until), None)
        if found is not None:
            return found
    return None


def test_a_responder_gets_to_the_scene_to_the_hospital_and_home(city: City, world: World) -> None:
    log = Log(city)
    now = NIGHT_S * 1000
    place = Place(zone="", lon=13.5385, lat=52.4334)
    report = ReportIncident(id="r1", person="operator-1", issued_ms=now, expires_ms=now + 15_000,
                            kind="crash", place=place)  # fmt: skip
    log.write(report, wall_ms=now)
    (order,) = log.orders().values()
    assert order.state == "sent"
    arrived = drive(world, log, 600, "on-scene")
    assert arrived is not None
    assert arrived.degraded == ""
    assert arrived.on_scene_ms is not None
    expected_s = (arrived.first_eta_ms - arrived.sent_ms) / 1000
    took_s = (arrived.on_scene_ms - arrived.sent_ms) / 1000
    assert 0.5 * expected_s < took_s < expected_s + 200, "free road, red lights"
    assert drive(world, log, 300, "transporting") is not None
    done = drive(world, log, 900, "done")
    assert done is not None
    assert log.responders()[done.responder].status == "free"
    assert [i.state for i in log.incidents().values()] == ["closed"]


def test_a_closed_road_turns_a_responder_round_on_its_way(city: City, world: World) -> None:
    log = Log(city)
    now = NIGHT_S * 1000
    place = Place(zone="", lon=13.5222, lat=52.4312)
    log.write(
        ReportIncident(id="r1", person="operator-1", issued_ms=now, expires_ms=now + 15_000,
                       kind="crash", place=place), wall_ms=now,
    )  # fmt: skip
    (order,) = log.orders().values()
    drive(world, log, 10, "on-scene")
    shut = one_with_a_way_round(city, log.orders()[order.id])
    log.write(
        CloseRoad(id="c1", person="operator-1", issued_ms=now, expires_ms=now + 60_000,
                  link=shut, until_ms=now + 3_600_000), wall_ms=now,
    )  # fmt: skip
    changed = log.orders()[order.id]
    assert changed.reroutes == 1
    assert shut not in changed.route
    arrived = drive(world, log, 900, "on-scene")
    assert arrived is not None
    assert arrived.id == order.id


def one_with_a_way_round(city: City, order: Order) -> str:
    """A link of a route, the last possible, without which the goal can still be reached."""
    roads = roads_of(city.links)
    goal, first = roads.index[order.route[-1]], roads.index[order.route[0]]
    for link in reversed(order.route[2:-1]):
        closed = np.zeros(len(roads.names), bool)
        closed[roads.index[link]] = True
        if roads.route(roads.goal(goal, 1.0, roads.free_s, closed), first, 0.0, roads.free_s):
            return link
    raise AssertionError("every link of the route is the only way")
