"""Intervals that keep their promise: half-widths by sensor and horizon, adapted online.

After each truth the half-width grows if the truth fell outside and shrinks a little if not,
so that in the long run the stated share falls inside whatever the errors do (Gibbs and
Candes, "Adaptive conformal inference under distribution shift", 2021; here on the width
itself, in scales of the baseline).
"""

import numpy as np

from citybrain.models.block import Array

COVERAGE = 0.9
_RATE = 0.05
_LEAST, _MOST = 0.05, 50.0


def initial(error: Array, coverage: float = COVERAGE) -> Array:
    """Half-widths [n] from errors in scales [T, n] of the training interval (NaN: missing).

    A sensor without any gets that of a normal distribution.
    """
    known = (~np.isnan(error)).any(axis=0)
    width = np.full(error.shape[1], 1.645)
    if known.any():
        width[known] = np.nanquantile(np.abs(error[:, known]), coverage, axis=0)
    return np.asarray(np.clip(width, _LEAST, _MOST))


def adapt(width: Array, error: Array, coverage: float = COVERAGE) -> None:
    """Move half-widths [n] after errors in scales [n] (NaN: no truth), in place."""
    out = np.abs(error) > width
    move = np.exp(_RATE * np.where(out, coverage, coverage - 1.0))
    width[:] = np.where(np.isnan(error), width, np.clip(width * move, _LEAST, _MOST))
