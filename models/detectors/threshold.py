"""A value above (or below) a number, in the kind's unit."""

import numpy as np

from citybrain.kinds import Kind
from citybrain.models.block import Arrays
from citybrain.models.detectors.base import Axis, Detector, Scored, limits, stale_ms, window_of
from citybrain.models.seen import Seen
from citybrain.rules import Rule


class Threshold:
    """The window's value is the score."""

    def __init__(self, rule: Rule, axis: Axis, window_ms: int) -> None:
        self.names = axis.names
        self.limits = limits(rule, rule.raise_at, stale_ms=stale_ms(window_ms))
        self._window_ms = window_ms

    def takes(self, window_ms: int) -> bool:
        """As in `Detector`."""
        return window_ms == self._window_ms

    def fresh(self) -> Arrays:
        """A threshold remembers nothing."""
        return {}

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """As in `Detector`."""
        expected = np.full(len(seen.value), self.limits.raise_at)
        return Scored(seen.value, seen.value, expected)


def create(rule: Rule, kind: Kind, axis: Axis) -> Detector | None:
    """None where the kind has no window of the rule's length."""
    window = window_of(rule, kind)
    return None if window is None else Threshold(rule, axis, window)
