"""What traffic lights do to people, measured on a running simulation: live beside its twin.

Delay is time lost against the lane's permitted speed, plus every second that a vehicle waits
to be let into the network: over a window its sum by the vehicles that arrived in it. Rolling,
in whole minutes, so that two runs of the same demand can be compared at any moment.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from citybrain.signal_log import Measured
from citybrain.signals import Junction

WINDOW_MIN = 15
_SLICE_S = 60
_STANDING_M_S = 0.1


@dataclass(slots=True)
class _Slice:
    """A minute's sums."""

    seconds: int = 0
    lost_s: float = 0.0
    departed: int = 0
    arrived: int = 0
    stops: int = 0
    queue_s: int = 0
    side: list[float] = field(default_factory=list)
    walks: list[float] = field(default_factory=list)


class Measures:
    """Call `look` once a second, after the simulation's step."""

    def __init__(self, junctions: Iterable[Junction], window_min: int = WINDOW_MIN) -> None:
        self._approach = {
            lane.rpartition("_")[0]: junction.id
            for junction in junctions
            for move in junction.movements
            if move.detectors
            for lane in move.lanes_in
        }
        self._passed: Counter[str] = Counter()
        self._standing: set[str] = set()
        self._on: dict[str, tuple[str, int]] = {}  # vehicle -> approach and seconds stood there
        self._slices: deque[_Slice] = deque([_Slice()], maxlen=window_min)
        self._begun_ms = 0

    def look(self, sumo: Any, at_ms: int, waits: Sequence[float] = ()) -> None:
        """A second has passed. waits: of people on foot that have ended within it, in s."""
        self._begun_ms = self._begun_ms or at_ms
        if self._slices[-1].seconds >= _SLICE_S:
            self._slices.append(_Slice())
        now = self._slices[-1]
        now.seconds += 1
        now.departed += sumo.simulation.getDepartedNumber()
        now.arrived += sumo.simulation.getArrivedNumber()
        now.walks += waits
        now.lost_s += len(sumo.simulation.getPendingVehicles())
        vehicles = sumo.vehicle
        standing: set[str] = set()
        on: dict[str, tuple[str, int]] = {}
        for name in vehicles.getIDList():
            speed = vehicles.getSpeed(name)
            now.lost_s += max(0.0, 1.0 - speed / max(vehicles.getAllowedSpeed(name), 1.0))
            edge = vehicles.getRoadID(name)
            stands = speed < _STANDING_M_S
            if stands:
                standing.add(name)
            if edge in self._approach:
                before, stood = self._on.get(name, (edge, 0))
                on[name] = (edge, stood * (before == edge) + stands)
                now.queue_s += stands
        busiest = self._busiest()
        for name, (edge, stood) in self._on.items():
            if on.get(name, ("", 0))[0] != edge:
                self._passed[edge] += 1
                if edge not in busiest:
                    now.side.append(float(stood))
        now.stops += len(standing - self._standing)
        self._standing, self._on = standing, on

    def figures(self, run: str, at_ms: int, running: int, pending: int) -> Measured:
        """Of the last quarter of an hour, as far as this run has lived."""
        rows = list(self._slices)
        seconds = max(1, sum(row.seconds for row in rows))
        arrived = sum(row.arrived for row in rows)
        return Measured(
            run=run,
            from_ms=self._begun_ms,
            through_ms=at_ms,
            window_s=seconds,
            delay_s=round(sum(row.lost_s for row in rows) / max(1, arrived), 1),
            arrived_h=round(arrived * 3600 / seconds),
            stops=round(sum(row.stops for row in rows) / max(1, arrived), 2),
            queue=round(sum(row.queue_s for row in rows) / seconds, 1),
            side_p95_s=_p95([s for row in rows for s in row.side]),
            walk_p95_s=_p95([s for row in rows for s in row.walks]),
            running=running,
            pending=pending,
        )

    def _busiest(self) -> set[str]:
        """Each junction's approach that most vehicles have passed."""
        best: dict[str, str] = {}
        for edge, junction in self._approach.items():
            if junction not in best or self._passed[edge] > self._passed[best[junction]]:
                best[junction] = edge
        return set(best.values())


def _p95(values: Sequence[float]) -> float | None:
    return round(float(np.percentile(values, 95)), 1) if values else None
