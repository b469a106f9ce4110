"""The ridge of each sensor, corrected by what the whole network does together.

A few principal components over sensors (rush hour in full swing, an artery closed) see a
disturbance before it reaches the next detector. scikit-learn fits both steps; what is kept
is two small matrices.
"""

from collections.abc import Sequence

import numpy as np

from citybrain.models.block import Array, Arrays
from citybrain.models.forecast.base import Past, Situation
from citybrain.models.forecast.ridge import Ridge, issues

_COMPONENTS = 10
_USED = (0, 1, 2)  # the features that components are taken of: now, and the last hour or so
_MIN_SENSORS = 4
_PENALTY = 1.0


class Network(Ridge):
    """weights as `Ridge`; components [n, K]; correction [n, H, 3 K]."""

    name = "network"

    def fit(self, past: Past, steps: tuple[int, ...], seed: int) -> Arrays:
        """As in `Forecaster`; plain ridge where there are fewer than four sensors."""
        fitted = super().fit(past, steps, seed)
        z, x = past.z, past.x
        n = z.shape[1]
        count = min(_COMPONENTS, n // 2)
        fitted["components"] = np.zeros((n, count))
        fitted["correction"] = np.zeros((n, len(steps), len(_USED) * count))
        if n < _MIN_SENSORS or len(z) <= max(steps, default=0) + 2 * count:
            return fitted
        if not np.nanmax(np.abs(z), initial=0.0) > 0:
            return fitted
        from sklearn.decomposition import PCA
        from sklearn.linear_model import Ridge as LinearRidge

        pca = PCA(count, svd_solver="covariance_eigh", random_state=seed)
        fitted["components"] = pca.fit(np.nan_to_num(z)).components_.T.copy()
        factors = _factors(x, fitted["components"])
        for h, ahead in enumerate(steps):
            if ahead >= len(z):
                continue
            at = issues(len(z), ahead)
            own = np.einsum("tnf,nf->tn", x[at], fitted["weights"][:, h])
            left = np.nan_to_num(z[at + ahead] - own)
            model = LinearRidge(alpha=_PENALTY * len(left), fit_intercept=False)
            fitted["correction"][:, h] = model.fit(factors[at], left).coef_
        return fitted

    def predict(self, weights: Arrays, now: Situation) -> Array:
        """As in `Forecaster`."""
        own = super().predict(weights, now)
        factors = _factors(now.features, weights["components"])
        return np.asarray(
            own + now.scale * np.einsum("nhk,...k->...nh", weights["correction"], factors)
        )


def _factors(x: Array, components: Array, used: Sequence[int] = _USED) -> Array:
    """Factors [T, 3 K] of features [T, n, F]."""
    return np.concatenate([x[..., f] @ components for f in used], axis=-1)
