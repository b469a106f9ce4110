"""Screening: which rows of a batch are counted, and why the others are not.

The edge agent has validated already; this is the engine's own door, so that an agent that
is old, wrong or not ours cannot spoil the statistics.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citybrain.batch import BAD, Batch
from citybrain.columns import Roster
from citybrain.grid import snap
from citybrain.kinds import MINUTE, Kind
from citybrain.models.panes import Where, numbers

FUTURE_MS = 5 * MINUTE
"""How far a reading may lie ahead of its agent's and of the broker's clock."""

REASONS = {
    "sensor": "sensor is not one of this shard's with this kind in the pack",
    "not-a-number": "value is not a finite number",
    "range": "value is outside the kind's range",
    "future": "time is too far ahead of the clocks of its agent and of the broker",
    "quality": "the device itself says that the reading is bad",
}
"""Reasons of refused rows, in the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Screened:
    """Rows to count, as numbers of the shard's sensors; and rows refused, by reason.

    sensor: a slice if the rows run through neighbours.
    """

    sensor: Where
    time_ms: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    rows: npt.NDArray[np.intp] | None
    refused: dict[str, npt.NDArray[np.intp]]

    def original(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Rows of the batch that counted rows came from."""
        return rows if self.rows is None else self.rows[rows]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a roster's sensors are in the state. first: of a run of neighbours, else -1.
    in_order: bytes of the codes 0, 1, 2 and so on."""

    number: npt.NDArray[np.intp]
    first: int
    in_order: bytes


class Screen:
    """The door of one kind in one shard; `names` are its sensors in the order of the state."""

    def __init__(self, kind: Kind, names: tuple[str, ...]) -> None:
        self.kind = kind
        self._number = {name: i for i, name in enumerate(names)}
        self._places: dict[Roster, _Place] = {}

    def screen(self, batch: Batch, latest_ms: int) -> Screened:
        """Judge every row. latest_ms: readings after it are in the future."""
        place, count = self._place(batch.roster), len(batch)
        time_ms, value, kind = batch.time_ms, batch.value, self.kind
        least, most = np.minimum.reduce, np.maximum.reduce
        sensor: Where
        if place.first >= 0 and batch.codes.tobytes() == place.in_order[: 4 * count]:
            sensor = slice(place.first, place.first + count)
        else:
            sensor = place.number[batch.codes]
        refused: dict[str, npt.NDArray[np.intp]] = {}
        rows = None
        # NaN compares false, so one pass over sums of extremes clears a good batch.
        if count and not (
            (isinstance(sensor, slice) or least(sensor) >= 0)
            and least(value) >= kind.low
            and most(value) <= kind.high
            and most(time_ms) <= latest_ms
            and most(batch.quality) < BAD
        ):
            sensor = numbers(sensor)
            good = np.ones(count, np.bool_)
            wrong = {
                "sensor": sensor < 0,
                "not-a-number": ~np.isfinite(value),
                "range": ~((value >= kind.low) & (value <= kind.high)),
                "future": time_ms > latest_ms,
                "quality": batch.quality >= BAD,
            }
            for reason in REASONS:
                hit = wrong[reason] & good
                good &= ~hit
                if hit.any():
                    refused[reason] = np.flatnonzero(hit)
            rows = np.flatnonzero(good)
            sensor, time_ms, value = sensor[rows], time_ms[rows], value[rows]
        return Screened(sensor, time_ms, snap(value, kind.resolution), rows, refused)

    def _place(self, roster: Roster) -> _Place:
        place = self._places.get(roster)
        if place is None:
            if len(self._places) >= 4_096:
                self._places.clear()
            number = np.array([self._number.get(name, -1) for name in roster.names], np.intp)
            run = len(number) and number[0] >= 0 and bool((np.diff(number) == 1).all())
            first = int(number[0]) if run else -1
            in_order = np.arange(len(number) if run else 0, dtype=np.int32).tobytes()
            place = _Place(number, first, in_order)
            self._places[roster] = place
        return place


def part(batch: Batch, rows: npt.NDArray[np.intp]) -> Batch:
    """The batch with only these rows, and only their sensors in its roster."""
    used, codes = np.unique(batch.codes[rows], return_inverse=True)
    roster = Roster(tuple(batch.roster.names[code] for code in used.tolist()))
    return Batch(
        batch.head, roster, codes.astype(np.int32), batch.time_ms[rows], batch.value[rows],
        batch.quality[rows],
    )  # fmt: skip
