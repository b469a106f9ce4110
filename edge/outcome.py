"""What a simulated run was like, from SUMO's own records of trips and routes."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from citybrain.signals import Junction, Refusal


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One run. Times in s.

    delays: time loss + departure delay of every scheduled vehicle; those still running count
    as at the end, those never let in count their whole wait. side_p95_s: 95th percentile of
    the time lost on an approach that is not its junction's busiest. pedestrian_p95_s: of the
    wait at signalled crossings (0 without pedestrians). turns: vehicles by pair of edges.
    """

    controller: str
    seed: int
    delays: list[float]
    arrived: int
    never_inserted: int
    stops: float
    side_p95_s: float
    pedestrian_p95_s: float = 0.0
    gridlocked: bool = False
    turns: dict[tuple[str, str], int] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def vehicles(self) -> int:
        """Scheduled vehicles."""
        return len(self.delays)

    @property
    def mean_delay_s(self) -> float:
        """Mean delay over all scheduled vehicles."""
        return float(np.mean(self.delays)) if self.delays else 0.0

    @property
    def p95_delay_s(self) -> float:
        """95th percentile of the delay over all scheduled vehicles."""
        return percentile(self.delays)


def percentile(values: Sequence[float], q: float = 95.0) -> float:
    """A percentile; 0 of nothing."""
    return float(np.percentile(values, q)) if len(values) else 0.0


def measure(
    trips: Path,
    routes: Path,
    controller: str,
    seed: int,
    junctions: Sequence[Junction],
    free_s: Mapping[str, float],
) -> Outcome:
    """From `--tripinfo-output` and `--vehroute-output` (with exit times). free_s: edge -> the
    time that it takes when nothing is in the way."""
    delays: list[float] = []
    arrived = never = 0
    stops = 0.0
    for _, trip in ET.iterparse(trips):
        if trip.tag != "tripinfo":
            continue
        delays.append(float(trip.get("timeLoss", 0)) + max(0.0, float(trip.get("departDelay", 0))))
        stops += float(trip.get("waitingCount", 0))
        arrived += float(trip.get("arrival", -1)) >= 0
        never += float(trip.get("depart", -1)) < 0
        trip.clear()
    lost, turns = _by_edge(routes, free_s)
    return Outcome(
        controller=controller, seed=seed, delays=delays, arrived=arrived, never_inserted=never,
        stops=stops / max(1, len(delays)), side_p95_s=percentile(_side(junctions, lost)),
        turns=dict(turns),
    )  # fmt: skip


def _by_edge(
    routes: Path, free_s: Mapping[str, float]
) -> tuple[dict[str, list[float]], Counter[tuple[str, str]]]:
    """Edge -> time lost there by each vehicle; pair of edges -> vehicles that went so."""
    lost: dict[str, list[float]] = {}
    turns: Counter[tuple[str, str]] = Counter()
    for _, vehicle in ET.iterparse(routes):
        if vehicle.tag != "vehicle":
            continue
        route = vehicle.findall(".//route")
        if not route:
            continue
        edges = str(route[-1].get("edges")).split()
        exits = [float(t) for t in str(route[-1].get("exitTimes", "")).split()]
        begun = float(vehicle.get("depart", 0))
        for number, (edge, left) in enumerate(zip(edges, exits, strict=False)):
            if left < 0:
                break
            lost.setdefault(edge, []).append(max(0.0, left - begun - free_s.get(edge, 0.0)))
            if number + 1 < len(edges):
                turns[edge, edges[number + 1]] += 1
            begun = left
        vehicle.clear()
    return lost, turns


def _side(junctions: Sequence[Junction], lost: Mapping[str, list[float]]) -> list[float]:
    """Times lost on all approaches but each junction's busiest one."""
    found: list[float] = []
    for junction in junctions:
        edges = sorted({edge_of(lane) for m in junction.movements for lane in m.lanes_in})
        edges = [edge for edge in edges if not edge.startswith(":")]
        busiest = max(edges, key=lambda edge: len(lost.get(edge, ())), default="")
        for edge in edges:
            if edge != busiest:
                found.extend(lost.get(edge, ()))
    return found


def edge_of(lane: str) -> str:
    """The edge that a lane's id belongs to."""
    return lane.rpartition("_")[0]
