"""The network's forecast and the last value, mixed for each sensor and horizon.

Where days are much alike the baseline says most; where a quantity drifts over weeks (particles
in the air) what is now says more than any usual day. The share is what would have been best on
the past, drawn to that of all sensors together.
"""

import numpy as np

from citybrain.models.block import Array, Arrays
from citybrain.models.forecast.base import Past, Situation
from citybrain.models.forecast.network import Network

_SHARES = np.linspace(1.0, 0.0, 11)
_PRIOR_ISSUES = 200.0


class Blend(Network):
    """weights as `Network`; blend [n, H]: the network's share, the rest is the last value's."""

    name = "blend"

    def fit(self, past: Past, steps: tuple[int, ...], seed: int) -> Arrays:
        """As in `Forecaster`."""
        fitted = super().fit(past, steps, seed)
        now, truth = past.look_back(steps)
        own, last = super().predict(fitted, now), now.last[..., None]
        known = ~(np.isnan(own) | np.isnan(last) | np.isnan(truth))
        count = known.sum(axis=0)
        errors = np.empty((len(_SHARES), *truth.shape[1:]))
        for i, share in enumerate(_SHARES):
            size = np.abs(_mixed(share, own, last) - truth) / now.scale
            errors[i] = np.where(known, size, 0.0).sum(axis=0)
        everywhere = errors.sum(axis=1) / np.maximum(1, count.sum(axis=0))
        drawn = errors + _PRIOR_ISSUES * everywhere[:, None, :]
        fitted["blend"] = _SHARES[np.argmin(drawn, axis=0)]
        return fitted

    def predict(self, weights: Arrays, now: Situation) -> Array:
        """As in `Forecaster`; the network's alone where nothing was seen yet."""
        own, last = super().predict(weights, now), now.last[..., None]
        return np.where(np.isnan(last), own, _mixed(weights["blend"], own, last))


def _mixed(share: float | Array, own: Array, last: Array) -> Array:
    return np.asarray(share * own + (1.0 - share) * last)
