"""Which trips emergency vehicles make on a scenario: pairs of its own demand that cross the most
signals, at times spread over the run."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from citybrain.edge.closed_loop import Scenario
from citybrain.errors import UsageError
from citybrain.models.emergency.ahead import Signals
from citybrain.models.routing import Roads
from citybrain.signals import Junction

CLASSES = ("emergency", "passenger")
_PAIRS = 400
_WARM_UP, _LAST = 1 / 6, 3 / 4
"""Shares of the run between which trips begin: the streets are filled, and there is time left."""


@dataclass(frozen=True, slots=True)
class Trip:
    """One emergency drive. second: simulated time at which it sets out."""

    name: str
    route: tuple[str, ...]
    second: int
    signals: int


def network_roads(net_file: Path) -> Roads:
    """The roads of a SUMO network that emergency vehicles may use, with its allowed turns."""
    import sumolib

    net = sumolib.net.readNet(str(net_file))
    edges = [e for e in net.getEdges() if not e.getFunction() and _usable(e.getLanes())]
    names = {edge.getID() for edge in edges}
    turns = {edge.getID(): _beyond(edge) & names for edge in edges}
    return Roads(
        [edge.getID() for edge in edges],
        [float(edge.getLength()) for edge in edges],
        [max(1.0, float(edge.getSpeed())) for edge in edges],
        turns,
    )


def _beyond(edge: Any) -> set[str]:
    return {
        way.getTo().getID()
        for ways in edge.getOutgoing().values()
        for way in ways
        if _usable([way.getFromLane()]) and _usable([way.getToLane()])
    }


def _usable(lanes: Iterable[Any]) -> bool:
    return any(lane.allows(kind) for lane in lanes for kind in CLASSES)


def choose(
    scenario: Scenario, roads: Roads, junctions: Sequence[Junction], count: int, seed: int
) -> list[Trip]:
    """`count` trips on the pairs that cross most signals; the seed shifts their times.

    Raises UsageError if no pair of the demand crosses one.
    """
    signals = Signals({junction.id: junction for junction in junctions})
    closed = np.zeros(len(roads.names), bool)
    found = []
    for (origin, end), often in _pairs(scenario.routes, roads.index).most_common(_PAIRS):
        at = roads.index[end]
        goal = roads.goal(at, float(roads.length_m[at]), roads.free_s, closed)
        route = roads.route(goal, roads.index[origin], 0.0, roads.free_s)
        if route is None or len(route.links) < 2:
            continue
        crossed = sum(1 for _ in signals.along(route.links))
        if crossed:
            found.append((-crossed, -often, origin, end, route.links))
    if not found:
        raise UsageError("--routes: no trip in them crosses a signal")
    best = sorted(found)[:count]
    length_s = scenario.end_s - scenario.begin_s
    first = scenario.begin_s + _WARM_UP * length_s
    gap = (_LAST - _WARM_UP) * length_s / count
    rng = np.random.default_rng((seed, 911))
    return [
        Trip(
            name=f"emergency-{number}",
            route=links,
            second=round(first + gap * (number + float(rng.random()))),
            signals=-crossed,
        )
        for number, (crossed, _, _, _, links) in enumerate(
            best[i % len(best)] for i in range(count)
        )
    ]


def _pairs(files: Iterable[Path], known: Collection[str]) -> Counter[tuple[str, str]]:
    """(first link, last link) -> how often it is in the demand."""
    pairs: Counter[tuple[str, str]] = Counter()
    for path in files:
        routes: dict[str, tuple[str, str]] = {}
        try:
            for _, element in ET.iterparse(path):
                if element.tag == "route" and element.get("id"):
                    edges = str(element.get("edges")).split()
                    routes[str(element.get("id"))] = (edges[0], edges[-1])
                if element.tag not in ("trip", "vehicle", "flow"):
                    continue
                inner = element.find("route")
                pair: tuple[str, str] | None = None
                if inner is not None and inner.get("edges"):
                    edges = str(inner.get("edges")).split()
                    pair = (edges[0], edges[-1])
                elif element.get("from") and element.get("to"):
                    pair = (str(element.get("from")), str(element.get("to")))
                elif element.get("route"):
                    pair = routes.get(str(element.get("route")))
                if pair and pair[0] != pair[1] and pair[0] in known and pair[1] in known:
                    pairs[pair] += int(float(element.get("number", "1")))
                element.clear()
        except (ET.ParseError, OSError, ValueError, IndexError) as error:
            raise UsageError(f"--routes: {path}: {error}") from error
    return pairs
