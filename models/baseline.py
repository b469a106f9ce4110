"""What is usual: expected value and robust scale of a sensor by day class and time of day.

Two tables of slots a sensor (working days, free days). A slot's mean is weighted towards
recent visits, smoothed over its neighbours, and drawn towards the slot's mean over both day
classes and the sensor's own mean as long as it has few visits. Residuals are clipped while
learning, so that an incident of last week is not expected this week.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from citybrain.kinds import DAY, MINUTE, Kind
from citybrain.models.block import Array, Arrays
from citybrain.models.daytime import Daytime, slots_of

MIN_VISITS = 3.0
"""Days on which a time of day must have been seen before anything is expected of it."""

_ALMOST = 0.5  # visits; a few missing windows do not undo a day
_FORGET = 0.12  # share of its weight that a visit loses with each later one,
_FORGET_COARSE = 0.02  # where windows are half an hour or longer and a year is looked at
_CLIP = 4.0  # scales; wider residuals teach no more than this
_COLD = 0.25  # visits that the more general mean counts for
_ABS_TO_SD = 1.2533  # mean absolute deviation to standard deviation of a normal
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Expected:
    """Per sensor: mean and scale, both NaN where there is not enough history."""

    mean: Floats
    scale: Floats


@dataclass(frozen=True, slots=True)
class Baseline:
    """Tables [2, slots, n] of mean, scale and visits, for windows of `step_ms`.

    seen [slots, n]: visits of both day classes together.
    """

    step_ms: int
    mean: Array
    scale: Array
    visits: Array
    seen: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", self.visits.sum(axis=0))

    def at(self, start_ms: int, daytime: Daytime) -> Expected:
        """What is usual for the window that starts at `start_ms`: O(sensors)."""
        slots = self.mean.shape[1]
        group, part = daytime.place(start_ms)
        place = (part + self.step_ms / 2) * slots / DAY - 0.5
        low = math.floor(place)
        share = place - low
        a, b = low % slots, (low + 1) % slots
        mean, scale = (
            table[group, a].astype(np.float64) * (1 - share)
            + table[group, b].astype(np.float64) * share
            for table in (self.mean, self.scale)
        )
        cold = np.minimum(self.seen[a], self.seen[b]) < MIN_VISITS - _ALMOST
        mean[cold] = scale[cold] = np.nan
        return Expected(mean, scale)

    def over(self, start_ms: npt.NDArray[np.int64], daytime: Daytime) -> tuple[Floats, Floats]:
        """Mean and scale [T, n] for many windows; linear between the middles of slots."""
        slots = self.mean.shape[1]
        group, part = daytime.split(start_ms)[:2]
        place = (part + self.step_ms / 2) * slots / DAY - 0.5
        low = np.floor(place).astype(np.int64)
        share = (place - low)[:, None]
        a, b = low % slots, (low + 1) % slots
        mean = self.mean[group, a] * (1 - share) + self.mean[group, b] * share
        scale = self.scale[group, a] * (1 - share) + self.scale[group, b] * share
        cold = np.minimum(self.seen[a], self.seen[b]) < MIN_VISITS - _ALMOST
        return np.where(cold, np.nan, mean), np.where(cold, np.nan, scale)

    def arrays(self) -> Arrays:
        """The tables with the sensor as first axis, as model bodies hold them."""
        return {
            "mean": np.moveaxis(self.mean, 2, 0).astype(np.float32),
            "scale": np.moveaxis(self.scale, 2, 0).astype(np.float32),
            "visits": np.moveaxis(self.visits, 2, 0).astype(np.float32),
        }

    @staticmethod
    def of(arrays: Arrays, step_ms: int) -> "Baseline":
        """The baseline whose `arrays` these are."""
        mean, scale, visits = (
            np.ascontiguousarray(np.moveaxis(arrays[name], 0, 2))
            for name in ("mean", "scale", "visits")
        )
        return Baseline(step_ms, mean, scale, visits)


def empty(step_ms: int, n: int) -> Baseline:
    """A baseline that expects nothing of anybody."""
    shape = (2, slots_of(step_ms), n)
    return Baseline(step_ms, np.zeros(shape), np.ones(shape), np.zeros(shape))


def fit(
    start_ms: npt.NDArray[np.int64], value: Floats, step_ms: int, kind: Kind, daytime: Daytime
) -> Baseline:
    """Learn from windows [T] of sensors [n]; `value` [T, n] is NaN where nothing was seen."""
    slots = slots_of(step_ms)
    n = value.shape[1]
    if not len(start_ms) or not n:
        return empty(step_ms, n)
    group, part, day = daytime.split(start_ms)
    table = group * slots + (part * slots) // DAY
    weight = _recency(group, day, _FORGET if step_ms < 30 * MINUTE else _FORGET_COARSE)
    order = np.argsort(table, kind="stable")
    edges = np.flatnonzero(np.diff(table[order], prepend=-1))
    cells = table[order][edges]

    def total(rows: Floats) -> Floats:
        """Sum over the rows of each (day class, slot): [2, slots, n]."""
        out = np.zeros((2 * slots, n))
        out[cells] = np.add.reduceat(rows[order], edges, axis=0)
        return out.reshape(2, slots, n)

    seen = ~np.isnan(value)
    weights = seen * weight[:, None]
    a_visit = max(1.0, DAY / slots / step_ms)
    visits = total(seen.astype(np.float64)) / a_visit
    tame = _within_quantiles(value)
    # Means over slots of an hour stay as they are: smoothing would flatten the rush hour.
    smooth = 1 if slots > 48 else 0
    mean = _table(total, np.where(seen, tame, 0.0), weights, a_visit, smooth)
    for _ in range(2):
        rows = mean.reshape(2 * slots, n)
        spread = np.where(seen, np.abs(tame - rows[table]), 0.0)
        # One scale a sensor is enough to keep incidents out of the next pass.
        width = _ABS_TO_SD * _ratio(spread.sum(axis=0), seen.sum(axis=0))
        limit = _CLIP * np.maximum(width, kind.resolution)
        tame = np.clip(value, rows[table] - limit, rows[table] + limit)
        mean = _table(total, np.where(seen, tame, 0.0), weights, a_visit, smooth)
    rows = mean.reshape(2 * slots, n)
    spread = np.minimum(np.abs(value - rows[table]), limit)
    # All visits count alike here: after a quiet week a scale must not take weather for wonder.
    alike = seen.astype(np.float64)
    scale = _ABS_TO_SD * _table(total, np.where(seen, spread, 0.0), alike, a_visit, 3)
    return Baseline(step_ms, mean, _floored(scale, mean, width, kind), visits)


def _within_quantiles(value: Floats) -> Floats:
    """Values [T, n] without each sensor's wildest one in two hundred, for the first pass."""
    known = (~np.isnan(value)).any(axis=0)
    low, high = np.full((2, value.shape[1]), np.nan)
    if known.any():
        low[known], high[known] = np.nanquantile(value[:, known], (0.005, 0.995), axis=0)
    return np.clip(value, low, high)


def _recency(group: Array, day: Array, forget: float) -> Floats:
    """Weight of each row: 1 - forget to the power of the days of its class that came after."""
    weight = np.zeros(len(day))
    for which in (0, 1):
        mine = group == which
        days = np.unique(day[mine])
        age = len(days) - 1 - np.searchsorted(days, day[mine])
        weight[mine] = (1.0 - forget) ** age
    return weight


def _table(
    total: Callable[[Floats], Floats],
    value: Floats,
    weights: Floats,
    a_visit: float,
    smooth: int,
) -> Array:
    """Weighted mean by slot, smoothed round the clock, drawn to more general means."""
    sums, mass = total(value * weights), total(weights)
    own = _ratio(sums.sum(axis=(0, 1)), mass.sum(axis=(0, 1)))
    cold = _COLD * a_visit
    for _ in range(smooth):
        sums, mass = _smoothed(sums), _smoothed(mass)
    slot = (sums.sum(axis=0) + cold * own) / (mass.sum(axis=0) + cold)
    return np.asarray((sums + cold * slot) / (mass + cold))


def _smoothed(table: Floats) -> Floats:
    return (np.roll(table, 1, axis=1) + 2 * table + np.roll(table, -1, axis=1)) / 4


def _ratio(a: Floats, b: Array) -> Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _floored(scale: Floats, mean: Floats, width: Floats, kind: Kind) -> Floats:
    """Never narrower than a tenth of the sensor's own width, the kind's grid, or, for counts,
    the square root of the level (a Poisson count varies by so much)."""
    floor = np.maximum(0.1 * width, 2 * kind.resolution)
    if kind.total and kind.resolution >= 1:
        return np.maximum(np.maximum(scale, floor), np.sqrt(np.maximum(mean, 0.0) + 0.25))
    return np.maximum(scale, floor)
