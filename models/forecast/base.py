"""The interface of forecasters."""

from dataclasses import dataclass
from typing import Protocol

from citybrain.models.block import Array, Arrays


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


class Forecaster(Protocol):
    """One way to look ahead. Stateless: what it has learnt is plain arrays, sensor first."""

    name: str

    def fit(self, z: Array, x: Array, steps: tuple[int, ...], seed: int) -> Arrays:
        """Learn from residuals in scales [T, n], clipped (NaN: missing), and the features
        [T, n, F] of them; steps: horizons in windows."""

    def predict(self, weights: Arrays, now: Situation) -> Array:
        """Values [n, H]; NaN where it cannot say."""
