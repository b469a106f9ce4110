"""As it usually is at that time: the yardstick of long horizons."""

from citybrain.models.block import Array, Arrays
from citybrain.models.forecast.base import Past, Situation


class HistoricalAverage:
    """Repeats the baseline."""

    name = "historical_average"

    def fit(self, past: Past, steps: tuple[int, ...], seed: int) -> Arrays:
        """There is nothing to learn: the baseline has."""
        return {}

    def predict(self, weights: Arrays, now: Situation) -> Array:
        """As in `Forecaster`."""
        return now.mean
