"""As it is now, so it stays: the yardstick of short horizons."""

import numpy as np

from citybrain.models.block import Array, Arrays
from citybrain.models.forecast.base import Past, Situation


class Persistence:
    """Repeats the last value."""

    name = "persistence"

    def fit(self, past: Past, steps: tuple[int, ...], seed: int) -> Arrays:
        """There is nothing to learn."""
        return {}

    def predict(self, weights: Arrays, now: Situation) -> Array:
        """As in `Forecaster`."""
        return np.repeat(now.last[..., None], now.mean.shape[-1], axis=-1)
