"""Area detectors of a running SUMO simulation, as short of the truth as real ones."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from citybrain.signals import Area, Degraded, DetectorState


class AreaDetectors:
    """Reads all areas every interval and hands the states over when they would arrive."""

    def __init__(self, areas: Sequence[Area], degraded: Degraded, rng: np.random.Generator) -> None:
        self._areas = [area.id for area in areas]
        self._degraded = degraded
        self._rng = rng
        self._under_way: deque[tuple[int, dict[str, DetectorState]]] = deque()

    def read(self, sumo: Any, now_s: int) -> dict[str, DetectorState]:
        """States that arrive now."""
        told = self._degraded
        if now_s % told.interval_s == 0:
            lost = self._rng.random(len(self._areas)) < told.lost
            found = {}
            for name, gone in zip(self._areas, lost, strict=True):
                if gone:
                    continue
                present = sumo.lanearea.getLastStepVehicleNumber(name)
                standing = sumo.lanearea.getLastStepHaltingNumber(name)
                touched = sumo.lanearea.getLastIntervalVehicleNumber(name)
                left = max(0, touched - present) if touched > 0 else 0
                seen = int(self._rng.binomial(present, 1 - told.missed)) if present else 0
                found[name] = DetectorState(
                    detector=name, at_ms=now_s * 1000,
                    expires_ms=(now_s + 4 * told.interval_s) * 1000,
                    passed=left, occupancy=0.0, present=seen, waiting=min(seen, standing),
                )  # fmt: skip
            self._under_way.append((now_s + told.delay_s, found))
        arrived: dict[str, DetectorState] = {}
        while self._under_way and self._under_way[0][0] <= now_s:
            arrived |= self._under_way.popleft()[1]
        return arrived
