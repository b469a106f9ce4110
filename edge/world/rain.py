"""A rain field that moves over the city: Gaussian cells, each carried by the wind.

Pure and without state: the field at any time follows from the seed, so past days, the living
world and a restart see the same rain. Plane in metres, time in UTC ms, rain in mm/h.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

HOUR_MS = 3_600_000
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A shower. x, y: where its core is half-way through its life; u, v: its drift in m/s."""

    from_ms: int
    to_ms: int
    x: float
    y: float
    u: float
    v: float
    radius_m: float
    peak_mm_h: float
    ramp_ms: int = 10 * 60_000

    def rate(self, x: Array, y: Array, time_ms: int) -> Array:
        """Rain at points, mm/h. Grows within `ramp_ms`, ends the same way."""
        if not self.from_ms <= time_ms < self.to_ms:
            return np.zeros_like(x)
        since = (time_ms - (self.from_ms + self.to_ms) / 2) / 1000
        dx = x - (self.x + self.u * since)
        dy = y - (self.y + self.v * since)
        left = min(time_ms - self.from_ms, self.to_ms - time_ms)
        envelope = min(1.0, left / self.ramp_ms)
        return np.asarray(
            self.peak_mm_h * envelope * np.exp(-(dx**2 + dy**2) / (2 * self.radius_m**2))
        )


def cloudburst(from_ms: int, to_ms: int, x: float, y: float, peak_mm_h: float) -> Cell:
    """A slow cell over a point at its onset, as those that flood streets: full within 20 s."""
    u, v = 1.2, 0.6
    half = (to_ms - from_ms) / 2000
    return Cell(
        from_ms=from_ms, to_ms=to_ms, x=x + u * half, y=y + v * half, u=u, v=v,
        radius_m=700.0, peak_mm_h=peak_mm_h, ramp_ms=20_000,
    )  # fmt: skip


class RainField:
    """Fronts that come by chance, some cells each; in the mean some 550 mm a year."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._cells = lru_cache(maxsize=256)(self._born)

    def rate(self, x: Array, y: Array, time_ms: int, extra: Iterable[Cell] = ()) -> Array:
        """Rain at points, mm/h."""
        total = np.zeros_like(x)
        now = time_ms // HOUR_MS
        for born in range(now - 3, now + 1):
            for cell in self._cells(born):
                total += cell.rate(x, y, time_ms)
        for cell in extra:
            total += cell.rate(x, y, time_ms)
        return np.where(total < 0.05, 0.0, total)

    def _born(self, hour: int) -> tuple[Cell, ...]:
        rng = np.random.default_rng((self._seed, hour, 3))
        if rng.random() > 0.07:
            return ()
        speed, heading = rng.uniform(2, 8), rng.normal(0.3, 0.5)
        u, v = float(speed * np.cos(heading)), float(speed * np.sin(heading))
        cells = []
        for _ in range(1 + rng.poisson(3)):
            begin = hour * HOUR_MS + int(rng.uniform(0, HOUR_MS))
            cells.append(
                Cell(
                    from_ms=begin,
                    to_ms=begin + int(rng.uniform(0.4, 2.0) * HOUR_MS),
                    x=float(rng.normal(1400, 2500)),
                    y=float(rng.normal(750, 2500)),
                    u=u,
                    v=v,
                    radius_m=float(rng.uniform(700, 3500)),
                    peak_mm_h=float(min(30.0, rng.exponential(5.0))),
                )
            )
        return tuple(cells)
