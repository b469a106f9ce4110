"""Two-sided cumulative sum, measured by the sensor's own running high quantile."""

import numpy as np

from citybrain.kinds import HOUR
from citybrain.models.anomaly.quantile import follow
from citybrain.models.block import Array, Arrays


class Cusum:
    """CUSUM (Page, 1954) with slack 0.7 on clipped residuals, over the sensor's own quantile.

    A sum that a sensor reaches on one ordinary row in two hundred scores 1. After an hour
    without data the sum begins anew.

    >>> detector = Cusum(60_000)
    >>> state = detector.fresh(1)
    >>> scores = [float(detector.step(state, np.array([z]))[0]) for z in (0.1, 3, 3, 3, 3)]
    >>> [round(score, 2) for score in scores]
    [0.0, 0.46, 0.92, 1.38, 1.84]
    """

    slack = 0.7
    clip = 5.0
    floor = 5.0  # scales; what h is in an ordinary CUSUM
    ceiling = 3.0  # quantiles; a longer accumulation would only delay the end

    def __init__(self, step_ms: int) -> None:
        self._patience = max(1, HOUR // step_ms)

    def fresh(self, n: int) -> Arrays:
        """Sums 0, quantile at its floor."""
        return {
            "up": np.zeros(n),
            "down": np.zeros(n),
            "missing": np.zeros(n, dtype=np.int32),
            "quantile": np.full(n, self.floor),
        }

    def prime(self, state: Arrays, ceiling: Array) -> None:
        """The quantile goes on from what history says."""
        state["quantile"][:] = np.where(ceiling > 0, np.maximum(ceiling, self.floor),
                                        state["quantile"])  # fmt: skip

    def reach(self, z: Array) -> Array:
        """The larger of both sums after each window [T, n], without end or forgetting."""
        push = np.clip(np.nan_to_num(z), -self.clip, self.clip)
        both = np.stack([push, -push], axis=1) - np.where(np.isnan(z), 0.0, self.slack)[:, None]
        total = np.zeros(both.shape[1:])
        size = np.empty(z.shape)
        for t, move in enumerate(both):
            total = np.clip(total + move, 0.0, self.floor * 10)
            size[t] = total.max(axis=0)
        return np.where(np.isnan(z), np.nan, size)

    def step(self, state: Arrays, z: Array) -> Array:
        """As in `AnomalyDetector`."""
        seen = ~np.isnan(z)
        state["missing"][:] = np.where(seen, 0, state["missing"] + 1)
        forgotten = state["missing"] >= self._patience
        push = np.clip(np.where(seen, z, 0.0), -self.clip, self.clip)
        top = self.ceiling * state["quantile"]
        for name, sign in (("up", 1.0), ("down", -1.0)):
            moved = np.clip(state[name] + sign * push - self.slack, 0.0, top)
            state[name][:] = np.where(forgotten, 0.0, np.where(seen, moved, state[name]))
        size = np.maximum(state["up"], state["down"])
        score = np.where(state["up"] >= state["down"], size, -size) / state["quantile"]
        follow(state["quantile"], size, seen, self.floor)
        return np.where(seen, score, np.nan)
