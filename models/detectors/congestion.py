"""A link's speed over its free speed, as `models.congestion` sees it. A low score is bad."""

from dataclasses import replace

import numpy as np

from citybrain.kinds import MINUTE, Kind
from citybrain.models.block import Arrays
from citybrain.models.detectors.base import Axis, Detector, Scored, limits
from citybrain.models.seen import Seen
from citybrain.rules import Rule


class Congestion:
    """Its places are links; the value of what it is given is already the ratio."""

    def __init__(self, rule: Rule, kind: Kind, axis: Axis) -> None:
        self.names = axis.names
        given = limits(rule, 0.4, 1.25, stale_ms=5 * MINUTE)
        self.limits = replace(given, below=True)
        self._window_ms = kind.pane_ms

    def takes(self, window_ms: int) -> bool:
        """The shortest window."""
        return window_ms == self._window_ms

    def fresh(self) -> Arrays:
        """Nothing to remember: the smoothing is in the flow."""
        return {}

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """As in `Detector`."""
        return Scored(seen.value, seen.value, np.ones(len(seen.value)))


def create(rule: Rule, kind: Kind, axis: Axis) -> Detector | None:
    """Runs on the links of a shard, after windows of the kind that it is made for."""
    return Congestion(rule, kind, axis)
