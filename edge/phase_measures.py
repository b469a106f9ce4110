"""The traffic engineer's measures of each junction, by the names of ATSPM (UDOT; FHWA-HOP-20-002).

Arrivals on green: share of the vehicles that reach the stop line's area while its lamp is
green. Split failure (Freije and others, Transportation Research Record 2438, 2014): a green
whose stop bar was occupied for at least 80 % of it and of the first five seconds of red after.
Phase wait: from the first call at red to green.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from citybrain.signal_log import PhaseMeasures
from citybrain.signals import Junction, Lamp

_BAR_M = 12.0
_RED_S = 5
_OCCUPIED = 0.79
WINDOW_S = 900


@dataclass(slots=True)
class _Phase:
    """One vehicle group: its stop-line areas, and what runs on in its cycle."""

    areas: list[str]
    seen: set[str] = field(default_factory=set)
    green_s: int = 0
    green_occupied: int = 0
    red_s: int = 0
    red_occupied: int = 0
    called_s: int | None = None
    failing: bool = False


class PhaseMeterer:
    """One junction. `look` once a second, before the lamps change."""

    def __init__(self, junction: Junction) -> None:
        self.junction = junction.id
        walks = {g.id for g in junction.table.groups if g.kind == "pedestrian"}
        self._phases: dict[str, _Phase] = {}
        for move in junction.movements:
            if move.group not in walks and move.detectors:
                phase = self._phases.setdefault(move.group, _Phase([]))
                if move.detectors[0] not in phase.areas:
                    phase.areas.append(move.detectors[0])
        ends = {area.id: area.end_m for area in junction.areas}
        self._ends = ends
        self._events: deque[tuple[int, str, float]] = deque()

    def look(self, sumo: Any, second: int, lamps: Mapping[str, Lamp]) -> None:
        """A second with these lamps begins."""
        while self._events and self._events[0][0] <= second - WINDOW_S:
            self._events.popleft()
        for group, phase in self._phases.items():
            here: set[str] = set()
            occupied = False
            for area in phase.areas:
                for name in sumo.lanearea.getLastStepVehicleIDs(area):
                    here.add(name)
                    gap = self._ends[area] - sumo.vehicle.getLanePosition(name)
                    occupied |= gap <= _BAR_M
            green = lamps[group] == "green"
            for _ in here - phase.seen:
                self._events.append((second, "arrival", float(green)))
            phase.seen = here
            self._cycle(phase, second, green, occupied)

    def _cycle(self, phase: _Phase, second: int, green: bool, occupied: bool) -> None:
        if green:
            if phase.red_s:
                if phase.called_s is not None:
                    self._events.append((second, "wait", float(second - phase.called_s)))
                phase.red_s = phase.red_occupied = phase.green_s = phase.green_occupied = 0
                phase.called_s = None
            phase.green_s += 1
            phase.green_occupied += occupied
            return
        if not phase.red_s:
            phase.failing = phase.green_occupied > _OCCUPIED * max(1, phase.green_s)
        phase.red_s += 1
        if occupied:
            phase.red_occupied += phase.red_s <= _RED_S
            phase.called_s = second if phase.called_s is None else phase.called_s
        if phase.red_s == _RED_S and phase.green_s:
            failed = phase.failing and phase.red_occupied > _OCCUPIED * _RED_S
            self._events.append((second, "split", float(failed)))

    def figures(self) -> PhaseMeasures:
        """Of the last quarter of an hour; None where nothing happened."""
        found: dict[str, list[float]] = {"arrival": [], "split": [], "wait": []}
        for _, what, value in self._events:
            found[what].append(value)
        arrivals, waits = found["arrival"], found["wait"]
        return PhaseMeasures(
            junction=self.junction,
            arrivals=len(arrivals),
            arrivals_on_green=round(sum(arrivals) / len(arrivals), 3) if arrivals else None,
            phases=len(found["split"]),
            split_failures=round(sum(found["split"])),
            phase_wait_s=round(sum(waits) / len(waits), 1) if waits else None,
        )
