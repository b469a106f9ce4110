"""How a link flows: speed of the last minute or so over its free speed, and occupancy.

Classes follow the Highway Capacity Manual 2010, exhibit 16-4 (urban streets, travel speed
as a share of base free-flow speed): above 50 % smooth (levels of service A to C), above 40 %
slow (D), above 30 % jam (E), else heavy jam (F). Where no vehicle passes there is no speed:
an empty detector (occupancy below 10 %) means free flow, an occupied one (above 50 %) a
standing queue, anything between is not known.
"""

from typing import Literal

import numpy as np

from citybrain.kinds import MINUTE
from citybrain.models.block import Array, Arrays
from citybrain.models.seen import Seen

State = Literal["smooth", "slow", "jam", "heavy-jam", "unknown"]
STATES: tuple[State, ...] = ("smooth", "slow", "jam", "heavy-jam", "unknown")
UNKNOWN = 4
RATIOS = (0.5, 0.4, 0.3)
EMPTY, OCCUPIED = 10.0, 50.0

_MEMORY_MS = MINUTE  # longer than a signal cycle's red, shorter than a queue takes to form
_OLD_MS = 2 * MINUTE  # (or three windows); older news is no news


class Flow:
    """Decayed sums by link. Sensors of one link are taken together.

    link_of: kind -> index of the link [n] of each sensor of the kind, -1 for none.
    """

    def __init__(self, links: int, free_kmh: Array, link_of: dict[str, Array]) -> None:
        self._links = links
        self._free = free_kmh
        self._link_of = link_of

    def fresh(self) -> Arrays:
        """Nothing known of any link; the link is the first axis."""
        names = ("speed", "speed_weight", "occupancy", "occupancy_weight")
        return {name: np.zeros(self._links) for name in names} | {
            f"{name}_ms": np.full(self._links, -1, dtype=np.int64)
            for name in ("speed", "occupancy", "speed_heard", "occupancy_heard")
        }

    def take(self, state: Arrays, seen: Seen) -> None:
        """Fold in a window of `vehicle_speed` (by vehicles' readings) or `occupancy`."""
        name = "speed" if seen.kind.name == "vehicle_speed" else "occupancy"
        link = self._link_of[seen.kind.name]
        use = (link >= 0) & ~np.isnan(seen.value) & ~seen.parked
        # Means of a window count once, however many readings a detector sends.
        mass = np.bincount(link[use], minlength=self._links)
        total = np.bincount(link[use], seen.value[use], minlength=self._links)
        keep = np.where(
            state[f"{name}_ms"] < 0,
            0.0,
            np.exp(-np.maximum(seen.end_ms - state[f"{name}_ms"], 0) / _MEMORY_MS),
        )
        state[name][:] = state[name] * keep + total
        state[f"{name}_weight"][:] = state[f"{name}_weight"] * keep + mass
        state[f"{name}_ms"][:] = seen.end_ms
        heard = state[f"{name}_heard_ms"]
        heard[mass > 0] = seen.end_ms
        old = seen.end_ms - heard >= max(_OLD_MS, 3 * seen.window_ms)
        state[f"{name}_weight"][old] = 0.0
        state[name][old] = 0.0

    def ratios(self, state: Arrays) -> tuple[Array, Array, Array]:
        """Speed over free speed, speed (km/h), occupancy (%) by link; NaN where unknown."""
        speed = _mean(state["speed"], state["speed_weight"])
        occupancy = _mean(state["occupancy"], state["occupancy_weight"])
        ratio = np.asarray(speed / self._free)
        silent = np.isnan(ratio)
        ratio = np.where(silent & (occupancy < EMPTY), 1.0, ratio)
        ratio = np.where(silent & (occupancy > OCCUPIED), 0.0, ratio)
        return np.asarray(np.minimum(ratio, 1.0)), speed, occupancy


def _mean(total: Array, weight: Array) -> Array:
    known = weight > 0
    return np.asarray(np.divide(total, weight, out=np.full(len(total), np.nan), where=known))


def classes(ratio: Array) -> Array:
    """Index into `STATES` by link.

    >>> [STATES[i] for i in classes(np.array([0.9, 0.5, 0.35, 0.3, np.nan]))]
    ['smooth', 'slow', 'jam', 'heavy-jam', 'unknown']
    """
    order = np.searchsorted(-np.array(RATIOS), -ratio, side="left")
    return np.where(np.isnan(ratio), UNKNOWN, order)
