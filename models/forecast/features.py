"""What a forecaster sees of a sensor: exponential means of its recent residuals, in scales.

Missing windows count as nothing: a mean fades towards 0 (the baseline) while nothing comes.
"""

import numpy as np

from citybrain.models.block import Array, Arrays

SPANS = (0.0, 3.0, 12.0, 72.0, 432.0)
"""Half-lives in windows; 0 is the last window alone."""

CLIP = 4.0
"""Scales; what is further out teaches no more than this."""

_LIVE_CLIP = 12.0  # a closed road is followed further than it teaches, a wild reading is not

_KEEP = np.array([0.0 if span == 0 else 0.5 ** (1.0 / span) for span in SPANS])
_PRIOR = 0.05  # weight of "as the baseline says" against one window


def fresh(n: int) -> Arrays:
    """State of `n` sensors that have seen nothing."""
    shape = (n, len(SPANS))
    return {"sum": np.zeros(shape), "weight": np.zeros(shape), "last": np.full(n, np.nan)}


def step(state: Arrays, z: Array, value: Array) -> None:
    """Take one window's residuals in scales and values [n], NaN where missing; in place."""
    seen = ~np.isnan(z)
    push = np.where(seen, np.clip(z, -_LIVE_CLIP, _LIVE_CLIP), 0.0)[:, None]
    state["sum"][:] = _KEEP * state["sum"] + (1.0 - _KEEP) * push
    state["weight"][:] = _KEEP * state["weight"] + (1.0 - _KEEP) * seen[:, None]
    state["last"][:] = np.where(np.isnan(value), state["last"], value)


def read(state: Arrays) -> Array:
    """The features [n, F] now."""
    return np.asarray(state["sum"] / (state["weight"] + _PRIOR))


def over(z: Array) -> Array:
    """Features [T, n, F] after each of the windows [T, n], as `step` would give them."""
    seen = ~np.isnan(z)
    total = _decayed(np.where(seen, np.clip(z, -_LIVE_CLIP, _LIVE_CLIP), 0.0))
    total /= _decayed(seen.astype(np.float64)) + _PRIOR
    return total


def _decayed(push: Array) -> Array:
    """Exponential sums [T, n, F] of rows [T, n]."""
    out = push[:, :, None] * (1.0 - _KEEP)
    for t in range(1, len(out)):
        out[t] += _KEEP * out[t - 1]
    return out
