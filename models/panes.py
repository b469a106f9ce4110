"""Panes: what the readings of one window say, for every sensor, as dense arrays.

Merging panes is commutative and associative, and on a binary grid it is exact: readings may
come in any order and by any detour, the result is the same to the last bit. `last` is the
reading with the highest (time, order, value); `order` is the caller's number for (gateway,
sequence).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Where = slice | npt.NDArray[np.intp]
"""Which sensors: a run of neighbours, or their numbers (which may repeat)."""


def numbers(where: Where) -> npt.NDArray[np.intp]:
    """The sensors' numbers, also of a run."""
    return np.arange(where.start, where.stop) if isinstance(where, slice) else where


NEVER = np.iinfo(np.int64).min
CHUNK = 8_192
"""Sensors in one block of saved state: 65 bytes each, so a block stays near half a megabyte."""

EMPTY: dict[str, tuple[type[np.generic], float]] = {
    "seen": (np.int32, 0),
    "late": (np.int32, 0),
    "dirty": (np.bool_, False),
    "sum": (np.float64, 0.0),
    "sumsq": (np.float64, 0.0),
    "min": (np.float64, np.inf),
    "max": (np.float64, -np.inf),
    "last": (np.float64, -np.inf),
    "last_ms": (np.int64, NEVER),
    "order": (np.int64, NEVER),
}


class Lateness:
    """Who was changed since a window was last told, and how often since it was first told."""

    columns: tuple[str, ...] = ("late", "dirty")

    def __init__(self, width: int) -> None:
        self.width = width
        self.revision = 0
        self.touched: set[int] = set()
        for name in self.columns:
            dtype, empty = EMPTY[name]
            setattr(self, name, np.full(width, empty, dtype))

    late: npt.NDArray[np.int32]
    dirty: npt.NDArray[np.bool_]

    def mark_late(self, where: Where) -> None:
        """One more late reading at each of `where`."""
        if isinstance(where, slice):
            self.late[where] += 1
        else:
            np.add.at(self.late, where, 1)
        self.dirty[where] = True
        self._touch(where)

    def take_dirty(self) -> npt.NDArray[np.intp]:
        """The sensors that changed since the last call; the next revision begins."""
        changed = np.flatnonzero(self.dirty)
        self.dirty[changed] = False
        self._touch(changed)
        self.revision += 1
        return changed

    def block(self, chunk: int) -> dict[str, Array]:
        """One chunk of the arrays: views, to be used before anything is added."""
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        return {name: getattr(self, name)[part] for name in self.columns}

    def load(self, into: npt.NDArray[np.intp], data: Mapping[str, Array]) -> None:
        """Put saved values back at the sensors `into`."""
        for name in self.columns:
            getattr(self, name)[into] = data[name]

    def touch_all(self) -> None:
        """Everything is to be saved again."""
        self.touched.update(range(-(-self.width // CHUNK)))

    def _touch(self, where: Where) -> None:
        if isinstance(where, slice):
            self.touched.update(range(where.start // CHUNK, (where.stop - 1) // CHUNK + 1))
        elif self.width <= CHUNK:
            self.touched.add(0)
        else:
            self.touched.update(np.unique(where // CHUNK).tolist())


class Pane(Lateness):
    """The statistics of one window. All arrays have one entry a sensor."""

    columns = tuple(EMPTY)
    seen: npt.NDArray[np.int32]
    sum: npt.NDArray[np.float64]
    sumsq: npt.NDArray[np.float64]
    min: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]
    last_ms: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]

    def add_run(self, where: slice, time_ms: int, value: Array, square: Array, order: int) -> None:
        """Add one reading for each of a run of neighbouring sensors, all of one time."""
        seen, total, squares = self.seen[where], self.sum[where], self.sumsq[where]
        low, high, last = self.min[where], self.max[where], self.last[where]
        at, by = self.last_ms[where], self.order[where]
        seen += 1
        total += value
        squares += square
        np.minimum(low, value, out=low)
        np.maximum(high, value, out=high)
        newer = at < time_ms
        if np.logical_and.reduce(newer):
            last[:], at[:], by[:] = value, time_ms, order
        else:
            same = at == time_ms
            newer |= same & (by < order)
            same &= by == order
            np.maximum(last, value, out=last, where=same)
            np.copyto(last, value, where=newer)
            np.copyto(at, time_ms, where=newer)
            np.copyto(by, order, where=newer)
        self._touch(where)

    def add(
        self, where: npt.NDArray[np.intp], time_ms: Array, value: Array, square: Array, order: int
    ) -> None:
        """Add readings of sensors in any order; a sensor may come more than once."""
        np.add.at(self.seen, where, 1)
        np.add.at(self.sum, where, value)
        np.add.at(self.sumsq, where, square)
        np.minimum.at(self.min, where, value)
        np.maximum.at(self.max, where, value)
        was_ms, was_by = self.last_ms[where], self.order[where]
        np.maximum.at(self.last_ms, where, time_ms)
        newest = time_ms == self.last_ms[where]
        newer = newest & ((time_ms > was_ms) | (was_by < order))
        wins = newest & (newer | (was_by == order))
        self.last[where[newer]] = -np.inf
        np.maximum.at(self.last, where[wins], value[wins])
        self.order[where[newer]] = order
        self._touch(where)

    def merge(self, other: "Pane", where: npt.NDArray[np.intp] | None = None) -> None:
        """Add all readings of another pane (of its sensors `where`); lateness stays apart."""

        def of(name: str) -> Array:
            column: Array = getattr(other, name)
            return column if where is None else column[where]

        self.seen += of("seen")
        self.sum += of("sum")
        self.sumsq += of("sumsq")
        np.minimum(self.min, of("min"), out=self.min)
        np.maximum(self.max, of("max"), out=self.max)
        last, at, by = of("last"), of("last_ms"), of("order")
        same = at == self.last_ms
        newer = (at > self.last_ms) | (same & (by > self.order))
        same &= by == self.order
        np.maximum(self.last, last, out=self.last, where=same)
        np.copyto(self.last, last, where=newer)
        np.copyto(self.last_ms, at, where=newer)
        np.copyto(self.order, by, where=newer)
        self.touch_all()


def combined(panes: Iterable[Pane], where: npt.NDArray[np.intp] | None, width: int) -> Pane:
    """One pane with the readings of several, for all `width` sensors or those in `where`."""
    whole = Pane(width if where is None else len(where))
    for pane in panes:
        whole.merge(pane, where)
    return whole
