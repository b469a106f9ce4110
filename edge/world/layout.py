"""Which sensors stand where: detectors, counting stations, pedestrian counters, stations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from citybrain.edge.world.network import Network, car_lanes, middle, plain
from citybrain.edge.world.places import AIR, WEATHER, ZONES, zone_at

LOOP_KINDS = ("vehicle_count", "occupancy", "vehicle_speed")
WEATHER_KINDS = (
    "temperature", "relative_humidity", "precipitation", "wind_speed", "atmospheric_pressure",
)  # fmt: skip
AIR_KINDS = ("pm25", "pm10", "so2", "no2", "co", "o3", "noise_level")

# A loop this far before the stop line sees moving traffic in an undisturbed cycle and a
# standing queue when there is one. On shorter lanes cars stand at every red: such a loop only
# counts, its speeds and occupancies would look like a jam.
SETBACK_M = 40.0
LEAST_SETBACK_M = 25.0
COUNTING_MIN_M = 50.0
COUNTING_PER_ZONE = 12
COUNTERS_PER_LIGHT = 2
_RANK = ("highway.primary", "highway.secondary", "highway.tertiary", "highway.unclassified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A sensor of the pack and what it hangs on in the simulator.

    lane, pos_m: of a loop. edge: of a pedestrian crossing, or the road that an air station
    stands at. x, y: metres in the network's plane.
    """

    id: str
    kinds: tuple[str, ...]
    zone: str
    gateway: str
    x: float
    y: float
    link: str = ""
    name: str = ""
    lane: str = ""
    pos_m: float = 0.0
    edge: str = ""


def installed(network: Network) -> Iterator[Installed]:
    """Every sensor of the city, gateway by gateway."""
    approaches = {lane.getEdge().getID() for lanes in network.lights.values() for lane in lanes}
    for number, light in enumerate(network.lights, 1):
        yield from _controller(network, light, f"ctl-{number:02d}")
    for zone in ZONES:
        for edge in _counting_edges(network, zone, approaches):
            for lane in car_lanes(edge):
                yield _loop(lane, lane.getLength() / 2, "cs", zone, f"count-{zone}")
    for spot in WEATHER:
        yield Installed(
            id=spot.id, kinds=WEATHER_KINDS, zone=zone_at(spot.x, spot.y), gateway="weather",
            x=spot.x, y=spot.y, name=f"{spot.zh} / {spot.en}",
        )  # fmt: skip
    for spot in AIR:
        edge = _nearest(network, spot.x, spot.y)
        yield Installed(
            id=spot.id, kinds=AIR_KINDS, zone=zone_at(spot.x, spot.y), gateway="air",
            x=spot.x, y=spot.y, link=edge.getID(), edge=edge.getID(),
            name=f"{spot.zh} / {spot.en}",
        )  # fmt: skip


def _controller(network: Network, light: str, gateway: str) -> Iterator[Installed]:
    lanes = network.lights[light]
    zone = zone_at(*lanes[0].getEdge().getToNode().getCoord())
    for lane in lanes:
        length = lane.getLength()
        pos = max(length - SETBACK_M, min(length / 2, 5.0))
        loop = _loop(lane, pos, "d", zone, gateway)
        yield loop if length - pos >= LEAST_SETBACK_M else replace(loop, kinds=LOOP_KINDS[:1])
    for number, crossing in enumerate(network.crossings(light)[:COUNTERS_PER_LIGHT], 1):
        road = next(e for e in crossing.getCrossingEdges())
        known = road.getID() if road.allows("passenger") else ""
        x, y = middle(crossing)
        yield Installed(
            id=f"p-{gateway}-{number}", kinds=("pedestrian_count",), zone=zone, gateway=gateway,
            x=x, y=y, link=known, name=road.getName(), edge=crossing.getID(),
        )  # fmt: skip


def _loop(lane: Any, pos: float, prefix: str, zone: str, gateway: str) -> Installed:
    import sumolib

    edge = lane.getEdge()
    x, y = sumolib.geomhelper.positionAtShapeOffset(lane.getShape(), pos)
    return Installed(
        id=f"{prefix}-{plain(edge.getID())}-{lane.getIndex()}",
        kinds=LOOP_KINDS,
        zone=zone,
        gateway=gateway,
        x=x,
        y=y,
        link=edge.getID(),
        name=edge.getName(),
        lane=lane.getID(),
        pos_m=round(pos, 2),
    )


def _counting_edges(network: Network, zone: str, taken: set[str]) -> list[Any]:
    """The most important long streets of a zone, one direction each way of the same street."""
    fitting = [
        e
        for e in network.roads
        if e.getType() in _RANK
        and e.getLength() >= COUNTING_MIN_M
        and e.getID() not in taken
        and zone_at(*middle(e)) == zone
    ]
    fitting.sort(key=lambda e: (_RANK.index(e.getType()), -e.getLength(), e.getID()))
    return fitting[:COUNTING_PER_ZONE]


def _nearest(network: Network, x: float, y: float) -> Any:
    near = network.net.getNeighboringEdges(x, y, 300)
    roads = [(d, e.getID(), e) for e, d in near if e.allows("passenger") and not e.getFunction()]
    return min(roads)[2]
