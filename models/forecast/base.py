"""The interface of forecasters."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from citybrain.models.block import Array, Arrays
from citybrain.models.forecast import features

_MOST_ISSUES = 2000


@dataclass(frozen=True, slots=True)
class Situation:
    """All that may be known at the issue of a forecast. No forecaster sees more.

    last [n]: last value seen. features [n, F]. mean, scale [n, H]: the baseline at the
    targets; NaN where there is not enough history. All may have a leading axis of times.
    """

    last: Array
    features: Array
    mean: Array
    scale: Array


@dataclass(frozen=True, slots=True)
class Past:
    """The interval to learn from [T, n]: values (NaN: missing), the baseline's mean and scale.

    z: residuals in scales, clipped (NaN: missing); x [T, n, F]: the features of them.
    """

    value: Array
    mean: Array
    scale: Array
    z: Array
    x: Array

    @staticmethod
    def of(value: Array, mean: Array, scale: Array) -> "Past":
        """With residuals and features worked out."""
        z = np.clip((value - mean) / scale, -features.CLIP, features.CLIP)
        return Past(value, mean, scale, z, features.over(z))

    def look_back(self, steps: tuple[int, ...]) -> tuple[Situation, Array]:
        """Evenly spread issues of it, and what came true [A, n, H] (NaN: missing or later)."""
        rows = len(self.value)
        at = np.arange(0, rows, max(1, rows // _MOST_ISSUES))
        target = at[:, None] + np.array(steps, dtype=np.int64)
        here = np.minimum(target, max(0, rows - 1))
        mean, scale, truth = (
            np.moveaxis(table[here], 1, 2) for table in (self.mean, self.scale, self.value)
        )
        truth[np.broadcast_to((target >= rows)[:, None, :], truth.shape)] = np.nan
        known = np.where(np.isnan(self.value), 0, np.arange(rows)[:, None])
        latest = np.maximum.accumulate(known, axis=0)[at]
        last = np.take_along_axis(self.value, latest, axis=0)
        return Situation(last, self.x[at], mean, scale), truth


class Forecaster(Protocol):
    """One way to look ahead. Stateless: what it has learnt is plain arrays, sensor first."""

    name: str

    def fit(self, past: Past, steps: tuple[int, ...], seed: int) -> Arrays:
        """Learn from the past; steps: horizons in windows."""

    def predict(self, weights: Arrays, now: Situation) -> Array:
        """Values [n, H]; NaN where it cannot say."""
