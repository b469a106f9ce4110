"""Who travels where, second by second. Pure: the same seed and second give the same trips.

Rates follow the local hour and whether the day is free; trips are drawn as they fall due, so
nothing is generated ahead and a world can be entered at any second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

# Vehicles an hour on the whole network at the middle of each local hour. The network carries
# 2,400 an hour freely and about 3,600 at its limit.
WORKING = (
    200, 160, 140, 140, 220, 480, 950, 1600, 1900, 1500, 1200, 1150,
    1250, 1250, 1350, 1600, 1900, 1950, 1600, 1150, 800, 600, 420, 280,
)  # fmt: skip
FREE = (
    280, 230, 190, 160, 160, 180, 240, 360, 560, 800, 1000, 1100,
    1150, 1150, 1150, 1200, 1250, 1200, 1100, 950, 750, 600, 480, 360,
)  # fmt: skip
WALKERS_PER_VEHICLE = 0.45
TRUCKS = 0.07

Mode = Literal["car", "truck", "walk"]


@dataclass(frozen=True, slots=True)
class Trip:
    """One person's or vehicle's way between two edges."""

    mode: Mode
    origin: str
    destination: str


@dataclass(frozen=True, slots=True)
class Ends:
    """Edges where trips begin or end, with how much each draws. x, y in metres."""

    edges: tuple[str, ...]
    weights: npt.NDArray[np.float64]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Surge:
    """Extra trips towards (or away from) one edge. per_hour: vehicles; as many walkers."""

    edge: str
    per_hour: float
    outwards: bool = False


def vehicles_per_hour(hour: float, free: bool) -> float:
    """The rate at a local time of day in hours (0 to 24), straight lines between mid-hours."""
    table = FREE if free else WORKING
    before = int(np.floor(hour - 0.5))
    share = hour - 0.5 - before
    return float(table[before % 24] * (1 - share) + table[(before + 1) % 24] * share)


class Demand:
    """Draws trips. `doors`: where cars come in and go out; `inside`: buildings; `paths`: walks."""

    def __init__(self, seed: int, entries: Ends, exits: Ends, inside: Ends, paths: Ends) -> None:
        self._seed = seed
        self._entries, self._exits, self._inside, self._paths = entries, exits, inside, paths

    def trips(
        self, second: int, hour: float, free: bool, surges: Sequence[Surge] = ()
    ) -> list[Trip]:
        """Trips that begin within one second. second: any integer that names it (UTC)."""
        rng = np.random.default_rng((self._seed, second))
        rate = vehicles_per_hour(hour, free)
        trips = [self._drive(rng, hour) for _ in range(rng.poisson(rate / 3600))]
        walks = rng.poisson(rate * WALKERS_PER_VEHICLE / 3600)
        trips += [self._walk(rng) for _ in range(walks)]
        for surge in surges:
            trips += [self._surge(rng, surge) for _ in range(rng.poisson(surge.per_hour / 3600))]
            for _ in range(rng.poisson(surge.per_hour / 3600)):
                near = self._near(rng, surge.edge)
                ends = (surge.edge, near) if surge.outwards else (near, surge.edge)
                trips.append(Trip("walk", *ends))
        return trips

    def _drive(self, rng: np.random.Generator, hour: float) -> Trip:
        mode: Mode = "truck" if rng.random() < TRUCKS else "car"
        # Half the traffic passes through; of the rest, mornings go in and evenings come out.
        inwards = float(np.clip(0.5 + (13.0 - hour) / 14.0, 0.2, 0.8))
        part = rng.random()
        if part < 0.5:
            origin, destination = self._entries, self._exits
        elif part < 0.94:
            coming = rng.random() < inwards
            origin = self._entries if coming else self._inside
            destination = self._inside if coming else self._exits
        else:
            origin = destination = self._inside
        start = _draw(rng, origin)
        far = np.hypot(destination.x - origin.x[start], destination.y - origin.y[start]) >= 800
        return Trip(mode, origin.edges[start], destination.edges[_draw(rng, destination, far)])

    def _walk(self, rng: np.random.Generator) -> Trip:
        start = _draw(rng, self._paths)
        edge = self._paths.edges[start]
        return Trip("walk", edge, self._near(rng, edge))

    def _near(self, rng: np.random.Generator, edge: str) -> str:
        paths = self._paths
        at = paths.edges.index(edge) if edge in paths.edges else 0
        away = np.hypot(paths.x - paths.x[at], paths.y - paths.y[at])
        return paths.edges[_draw(rng, paths, (away > 100) & (away < 700))]

    def _surge(self, rng: np.random.Generator, surge: Surge) -> Trip:
        door = self._exits if surge.outwards else self._entries
        other = door.edges[_draw(rng, door)]
        ends = (surge.edge, other) if surge.outwards else (other, surge.edge)
        return Trip("car", *ends)


def _draw(
    rng: np.random.Generator, ends: Ends, allowed: npt.NDArray[np.bool_] | None = None
) -> int:
    """An index by weight, among the allowed ones if there are any."""
    weights = ends.weights
    if allowed is not None and allowed.any():
        weights = np.where(allowed, weights, 0.0)
    total = np.cumsum(weights)
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))
