"""Windows from raw readings in bulk: sorted once, then reduced length by length. Pure numpy.

All arrays are in the order (sensor, time); a group is a run of equal (sensor, start).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grouped:
    """Windows of one length, by (sensor, start): only those with readings."""

    sensor: Integers
    start_ms: Integers
    seen: Integers
    sum: Floats
    sumsq: Floats
    min: Floats
    max: Floats
    last: Floats
    generated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sensor)

    def between(self, first_ms: int, last_ms: int) -> "Grouped":
        """Those that start in [first, last)."""
        keep = (self.start_ms >= first_ms) & (self.start_ms < last_ms)
        return self if keep.all() else self.take(np.flatnonzero(keep))

    def take(self, rows: npt.NDArray[np.intp]) -> "Grouped":
        """Some of them, by row."""
        return Grouped(*(getattr(self, name)[rows] for name in self.__slots__))


def of_readings(
    sensor: Integers,
    time_ms: Integers,
    value: Floats,
    generated: npt.NDArray[np.bool_],
    known_ms: Integers,
) -> Grouped:
    """Readings as windows of a moment each. Of several of one sensor at one time, the one that
    was known first counts."""
    order = np.lexsort((known_ms, time_ms, sensor))
    by, at = sensor[order], time_ms[order]
    order = order[np.append(True, (by[1:] != by[:-1]) | (at[1:] != at[:-1]))[: len(order)]]
    sensor, time_ms, value = sensor[order], time_ms[order], value[order]
    one = np.ones(len(sensor), np.int64)
    same = generated[order]
    return Grouped(sensor, time_ms, one, value, value * value, value, value, value, same)


def tumbling(parts: Grouped, window_ms: int) -> Grouped:
    """Windows of one length from shorter ones (or readings) that lie within them."""
    return _reduced(parts, parts.start_ms - parts.start_ms % window_ms)


def rolling(parts: Grouped, window_ms: int, step_ms: int) -> Grouped:
    """Windows of one length at every step, from windows of the length of a step."""
    times = window_ms // step_ms
    rows = np.repeat(np.arange(len(parts)), times)
    back = np.tile(np.arange(times - 1, -1, -1, dtype=np.int64), len(parts)) * step_ms
    starts = parts.start_ms[rows] - back
    order = np.lexsort((starts, parts.sensor[rows]))
    return _reduced(parts.take(rows[order]), starts[order])


def _reduced(parts: Grouped, starts: Integers) -> Grouped:
    if not len(parts):
        return parts
    new = np.ones(len(parts), np.bool_)
    new[1:] = (parts.sensor[1:] != parts.sensor[:-1]) | (starts[1:] != starts[:-1])
    edges = np.flatnonzero(new)
    ends = np.append(edges[1:], len(parts)) - 1
    return Grouped(
        sensor=parts.sensor[edges],
        start_ms=starts[edges],
        seen=np.add.reduceat(parts.seen, edges),
        sum=np.add.reduceat(parts.sum, edges),
        sumsq=np.add.reduceat(parts.sumsq, edges),
        min=np.minimum.reduceat(parts.min, edges),
        max=np.maximum.reduceat(parts.max, edges),
        last=parts.last[ends],
        generated=np.logical_or.reduceat(parts.generated, edges),
    )
