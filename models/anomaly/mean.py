"""Mean residual of the last half hour, measured by the sensor's own running high quantile."""

import numpy as np

from citybrain.kinds import MINUTE
from citybrain.models.anomaly.quantile import follow
from citybrain.models.block import Array, Arrays


class MeanShift:
    """An exponential mean of about half an hour: slower than CUSUM, calmer on noisy counts."""

    clip = 5.0

    def __init__(self, step_ms: int) -> None:
        self._keep = 1.0 - min(1.0, step_ms / (15 * MINUTE)) * 0.5
        # What three standard deviations of such a mean of white noise are.
        self._floor = 3.0 * np.sqrt((1.0 - self._keep) / (1.0 + self._keep))

    def fresh(self, n: int) -> Arrays:
        """Mean 0, quantile at its floor."""
        return {"mean": np.zeros(n), "quantile": np.full(n, self._floor)}

    def prime(self, state: Arrays, ceiling: Array) -> None:
        """A sum's quantile says nothing of a mean's: it is learnt here alone. (Going on from
        what means had reached in the past found fewer events.)"""

    def step(self, state: Arrays, z: Array) -> Array:
        """As in `AnomalyDetector`."""
        seen = ~np.isnan(z)
        push = np.clip(np.where(seen, z, 0.0), -self.clip, self.clip)
        mean = np.where(seen, self._keep * state["mean"] + (1 - self._keep) * push, state["mean"])
        state["mean"][:] = mean
        score = mean / state["quantile"]
        follow(state["quantile"], np.abs(mean), seen, float(self._floor))
        return np.where(seen, score, np.nan)
