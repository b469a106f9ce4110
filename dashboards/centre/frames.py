"""Recent windows of the statistics and forecasts logs, as arrays in the order of the rosters.

What is kept is bounded by the number of values, so a large city keeps less history in memory,
never more memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain.city import City
from citybrain.columns import Roster
from citybrain.forecasts import Forecast
from citybrain.stats import Stats

BUDGET = 20_000_000
"""Values kept in memory for all series together (some 0.4 GB at most)."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Frame:
    """One window of one kind for all sensors of a shard, in roster order.

    value: the mean, or the total for kinds that count; NaN where nothing was seen.
    revision: the highest taken, by sensor; -1 where none was.
    """

    start_ms: int
    expected: int
    value: Floats
    seen: Ints
    revision: Ints


@dataclass(slots=True)
class Expectation:
    """What was forecast for one target window, in roster order; NaN where nothing was."""

    target_ms: int
    issued_ms: int
    model: str
    value: Floats
    lower: Floats
    upper: Floats


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One window of one series: start, value (None: nothing seen), readings seen, expected."""

    start_ms: int
    value: float | None
    seen: int
    expected: int


class ForecastPoint(msgspec.Struct, frozen=True, array_like=True):
    """One forecast of one series: target window, issue, value and interval."""

    target_ms: int
    issued_ms: int
    value: float | None
    lower: float | None
    upper: float | None


class Frames:
    """The newest windows of every series of a city."""

    def __init__(self, city: City, budget: int = BUDGET) -> None:
        self._city = city
        self.rosters = {
            shard: {kind: city.roster(shard, kind) for kind in city.kinds} for shard in city.shards
        }
        self._places = {
            (shard, kind): {name: place for place, name in enumerate(names)}
            for shard, kinds in self.rosters.items()
            for kind, names in kinds.items()
        }
        pairs = sum(len(sensor.kinds) for sensor in city.sensors.values())
        self.keep = max(3, min(200, budget // max(1, 4 * pairs)))
        self._windows: dict[tuple[str, str, int], dict[int, Frame]] = {}
        self._forecasts: dict[tuple[str, str, int], dict[int, Expectation]] = {}
        self._orders: dict[tuple[Roster, str, str], Ints] = {}

    def kept(self, kind: str) -> tuple[int, ...]:
        """The windows that are kept of a kind: the shortest and the analysed one."""
        row = self._city.kinds[kind]
        return tuple(dict.fromkeys((row.pane_ms, row.analysed_ms)))

    def take(self, stats: Stats) -> Frame | None:
        """Take a closed window; its frame if that said something new.

        None for windows that are not kept, repeats, and whatever is older than what is kept.
        """
        head = stats.head
        key = (head.shard, head.kind, head.window_ms)
        places = self._places.get(key[:2])
        if not places or head.kind not in self._city.kinds or head.step_ms != head.window_ms:
            return None
        if head.window_ms not in self.kept(head.kind):
            return None
        frames = self._windows.setdefault(key, {})
        frame = frames.get(head.start_ms)
        if frame is None:
            if len(frames) >= self.keep:
                oldest = min(frames)
                if head.start_ms < oldest:
                    return None
                del frames[oldest]
            size = len(places)
            frame = frames[head.start_ms] = Frame(
                head.start_ms, head.expected, np.full(size, np.nan),
                np.zeros(size, np.int64), np.full(size, -1, np.int64),
            )  # fmt: skip
        order = self._order(stats.roster, head.shard, head.kind)[stats.codes]
        fresh = (order >= 0) & (head.revision > frame.revision[order])
        if not fresh.any():
            return None
        at = order[fresh]
        seen = stats.seen[fresh].astype(np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = stats.sum[fresh]
            value = total if self._city.kinds[head.kind].total else total / seen
        frame.value[at] = np.where(seen > 0, value, np.nan)
        frame.seen[at] = seen
        frame.revision[at] = head.revision
        return frame

    def expect(self, forecast: Forecast) -> None:
        """Take a forecast. Of one target window and horizon the latest issue holds."""
        head = forecast.head
        places = self._places.get((head.shard, head.kind))
        if not places:
            return
        known = self._forecasts.setdefault((head.shard, head.kind, head.horizon_ms), {})
        before = known.get(head.target_ms)
        if before is not None and before.issued_ms > head.issued_ms:
            return
        if before is None and len(known) >= self.keep:
            oldest = min(known)
            if head.target_ms < oldest:
                return
            del known[oldest]
        columns = [np.full(len(places), np.nan) for _ in range(3)]
        order = self._order(forecast.roster, head.shard, head.kind)[forecast.codes]
        fits = order >= 0
        for column, values in zip(
            columns, (forecast.value, forecast.lower, forecast.upper), strict=True
        ):
            column[order[fits]] = values[fits]
        known[head.target_ms] = Expectation(head.target_ms, head.issued_ms, head.model, *columns)

    def latest(self) -> Mapping[tuple[str, str, int], Frame]:
        """The newest frame of each shard, kind and kept window."""
        return {key: frames[max(frames)] for key, frames in self._windows.items() if frames}

    def points(self, sensor: str, kind: str, window_ms: int) -> list[Point]:
        """The kept windows of a series, oldest first."""
        shard = self._city.sensors[sensor].shard
        place = self._places[shard, kind][sensor]
        frames = self._windows.get((shard, kind, window_ms), {})
        return [
            Point(start, _number(frame.value[place]), int(frame.seen[place]), frame.expected)
            for start, frame in sorted(frames.items())
        ]

    def forecasts(self, sensor: str, kind: str) -> dict[int, list[ForecastPoint]]:
        """What was forecast of a series, by horizon, oldest target first."""
        shard = self._city.sensors[sensor].shard
        place = self._places[shard, kind][sensor]
        found = {}
        for horizon in self._city.kinds[kind].horizons_ms:
            known = self._forecasts.get((shard, kind, horizon), {})
            points = [
                ForecastPoint(
                    target,
                    e.issued_ms,
                    _number(e.value[place]),
                    _number(e.lower[place]),
                    _number(e.upper[place]),
                )
                for target, e in sorted(known.items())
            ]
            if points:
                found[horizon] = points
        return found

    def _order(self, roster: Roster, shard: str, kind: str) -> Ints:
        """By a message's code, the place in our roster; -1 for a sensor that is not in it."""
        order = self._orders.get((roster, shard, kind))
        if order is None:
            if len(self._orders) >= 4096:
                self._orders.pop(next(iter(self._orders)))
            places = self._places[shard, kind]
            order = np.array([places.get(name, -1) for name in roster.names], np.int64)
            self._orders[roster, shard, kind] = order
        return order


def _number(value: np.float64) -> float | None:
    """A value for JSON: rounded to what is worth showing, None for NaN."""
    return None if np.isnan(value) else round(float(value), 3)
