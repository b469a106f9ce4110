"""Rain totals over a rule's `window_s`, on a ten-minute grid.

China's rainstorm warnings (China Meteorological Administration, order 16 of 2007): blue
50 mm in 12 h, yellow 50 mm in 6 h, orange 50 mm in 3 h, red 100 mm in 3 h; a pack has one
rule for each. The sum runs over whole bins and the part of the present one, so between grid
points it covers up to ten minutes less than the window: never more than fell. Missing
windows count as dry: the total is what has certainly fallen.
"""

import numpy as np

from citybrain.kinds import MINUTE, Kind
from citybrain.models.block import Arrays
from citybrain.models.detectors.base import Axis, Detector, Scored, limits
from citybrain.models.seen import Seen
from citybrain.rules import Rule

_BIN_MS = 10 * MINUTE


class RainTotal:
    """The score is the total in the kind's unit (mm)."""

    def __init__(self, rule: Rule, kind: Kind, axis: Axis) -> None:
        self.names = axis.names
        self.limits = limits(rule, rule.raise_at, stale_ms=2**60)
        self._step_ms = kind.analysed_ms
        self._bin_ms = max(_BIN_MS, self._step_ms)
        self._bins = max(1, rule.window_s * 1000 // self._bin_ms)

    def takes(self, window_ms: int) -> bool:
        """As in `Detector`."""
        return window_ms == self._step_ms

    def fresh(self) -> Arrays:
        """bins [n, k]: totals by bin number modulo k; bin: number of the present one."""
        n = len(self.names)
        return {"bins": np.zeros((n, self._bins)), "bin": np.full(n, -1, dtype=np.int64)}

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """As in `Detector`."""
        now = seen.start_ms // self._bin_ms
        before = int(state["bin"].max(initial=-1))
        for number in range(max(before + 1, now - self._bins + 1), now + 1):
            state["bins"][:, number % self._bins] = 0.0
        state["bin"][:] = now
        state["bins"][:, now % self._bins] += np.where(seen.count > 0, seen.total, 0.0)
        total = state["bins"].sum(axis=1)
        return Scored(total, total, np.full(len(total), self.limits.raise_at))


def create(rule: Rule, kind: Kind, axis: Axis) -> Detector | None:
    """None for kinds whose windows are no totals, or where the rule has no window."""
    return RainTotal(rule, kind, axis) if kind.total and rule.window_s else None
