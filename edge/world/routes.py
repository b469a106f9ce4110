"""Where traffic comes from and goes to, for the pack's world.toml.

Needs a running simulator (libsumo) that has the network loaded: only places that cars can
reach from a main entry, and leave again, may draw trips.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from citybrain.edge.world.layout import Installed
from citybrain.edge.world.network import Network, car_lanes, middle
from citybrain.edge.world.places import STADIUM

_DRAWS = {
    "highway.primary": 4.0,
    "highway.secondary": 3.0,
    "highway.tertiary": 2.0,
    "highway.unclassified": 0.8,
    "highway.residential": 0.5,
    "highway.living_street": 0.2,
}
_BUILT_UP = ("highway.unclassified", "highway.residential", "highway.living_street")
MAIN_ENTRY, MAIN_EXIT = "318210356", "143308532#5"
STATION = (1990.0, 1210.0)
STOP_EVERY_M = 350.0

# Generated lines along the main streets: entry and exit of each.
BUS_LINES = (
    ("bus-a", "46039050#0", "40191607#1"),
    ("bus-b", "318210356", "143308532#5"),
    ("bus-c", "70130339#0", "-314415495#0"),
    ("bus-d", "314415495#0", "334308447#2"),
    ("bus-e", "48858193#0", "-190083616"),
)


def world_file(network: Network, sensors: Iterable[Installed], flows: Mapping[str, int]) -> str:
    """What the simulated world alone needs: where devices hang, where traffic comes and goes."""
    entries = [e for e in network.entries if e.getType() in _DRAWS and _way(e.getID(), MAIN_EXIT)]
    exits = [e for e in network.exits if e.getType() in _DRAWS and _way(MAIN_ENTRY, e.getID())]
    doors = {e.getID() for e in entries + exits}
    inside = [
        e
        for e in network.roads
        if e.getType() in _BUILT_UP
        and e.getLength() >= 40
        and e.getID() not in doors
        and _way(MAIN_ENTRY, e.getID())
        and _way(e.getID(), MAIN_EXIT)
    ]
    paths = [e for e in network.roads if e.allows("pedestrian") and e.getLength() >= 30]
    stadium = min(inside, key=lambda e: math.dist(middle(e), (STADIUM.x, STADIUM.y)))
    lines = ["# Written by citybrain.edge.world.build: the simulated world's side of the pack."]
    lines += _ends("entries", entries, [_door(e) for e in entries])
    lines += _ends("exits", exits, [_door(e) for e in exits])
    lines += _ends("inside", inside, [e.getLength() / 100 for e in inside])
    lines += _ends("paths", paths, [_walks(e) for e in paths])
    lines += ["", "[stadium]", f'edge = "{stadium.getID()}"', *_point(middle(stadium))]
    lines += ["", "[lights]"]
    lines += [f'ctl-{n:02d} = "{light}"' for n, light in enumerate(network.lights, 1)]
    for name, start, end in BUS_LINES:
        edges = _way(start, end)
        lines += ["", "[[buses]]", f'name = "{name}"', f"edges = {json.dumps(edges)}"]
        lines += [f"stops = {json.dumps(_stops(network, edges))}"]
    for s in sensors:
        lines += ["", f'[sensors."{s.id}"]', *_point((s.x, s.y))]
        if s.lane:
            lines += [f'lane = "{s.lane}"', f"pos_m = {s.pos_m}", f"flow = {flows.get(s.id, 0)}"]
        if s.edge:
            lines += [f'edge = "{s.edge}"']
    return "\n".join(lines) + "\n"


def _ends(name: str, edges: Sequence[Any], weights: Sequence[float]) -> list[str]:
    points = [middle(e) for e in edges]
    return [
        "",
        f"[{name}]",
        f"edges = {json.dumps([e.getID() for e in edges])}",
        f"weights = {json.dumps([round(w, 3) for w in weights])}",
        f"x = {json.dumps([round(x) for x, _ in points])}",
        f"y = {json.dumps([round(y) for _, y in points])}",
    ]


def _point(at: tuple[float, float]) -> list[str]:
    return [f"x = {at[0]:.1f}", f"y = {at[1]:.1f}"]


def _door(edge: Any) -> float:
    return float(_DRAWS[edge.getType()] * len(car_lanes(edge)) ** 0.5)


def _walks(edge: Any) -> float:
    """People walk most around the suburban railway's station."""
    nearness = math.exp(-math.dist(middle(edge), STATION) / 300)
    return float(edge.getLength() / 100 * (0.3 + 5 * nearness))


def _way(start: str, end: str) -> list[str]:
    import libsumo

    return list(libsumo.simulation.findRoute(start, end).edges)


def _stops(network: Network, edges: Sequence[str]) -> list[str]:
    """Edges of a bus line with room for a stop, some way apart, none before a signal."""
    before_signal = {a.getEdge().getID() for lanes in network.lights.values() for a in lanes}
    stops, since = [], 0.0
    for name in edges[1:-1]:
        edge = network.net.getEdge(name)
        since += edge.getLength()
        if since >= STOP_EVERY_M and edge.getLength() >= 45 and name not in before_signal:
            stops.append(name)
            since = 0.0
    return stops
