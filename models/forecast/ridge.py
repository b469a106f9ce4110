"""Baseline plus a shrunken residual: a small ridge regression for each sensor and horizon.

Each sensor's weights are drawn to those of all sensors together, by as much as two hundred
windows would pull, so that a sensor with little history borrows from its neighbours.
"""

import numpy as np

from citybrain.models.block import Array, Arrays
from citybrain.models.forecast.base import Past, Situation

_PRIOR_ROWS = 200.0
_PENALTY = 1e-3
_MOST_ROWS = 6000


class Ridge:
    """weights [n, H, F] on the exponential means of the residual."""

    name = "ridge"

    def fit(self, past: Past, steps: tuple[int, ...], seed: int) -> Arrays:
        """As in `Forecaster`; closed form, no random choice."""
        return {"weights": solve(past.x, past.z, steps)}

    def predict(self, weights: Arrays, now: Situation) -> Array:
        """As in `Forecaster`."""
        ahead = np.einsum("nhf,...nf->...nh", weights["weights"], now.features)
        return np.asarray(now.mean + now.scale * ahead)


def issues(rows: int, ahead: int) -> Array:
    """Which windows to learn from, evenly spread: neighbours say nearly the same."""
    return np.arange(0, rows - ahead, max(1, rows // _MOST_ROWS))


def solve(x: Array, z: Array, steps: tuple[int, ...]) -> Array:
    """Weights [n, H, F] of features x [T, n, F] for z [T, n] so many windows later."""
    n, f = x.shape[1:]
    eye = np.eye(f)
    out = np.zeros((n, len(steps), f))
    for h, ahead in enumerate(steps):
        if ahead >= len(z):
            continue
        at = issues(len(z), ahead)
        target = z[at + ahead]
        seen = ~np.isnan(target)
        y = np.where(seen, target, 0.0).T[:, :, None]
        rows = np.ascontiguousarray((x[at] * seen[:, :, None]).transpose(1, 0, 2))
        gram = rows.transpose(0, 2, 1) @ rows
        moment = (rows.transpose(0, 2, 1) @ y)[:, :, 0]
        total = float(seen.sum())
        if not total:
            continue
        pooled = np.linalg.solve(gram.sum(axis=0) + _PENALTY * total * eye, moment.sum(axis=0))
        shared = gram.sum(axis=0) / total * _PRIOR_ROWS + _PENALTY * _PRIOR_ROWS * eye
        out[:, h] = np.linalg.solve(gram + shared, (moment + shared @ pooled)[:, :, None])[:, :, 0]
    return out
