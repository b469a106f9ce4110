"""Detectors that fail: what a dead, stuck or chattering device sends instead of the truth."""

from collections.abc import Iterable, Sequence

import numpy as np

from citybrain.edge.world.schedule import Event

Reading = tuple[str, str, int, float]
"""(sensor, kind, time in UTC ms, value)."""


class Faults:
    """Bends readings. Keeps what a stuck device last said before it stuck."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.held: dict[str, dict[str, float]] = {}

    def bend(self, readings: Sequence[Reading], events: Iterable[Event]) -> list[Reading]:
        """The readings as devices with these faults would send them.

        dead: nothing. stuck: the values that it had when it stuck, with fresh times; a
        device that saw nothing at that moment sticks at what a passing car reads.
        chattering: a reading every second, jumping.
        """
        wrong = {e.sensor: e for e in events if e.sensor}
        self.held = {s: kept for s, kept in self.held.items() if s in wrong}
        bent: list[Reading] = []
        for reading in readings:
            fault = wrong.get(reading[0])
            if fault is None or not fault.active(reading[2]):
                bent.append(reading)
            elif fault.what == "stuck":
                bent.append(self._stuck(reading))
            elif fault.what == "chattering":
                bent += self._chatter(reading)
        return bent

    def _stuck(self, reading: Reading) -> Reading:
        sensor, kind, time_ms, value = reading
        if value == 0.0:
            value = {"vehicle_count": 3.0, "occupancy": 12.4}.get(kind, value)
        held = self.held.setdefault(sensor, {}).setdefault(kind, value)
        return (sensor, kind, time_ms, held)

    def _chatter(self, reading: Reading) -> list[Reading]:
        sensor, kind, time_ms, value = reading
        rng = np.random.default_rng((self._seed, time_ms // 1000, sum(sensor.encode())))
        scale = max(1.0, value)
        sent = []
        for back in range(9, 0, -1):
            jump = float(np.round(scale * rng.choice([0.0, 0.5, 1.0, 2.0]) * rng.random()))
            sent.append((sensor, kind, time_ms - back * 1000, jump))
        return [*sent, reading]
