"""`emergency.toml` of the built-in city: stations at its facilities, responders. Generated."""

from collections.abc import Callable
from typing import Any

import msgspec

from citybrain.edge.world.network import CAR, Network
from citybrain.edge.world.places import FACILITIES, Spot
from citybrain.emergency_file import Base, Emergency, FromAlert, Responder

# Two crews in ten minutes' reach of everything, and one that stands in for them.
RESPONDERS = (
    ("amb-1", "ambulance", "f-ambulance"),
    ("amb-2", "ambulance", "f-hospital"),
    ("amb-3", "ambulance", "f-fire"),
    ("fire-1", "fire-engine", "f-fire"),
    ("fire-2", "fire-engine", "f-fire"),
)

NEEDS = {
    "crash": ["ambulance"],
    "fire": ["fire-engine", "ambulance"],
    "medical": ["ambulance"],
    "flood": ["fire-engine"],
}


def turns(network: Network) -> dict[str, list[str]]:
    """Link -> links that a car may drive on to from its end."""
    found = {}
    for edge in network.roads:
        beyond = {
            way.getTo().getID()
            for ways in edge.getOutgoing().values()
            for way in ways
            if way.getFromLane().allows(CAR) and way.getToLane().allows(CAR)
        }
        found[edge.getID()] = sorted(beyond & {e.getID() for e in network.roads})
    return found


def emergency_file(network: Network, degrees: Callable[[float, float], tuple[float, float]]) -> str:
    """The file's text. A station stands on the nearest road from which, and to which, one can
    drive everywhere."""
    core = _core(turns(network))
    roads = [edge for edge in network.roads if edge.getID() in core and edge.getLength() > 30]
    bases = {spot.id: _base(spot, roads, degrees) for _, spot in FACILITIES}
    hospitals = [bases[spot.id] for kind, spot in FACILITIES if kind == "hospital"]
    told = Emergency(
        alerts={"incident": FromAlert(kind="crash", confidence=0.6, least=4)},
        needs=NEEDS,
        station=list(bases.values()),
        hospital=hospitals,
        responder=[
            Responder(id=name, kind=kind, station=at, generated=True)
            for name, kind, at in RESPONDERS
        ],
    )
    head = "# Written by citybrain.edge.world.build. Stations and responders are generated.\n\n"
    return head + msgspec.toml.encode(told).decode()


def _core(ways: dict[str, list[str]]) -> set[str]:
    """Links of the largest part in which everything can be reached from everything."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    index = {name: i for i, name in enumerate(ways)}
    pairs = [(index[a], index[b]) for a, beyond in ways.items() for b in beyond]
    one, other = zip(*pairs, strict=True)
    graph = csr_array(([1] * len(pairs), (one, other)), shape=(len(index), len(index)))
    _, part = connected_components(graph, directed=True, connection="strong")
    sizes = [int((part == p).sum()) for p in range(part.max() + 1)]
    return {name for name, i in index.items() if part[i] == sizes.index(max(sizes))}


def _base(
    spot: Spot, roads: list[Any], degrees: Callable[[float, float], tuple[float, float]]
) -> Base:
    import sumolib

    def apart(edge: Any) -> tuple[float, str]:
        return sumolib.geomhelper.distancePointToPolygon(
            (spot.x, spot.y), edge.getShape()
        ), edge.getID()

    edge = min(roads, key=apart)
    offset = sumolib.geomhelper.polygonOffsetWithMinimumDistanceToPoint(
        (spot.x, spot.y), edge.getShape()
    )
    pos = min(max(float(offset), 15.0), float(edge.getLength()) - 10.0)
    x, y = sumolib.geomhelper.positionAtShapeOffset(edge.getShape(), pos)
    lon, lat = degrees(x, y)
    return Base(id=spot.id, link=edge.getID(), pos_m=round(pos, 1), lon=lon, lat=lat,
                zh=spot.zh, en=spot.en, generated=True)  # fmt: skip
