"""Local time of day and day class of UTC instants, for baselines.

The wall clock counts: at the end of summer time the repeated hour belongs to the same slots
twice, at its beginning the skipped hour's slots stay without a visit. A day is working or
free by the city's calendar.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from citybrain.city import Calendar
from citybrain.kinds import DAY, HOUR, MINUTE

WORKING, FREE = 0, 1
Ints = npt.NDArray[np.int64]
_QUARTER = 15 * MINUTE


class Daytime:
    """Turns UTC ms into (day class, local ms of day, local day number), remembering offsets."""

    def __init__(self, zone: ZoneInfo, calendar: Calendar) -> None:
        self._zone = zone
        self._calendar = calendar
        self._offsets: dict[int, int] = {}
        self._classes: dict[int, int] = {}

    def split(self, at_ms: Ints) -> tuple[Ints, Ints, Ints]:
        """Day class (0 working, 1 free), ms since local midnight, days since 1970-01-01.

        Zones change their offset at multiples of a quarter of an hour of UTC.
        """
        quarter, inverse = np.unique(at_ms // _QUARTER, return_inverse=True)
        offsets = np.array([self._offset(int(q)) for q in quarter], dtype=np.int64)
        local = at_ms + offsets[inverse]
        day = local // DAY
        days, which = np.unique(day, return_inverse=True)
        classes = np.array([self._class(int(d)) for d in days], dtype=np.int64)
        return classes[which], local % DAY, day

    def place(self, at_ms: int) -> tuple[int, int]:
        """Day class and ms since local midnight of one instant, as `split` gives them."""
        local = at_ms + self._offset(at_ms // _QUARTER)
        return self._class(local // DAY), local % DAY

    def midnight(self, at_ms: int) -> int:
        """UTC ms of the last local midnight at or before `at_ms`."""
        moment = datetime.fromtimestamp(at_ms / 1000, self._zone)
        start = datetime.combine(moment.date(), datetime.min.time(), self._zone)
        return int(start.timestamp()) * 1000

    def midnights(self, since_ms: int, until_ms: int) -> Sequence[int]:
        """UTC ms of every local midnight with since_ms < midnight <= until_ms, ascending."""
        found: list[int] = []
        at = self.midnight(until_ms)
        while at > since_ms:
            found.append(at)
            at = self.midnight(at - 1)
        return found[::-1]

    def _offset(self, quarter: int) -> int:
        if quarter not in self._offsets:
            moment = datetime.fromtimestamp(quarter * _QUARTER / 1000, UTC).astimezone(self._zone)
            offset = moment.utcoffset()
            if offset is None:
                raise ValueError(f"zone {self._zone} has no offset at {moment}")
            if len(self._offsets) > 100_000:
                self._offsets.clear()
            self._offsets[quarter] = round(offset.total_seconds() * 1000)
        return self._offsets[quarter]

    def _class(self, day: int) -> int:
        if day not in self._classes:
            free = self._calendar.is_free(date.fromordinal(date(1970, 1, 1).toordinal() + day))
            self._classes[day] = FREE if free else WORKING
        return self._classes[day]


def slots_of(step_ms: int) -> int:
    """How many time-of-day slots a baseline on windows of `step_ms` has: 15 minutes or longer."""
    return DAY // max(_QUARTER, min(step_ms, HOUR))
