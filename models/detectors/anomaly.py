"""Unlike what is usual for this sensor at this time: residuals through an anomaly detector."""

import numpy as np

from citybrain.errors import PackError
from citybrain.kinds import MINUTE, Kind
from citybrain.models.anomaly import DEFAULT, DETECTORS
from citybrain.models.block import Arrays
from citybrain.models.detectors.base import Axis, Detector, Scored, limits, stale_ms, window_of
from citybrain.models.fit import Model
from citybrain.models.seen import Seen
from citybrain.rules import Rule


class Anomaly:
    """Scores are multiples of what the sensor reaches on ordinary days.

    settings of the rule: `model` (a name of `models.anomaly`, whose default is used without),
    `direction` (`up`, `down` or `both`), `quiet_s` (refractory time, default 900).
    """

    def __init__(self, rule: Rule, axis: Axis, window_ms: int) -> None:
        name = str(rule.settings.get("model", DEFAULT))
        self._direction = str(rule.settings.get("direction", "both"))
        if name not in DETECTORS or self._direction not in ("up", "down", "both"):
            raise PackError(
                f"rules.toml: [{rule.name}]: settings: model {name!r} is one of"
                f" {sorted(DETECTORS)}, direction {self._direction!r} up, down or both"
            )
        self.names = axis.names
        self.limits = limits(
            rule,
            1.5,
            0.5,
            calm_rows=3,
            quiet_ms=round(float(rule.settings.get("quiet_s", 15 * MINUTE / 1000)) * 1000),
            stale_ms=stale_ms(window_ms),
        )
        self._window_ms = window_ms
        self._model = DETECTORS[name](window_ms)

    def takes(self, window_ms: int) -> bool:
        """As in `Detector`."""
        return window_ms == self._window_ms

    def fresh(self) -> Arrays:
        """As in `Detector`."""
        return self._model.fresh(len(self.names))

    def prime(self, state: Arrays, model: Model) -> None:
        """A new model takes effect."""
        self._model.prime(state, model.ceiling)

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """NaN without a baseline: not enough history is no score."""
        if seen.usual is None:
            nan = np.full(len(self.names), np.nan)
            return Scored(nan, seen.value, nan)
        z = (seen.value - seen.usual.mean) / seen.usual.scale
        signed = self._model.step(state, np.where(seen.parked, np.nan, z))
        wanted = {"up": signed, "down": -signed, "both": np.abs(signed)}[self._direction]

        def facts(row: int) -> dict[str, str | float]:
            return {
                "direction": "up" if signed[row] >= 0 else "down",
                "deviation": round(float(z[row]), 2),
            }

        return Scored(wanted, seen.value, seen.usual.mean, facts)


def create(rule: Rule, kind: Kind, axis: Axis) -> Detector | None:
    """None where the kind has no window of the rule's length."""
    window = window_of(rule, kind)
    return None if window is None else Anomaly(rule, axis, window)
