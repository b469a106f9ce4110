"""Readings at the door: which are accepted, and why the others are not; pure, by column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citybrain.batch import Batch
from citybrain.city import City
from citybrain.edge import fates, repeats
from citybrain.edge.fates import FATES
from citybrain.edge.repeats import Repeats
from citybrain.errors import PackError
from citybrain.grid import snap
from citybrain.kinds import DAY, MINUTE
from citybrain.layout import Layout, codes

NO_TIME = -(2**63)
"""Where a reading says no time."""

FARTHEST_MS = 2**42
"""Times beyond it (the year 2109, and as far the other way) are cut to it: wrong either way."""


@dataclass(frozen=True, slots=True)
class Row:
    """One reading as its device wrote it, for messages and dead letters."""

    sensor: str = ""
    kind: str = ""
    time: object = None
    value: object = None
    unit: str = ""
    quality: object = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Readings of one request as columns; sensor and kind are codes of the layout, -1 unknown.

    time_ms: NO_TIME where it is missing. wrong: a fate that decoding has found already, else
    ACCEPTED. row, original: one reading as it came, parsed and as bytes.
    """

    sensor: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int32]
    time_ms: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    quality: npt.NDArray[np.uint8]
    wrong: npt.NDArray[np.int8]
    row: Callable[[int], Row]
    original: Callable[[Sequence[int]], bytes]

    def __len__(self) -> int:
        return len(self.sensor)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a reading's time may be from the clock, in ms."""

    future_ms: int = MINUTE
    past_ms: int = 400 * DAY


class Validator:
    """Judges readings against a pack, a clock and what was said before.

    Raises PackError if the city has too many series for the memory of repeats.
    """

    def __init__(self, city: City, tolerance: Tolerance, memory: Repeats | None = None) -> None:
        self.city = city
        self.layout = Layout(city)
        self.tolerance = tolerance
        self.memory = memory or Repeats()
        if self.layout.group.size > repeats.SERIES_LIMIT:
            raise PackError(
                f"sensors.csv: {self.layout.group.size} series are more than an edge agent"
                f" can tell apart ({repeats.SERIES_LIMIT})"
            )

    def judge(
        self, rows: Candidates, gateway: npt.NDArray[np.int32], now_ms: int
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
        """The fate of each reading, and its value on the kind's grid.

        gateway: by row, the code of the gateway that sent it. Remembers nothing.
        """
        layout = self.layout
        fate = rows.wrong.copy()
        sensor, kind = rows.sensor, rows.kind

        def refuse(reason: int, wrong: npt.NDArray[np.bool_]) -> None:
            fate[wrong & (fate == fates.ACCEPTED)] = reason

        refuse(fates.SENSOR, sensor < 0)
        refuse(fates.GATEWAY, layout.gateway[sensor] != gateway)
        refuse(fates.KIND, (kind < 0) | (layout.group[sensor, kind] < 0))
        refuse(fates.TIME, rows.time_ms == NO_TIME)
        refuse(fates.FUTURE, rows.time_ms > now_ms + self.tolerance.future_ms)
        refuse(fates.OLD, rows.time_ms < max(0, now_ms - self.tolerance.past_ms))
        refuse(fates.VALUE, ~np.isfinite(rows.value))
        refuse(fates.RANGE, ~((rows.value >= layout.low[kind]) & (rows.value <= layout.high[kind])))
        refuse(fates.QUALITY, rows.quality > 2)
        value = snap(np.nan_to_num(rows.value, nan=0.0, posinf=0.0, neginf=0.0), self._grid(kind))
        good = np.flatnonzero(fate == fates.ACCEPTED)
        if len(good):
            fate[good] = self.memory.judge(self._keys(rows, good), value[good])
        return fate, value

    def remember(self, rows: Candidates, fate: npt.NDArray[np.int8], value: repeats.Values) -> None:
        """The accepted ones are stored now: later repeats of them are duplicates."""
        good = np.flatnonzero(fate == fates.ACCEPTED)
        self.memory.remember(self._keys(rows, good), value[good])

    def recall(self, item: Batch) -> None:
        """A batch that was accepted before a restart: what it says is remembered again."""
        sensors = codes(item.roster.names, self.layout.sensors)[item.codes].astype(np.int64)
        kind = self.layout.kinds.get(item.head.kind, -1)
        known = (sensors >= 0) & (item.time_ms >= 0)
        if kind >= 0 and known.any():
            series = sensors[known] * len(self.layout.kinds) + kind
            self.memory.remember(repeats.keys(series, item.time_ms[known]), item.value[known])

    def explain(self, row: Row, fate: int, gateway: str, now_ms: int) -> str:
        """Why a reading was refused: the field, its value, what was expected."""
        if row.error:
            return row.error
        sensor = self.city.sensors.get(row.sensor)
        kind = self.city.kinds.get(row.kind)
        own = ", ".join(sensor.kinds) if sensor else ""
        unit, span = (kind.unit, f"{kind.low:g} to {kind.high:g}") if kind else ("", "")
        late, early = self.tolerance.past_ms // DAY, self.tolerance.future_ms / 1000
        return {
            "conflict": f"value: {row.value!r}, but another value was accepted for that time",
            "sensor": f"sensor: {row.sensor!r} is not in the pack of {self.city.id}",
            "gateway": f"sensor: {row.sensor!r} does not belong to gateway {gateway!r}",
            "kind": f"kind: {row.kind!r} is not one of this sensor's ({own})",
            "unit": f"unit: {row.unit!r}, expected {unit!r}",
            "time": f"time: {row.time!r}, expected RFC 3339 with offset or milliseconds UTC",
            "future": f"time: {row.time!s} is more than {early:g} s after the clock ({now_ms})",
            "old": f"time: {row.time!s} is more than {late} days before the clock ({now_ms})",
            "value": f"value: {row.value!r} is not a finite number",
            "range": f"value: {row.value!r} is outside {span} {unit}".rstrip(),
            "quality": f"quality: {row.quality!r}, expected 0, 1 or 2",
        }.get(FATES[fate], FATES[fate])

    def _grid(self, kind: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        grid: npt.NDArray[np.float64] = self.layout.resolution[kind]
        return grid

    def _keys(self, rows: Candidates, good: npt.NDArray[np.intp]) -> repeats.Keys:
        series = rows.sensor[good].astype(np.int64) * len(self.layout.kinds) + rows.kind[good]
        return repeats.keys(series, rows.time_ms[good])
