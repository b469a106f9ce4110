"""The air-quality index of each station and pollutant, by standard and date.

The index of a station is the highest of its pollutants' sub-indices, so a rule on the index
holds exactly where it holds for one of them; each is scored on its own, over the standard's
averaging time (HJ 633: 24 h, ozone 8 h), on rolling windows. At least three quarters of the
readings must be there (HJ 663 asks for 20 hours of 24 and 6 of 8).
"""

from datetime import UTC, datetime

import numpy as np

from citybrain.errors import PackError
from citybrain.kinds import DAY, Kind
from citybrain.models.air_quality import (
    CHINA,
    STANDARDS,
    averaging_ms,
    standard_on,
    sub_index,
)
from citybrain.models.block import Arrays
from citybrain.models.daytime import Daytime
from citybrain.models.detectors.base import Axis, Detector, Scored, limits, stale_ms
from citybrain.models.seen import Seen
from citybrain.rules import Rule

_MIN_SHARE = 0.75


class AirQuality:
    """The score is the sub-index of the pollutant."""

    def __init__(self, rule: Rule, kind: Kind, axis: Axis, window_ms: int, standard: str) -> None:
        self.names = axis.names
        self.limits = limits(rule, 150.0, stale_ms=stale_ms(kind.windows_ms[-1]))
        self._kind, self._window_ms, self._standard = kind, window_ms, standard
        self._daytime: Daytime = axis.daytime

    def takes(self, window_ms: int) -> bool:
        """As in `Detector`."""
        return window_ms == self._window_ms

    def fresh(self) -> Arrays:
        """Nothing to remember."""
        return {}

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """As in `Detector`."""
        # The day of the window's last instant: a window that ends at midnight is yesterday's.
        local = self._daytime.split(np.array([seen.end_ms - 1], dtype=np.int64))[2][0]
        day = datetime.fromtimestamp(int(local) * DAY / 1000, UTC).date()
        enough = seen.count >= _MIN_SHARE * seen.expected
        mean = np.where(enough, seen.value, np.nan)
        index = sub_index(self._kind.name, mean, self._standard, day)
        edition = standard_on(self._standard, day)
        expected = np.full(len(index), self.limits.raise_at)

        def facts(row: int) -> dict[str, str | float]:
            return {
                "standard": edition,
                "pollutant": self._kind.name,
                "concentration": round(float(mean[row]), 1),
            }

        return Scored(index, index, expected, facts)


def create(rule: Rule, kind: Kind, axis: Axis) -> Detector | None:
    """None for kinds that are no pollutants, or that have no window of the averaging time."""
    standard = str(rule.settings.get("standard", CHINA))
    if standard not in STANDARDS:
        raise PackError(
            f"rules.toml: [{rule.name}]: settings.standard: {standard!r} is not one of {STANDARDS}"
        )
    window = averaging_ms(kind.name, standard)
    if window is None:
        return None
    window = rule.window_s * 1000 or window
    there = window in kind.windows_ms + kind.rolling_ms
    return AirQuality(rule, kind, axis, window, standard) if there else None
