"""A running high quantile a sensor, by stochastic approximation (Robbins and Monro, 1951)."""

import numpy as np

from citybrain.models.block import Array

LEVEL = 0.995
_RATE = 0.01  # share of its size that a quantile moves at a row beyond it


def follow(quantile: Array, size: Array, seen: Array, floor: float) -> None:
    """Move `quantile` towards the value that one `size` in two hundred exceeds, in place."""
    move = np.where(size > quantile, LEVEL, LEVEL - 1.0) * _RATE
    quantile[:] = np.where(seen, np.maximum(quantile * (1.0 + move), floor), quantile)
