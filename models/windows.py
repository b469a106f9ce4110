"""Windows of one kind for the sensors of one shard: tumbling, rolling, exact, revised.

A reading enters the shortest window only. A window closes when the watermark less the
allowed delay has passed its end: it is told as revision 0 and merged into the next longer
one. A late reading goes into the closed window and, as that has been merged already, into
the longer one too, and so on upwards. So every window always holds each reading once:

    watermark - delay           |
    15 min   [........................... open, holds what its closed 5 min hold ...
     5 min   [ closed, merged ][ open, holds what its closed minutes hold .......
     1 min   [  ][  ][  ][  ][  ][  ] open

Rolling windows are combined from the longest tumbling ones and stepped by them. Readings
older than the ring are given back: they belong to the backfill.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from citybrain.models.panes import CHUNK, Array, Lateness, Pane, Where, combined, numbers

RUN = 32
"""Mean length of runs from which slices beat scattered adding."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A window as it is to be told: revision 0 for all sensors, later ones for the changed.

    sensor: numbers of the sensors, ascending; all columns have its length. Where seen = 0:
    sums 0, min, max and last NaN, last_ms -1.
    """

    window_ms: int
    step_ms: int
    start_ms: int
    revision: int
    sensor: npt.NDArray[np.intp]
    seen: npt.NDArray[np.int32]
    late: npt.NDArray[np.int32]
    sum: npt.NDArray[np.float64]
    sumsq: npt.NDArray[np.float64]
    min: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]
    last_ms: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of readings: late ones of the counted, rows that are too old, latest time."""

    counted: int
    late: int
    too_old: npt.NDArray[np.intp]
    newest_ms: int


_NONE = np.empty(0, np.intp)


class Windows:
    """All windows of `width` sensors; times are UTC milliseconds.

    windows_ms ascending, each a multiple of the one before; rolling_ms multiples of the
    last. `closed_ms` is the end of the last closed shortest window, None before `begin`.
    Raises ValueError if the lengths do not fit each other.
    """

    def __init__(
        self,
        width: int,
        windows_ms: Iterable[int],
        rolling_ms: Iterable[int] = (),
        delay_ms: int = 0,
        ring_ms: int = 0,
    ) -> None:
        self.width = width
        self.windows_ms, self.rolling_ms = tuple(windows_ms), tuple(rolling_ms)
        self.step_ms = self.windows_ms[-1]
        for length, part in (
            *zip(self.windows_ms[1:], self.windows_ms, strict=False),
            *((rolling, self.step_ms) for rolling in self.rolling_ms),
        ):
            if length % part or length <= part:
                raise ValueError(f"window of {length} ms is not a multiple of {part} ms")
        self.delay_ms, self.ring_ms = delay_ms, ring_ms
        self.closed_ms: int | None = None
        self._panes: dict[int, dict[int, Pane]] = {w: {} for w in self.windows_ms}
        # Rolling windows that were revised, by length and end; their readings are in the panes.
        self._late: dict[int, dict[int, Lateness]] = {r: {} for r in self.rolling_ms}
        self._pending: set[tuple[int, int]] = set()
        self._gone: list[str] = []

    @property
    def pane_ms(self) -> int:
        """Length of the shortest window."""
        return self.windows_ms[0]

    @property
    def horizon_ms(self) -> int:
        """Readings before this time are too old. Call after `begin`."""
        assert self.closed_ms is not None
        return _floor(self.closed_ms - self.ring_ms, self.pane_ms)

    @property
    def pending(self) -> bool:
        """Whether late readings changed something that has not been told yet."""
        return bool(self._pending)

    def begin(self, first_ms: int) -> None:
        """The first window to be told at revision 0 is the one that holds `first_ms`."""
        if self.closed_ms is None:
            self.closed_ms = _floor(first_ms, self.pane_ms)

    def add(
        self,
        sensor: Where,
        time_ms: npt.NDArray[np.int64],
        value: npt.NDArray[np.float64],
        order: int,
    ) -> Added:
        """Add readings, in any order. value: finite and on the kind's grid.

        Fast where `sensor` runs through neighbours at one time, for as long as may be; fastest
        as a slice.
        """
        if not len(value):
            return Added(0, 0, _NONE, 0)
        oldest, newest = int(np.minimum.reduce(time_ms)), int(np.maximum.reduce(time_ms))
        if self.closed_ms is None:
            self.begin(oldest)
        too_old = _NONE
        if oldest < self.horizon_ms:
            old = time_ms < self.horizon_ms
            too_old, keep = np.flatnonzero(old), ~old
            sensor, time_ms, value = numbers(sensor)[keep], time_ms[keep], value[keep]
        late, count = 0, len(value)
        square = value * value
        edges = [0, count]
        if oldest != newest or not isinstance(sensor, slice):
            cut = time_ms[1:] != time_ms[:-1]
            if not isinstance(sensor, slice):
                cut |= sensor[1:] != sensor[:-1] + 1
            edges[1:1] = (np.flatnonzero(cut) + 1).tolist()
        if (len(edges) - 1) * RUN <= count or (isinstance(sensor, slice) and len(edges) == 2):
            for a, b in pairwise(edges):
                first = sensor.start + a if isinstance(sensor, slice) else int(sensor[a])
                at = int(time_ms[a])
                where = slice(first, first + b - a)
                for pane in self._holding(where, at):
                    pane.add_run(where, at, value[a:b], square[a:b], order)
                late += (b - a) * self._is_closed(at)
        else:
            sensor = numbers(sensor)
            for rows, at in _by_pane(time_ms, self.pane_ms):
                where_rows = sensor[rows]
                for pane in self._holding(where_rows, at):
                    pane.add(where_rows, time_ms[rows], value[rows], square[rows], order)
                late += len(where_rows) * self._is_closed(at)
        return Added(count, late, too_old, newest)

    def advance(self, watermark_ms: int) -> list[Closed]:
        """Close what ends before the watermark less the delay; by end, then by length.

        After a silence longer than the ring, only the last ring's worth of empty windows is
        told, and whatever holds readings.
        """
        until = _floor(watermark_ms - self.delay_ms, self.pane_ms)
        if self.closed_ms is None:
            self.begin(watermark_ms - self.delay_ms)
        assert self.closed_ms is not None
        if until <= self.closed_ms:
            return []
        told: list[Closed] = []
        for end in self._ends(self.closed_ms, until):
            told += self._close(end)
            self.closed_ms = end
        self.closed_ms = until
        told += self._forget()
        return told

    def revisions(self) -> list[Closed]:
        """What late readings changed since the last call, by end, then by length."""
        changed = sorted(self._pending, key=lambda w: (w[1] + w[0], w[0]))
        return [self._revise(length, start) for length, start in changed]

    def changed(self) -> Iterator[tuple[str, dict[str, Array] | None]]:
        """State that changed since the last call: (name, arrays), None for one that is gone.

        The arrays are views: use them before anything is added. The names are
        `<length>/<start>/<chunk>`. `marks` goes with it.
        """
        gone, self._gone = self._gone, []
        yield from ((name, None) for name in gone)
        for length, start, pane in self._all():
            for chunk in sorted(pane.touched):
                yield f"{length}/{start}/{chunk}", pane.block(chunk)
            pane.touched.clear()

    def marks(self) -> dict[str, int]:
        """The rest of the state: the revision of each window that has one."""
        return {f"{w}/{s}": pane.revision for w, s, pane in self._all() if pane.revision}

    def restore(
        self,
        closed_ms: int | None,
        marks: Mapping[str, int],
        blocks: Mapping[str, Mapping[str, Array]],
        place: npt.NDArray[np.intp] | None = None,
    ) -> None:
        """Become the state that `closed_ms`, `marks` and all of `changed` described.

        place: today's number of each saved sensor, -1 for one that is no more; then all of
        the state counts as changed. Windows of lengths that are no more are left out.
        """
        self.closed_ms = closed_ms
        for name, data in blocks.items():
            length, start, chunk = (int(part) for part in name.split("/"))
            if length not in self._panes and length not in self._late:
                self._gone.append(name)
                continue
            pane = self._pane(length, start)
            into = np.arange(chunk * CHUNK, chunk * CHUNK + len(data["late"]))
            if place is not None:
                into = place[into]
                stays = into >= 0
                into, data = into[stays], {key: column[stays] for key, column in data.items()}
                pane.touch_all()
                self._gone.append(name)
            pane.load(into, data)
            pane.revision = marks.get(f"{length}/{start}", 0)
            if pane.dirty.any():
                self._pending.add((length, start))

    def _is_closed(self, at: int) -> bool:
        assert self.closed_ms is not None
        return at < self.closed_ms

    def _pane(self, length: int, start: int) -> Lateness:
        if length in self._late:
            return self._late[length].setdefault(start, Lateness(self.width))
        panes = self._panes[length]
        pane = panes.get(start)
        if pane is None:
            pane = panes[start] = Pane(self.width)
        return pane

    def _holding(self, where: Where, at: int) -> Iterator[Pane]:
        """The panes that take a reading of time `at`; those that are late are marked."""
        assert self.closed_ms is not None
        for length in self.windows_ms:
            start = _floor(at, length)
            pane = self._pane(length, start)
            assert isinstance(pane, Pane)
            yield pane
            if start + length > self.closed_ms:
                return
            pane.mark_late(where)
            self._pending.add((length, start))
        first = _floor(at, self.step_ms) + self.step_ms
        last = _floor(self.closed_ms, self.step_ms)
        for length in self.rolling_ms:
            for end in range(first, min(last, first - self.step_ms + length) + 1, self.step_ms):
                self._pane(length, end - length).mark_late(where)
                self._pending.add((length, end - length))

    def _ends(self, closed: int, until: int) -> list[int]:
        """Ends of windows to close: all of the last ring, before it those with readings."""
        full = max(closed, _floor(until - self.ring_ms, self.pane_ms))
        ends = set(range(full + self.pane_ms, until + 1, self.pane_ms))
        if full > closed:
            starts = {s for panes in self._panes.values() for s in panes}
            reach = max(self.rolling_ms, default=0)
            for start in starts:
                ends.update(_floor(start, w) + w for w in self.windows_ms)
                first = _floor(start, self.step_ms) + self.step_ms
                ends.update(range(first, first + reach, self.step_ms))
        return sorted(end for end in ends if closed < end <= until)

    def _close(self, end: int) -> list[Closed]:
        told: list[Closed] = []
        for length, longer in zip(self.windows_ms, (*self.windows_ms[1:], 0), strict=True):
            if end % length:
                return told
            start = end - length
            pane = self._panes[length].get(start)
            told.append(_told(pane or Pane(self.width), length, length, start))
            if longer and pane:
                parent = self._pane(longer, _floor(start, longer))
                assert isinstance(parent, Pane)
                parent.merge(pane)
        for length in self.rolling_ms:
            whole = combined(self._within(end - length, end), None, self.width)
            told.append(_told(whole, length, self.step_ms, end - length))
        return told

    def _within(self, start: int, end: int) -> Iterator[Pane]:
        panes = self._panes[self.step_ms]
        return (panes[s] for s in range(start, end, self.step_ms) if s in panes)

    def _revise(self, length: int, start: int) -> Closed:
        self._pending.discard((length, start))
        marks = self._pane(length, start)
        sensor = marks.take_dirty()
        panes = [marks] if isinstance(marks, Pane) else self._within(start, start + length)
        step = length if isinstance(marks, Pane) else self.step_ms
        whole = combined((p for p in panes if isinstance(p, Pane)), sensor, self.width)
        whole.late[:] = marks.late[sensor]
        whole.revision = marks.revision
        return _told(whole, length, step, start, sensor)

    def _forget(self) -> list[Closed]:
        """Drop what no reading can reach any more, telling first what is still untold."""
        horizon = self.horizon_ms
        reach = max(self.rolling_ms, default=0)
        over = [
            (length, start)
            for length, start, _ in self._all()
            if start + length <= horizon - (reach if length == self.step_ms else 0)
        ]
        untold = [(w, s) for w, s in self._pending if s + w <= horizon]
        told = [self._revise(w, s) for w, s in sorted(untold, key=lambda w: (w[1] + w[0], w[0]))]
        for length, start in over:
            chunks = range(-(-self.width // CHUNK))
            self._gone += [f"{length}/{start}/{chunk}" for chunk in chunks]
            (self._late if length in self._late else self._panes)[length].pop(start)
        return told

    def _all(self) -> Iterator[tuple[int, int, Lateness]]:
        for table in (self._panes, self._late):
            for length, panes in table.items():
                for start, pane in panes.items():
                    yield length, start, pane


def _floor(at: int, length: int) -> int:
    return at - at % length


def _by_pane(time_ms: Array, length: int) -> Iterator[tuple[Where, int]]:
    """Rows that fall into the same shortest window, and its start."""
    starts = time_ms - time_ms % length
    first = int(starts[0]) if len(starts) else 0
    if (starts == first).all():
        if len(starts):
            yield slice(0, len(starts)), first
        return
    for start in np.unique(starts).tolist():
        yield np.flatnonzero(starts == start), start


def _told(
    pane: Pane,
    length: int,
    step: int,
    start: int,
    sensor: npt.NDArray[np.intp] | None = None,
) -> Closed:
    none = pane.seen == 0
    return Closed(
        window_ms=length,
        step_ms=step,
        start_ms=start,
        revision=pane.revision,
        sensor=np.arange(pane.width) if sensor is None else sensor,
        seen=pane.seen.copy(),
        late=pane.late.copy(),
        sum=pane.sum.copy(),
        sumsq=pane.sumsq.copy(),
        min=np.where(none, np.nan, pane.min),
        max=np.where(none, np.nan, pane.max),
        last=np.where(none, np.nan, pane.last),
        last_ms=np.where(none, -1, pane.last_ms),
    )
