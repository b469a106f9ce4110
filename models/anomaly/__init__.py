"""Anomaly detectors: residuals in scales in, scores out, one value a sensor a window.

Rules of a detector, checked over the whole registry by one test:

* `step` looks only at its state and this window's residuals; the state is plain arrays with
  the sensor as first axis, changed in place.
* A missing window (NaN) has the score NaN and teaches nothing: it is the business of health.
* The score is at home around 0 to 1 whatever the sensor: a rule's `raise_at` is a multiple
  of what this very sensor reaches on ordinary days.

A new detector is a file with a class and a line in `DETECTORS`.
"""

from collections.abc import Callable
from typing import Protocol

from citybrain.models.anomaly.cusum import Cusum
from citybrain.models.anomaly.mean import MeanShift
from citybrain.models.block import Array, Arrays


class AnomalyDetector(Protocol):
    """One way to tell that something has changed."""

    def fresh(self, n: int) -> Arrays:
        """State of `n` sensors that have seen nothing."""

    def prime(self, state: Arrays, ceiling: Array) -> None:
        """A new model says what a CUSUM reached on one row in two hundred [n]; 0: unknown."""

    def step(self, state: Arrays, z: Array) -> Array:
        """Take residuals in scales [n], return signed scores [n]: above 0 more than usual."""


DETECTORS: dict[str, Callable[[int], AnomalyDetector]] = {
    "cusum": Cusum,
    "mean": MeanShift,
}
"""Name -> detector for windows of so many milliseconds."""

DEFAULT = "mean"
"""Of half an hour of hardly any traffic, or of slow traffic, it finds half as much again as
`cusum` at the same number of false alarms (`python -m benchmarks anomalies`)."""
