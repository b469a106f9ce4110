"""One closed window of one kind, laid out in the order of a shard's sensors."""

from dataclasses import dataclass

import numpy as np

from citybrain.kinds import Kind
from citybrain.models.baseline import Expected
from citybrain.models.block import Array
from citybrain.stats import Stats

MIN_SHARE = 0.75
"""Share of a window's expected readings that a total needs to be believed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Columns [n] in the order of the shard's roster; NaN where a sensor said nothing.

    total: the sum of the readings. value: what models work on: the mean, or for kinds that
    total the sum, scaled to a full window where a few readings are missing and NaN where
    more than a quarter are. usual: what the baseline expects, if there is one. parked:
    sensors in maintenance. absent: gateways that had said that they would be away.
    """

    kind: Kind
    window_ms: int
    start_ms: int
    expected: int
    count: Array
    total: Array
    value: Array
    min: Array
    max: Array
    last: Array
    last_ms: Array
    parked: Array
    usual: Expected | None = None
    absent: frozenset[str] = frozenset()

    @property
    def end_ms(self) -> int:
        """End of the window."""
        return self.start_ms + self.window_ms


def lay_out(stats: Stats, kind: Kind, index: Array, parked: Array) -> Seen:
    """Columns of a stats message in the roster's order.

    index [n]: row of the message for each sensor of the roster, -1 for none.
    """
    there = index >= 0

    def column(values: Array, missing: float) -> Array:
        if there.all():
            return values[index]
        return np.where(there, values[np.where(there, index, 0)], missing)

    if not len(stats):
        there = np.zeros(len(index), dtype=bool)
        nan = np.full(len(index), np.nan)
        none = np.zeros(len(index), dtype=np.int64)
        return Seen(kind, stats.head.window_ms, stats.head.start_ms, stats.head.expected, none,
                    np.zeros(len(index)), nan, nan, nan, nan, none - 1, parked,
                    absent=frozenset(stats.head.absent))  # fmt: skip
    count, total = column(stats.seen, 0), column(stats.sum, 0.0)
    return Seen(
        kind=kind,
        window_ms=stats.head.window_ms,
        start_ms=stats.head.start_ms,
        expected=stats.head.expected,
        count=count,
        total=total,
        value=window_value(kind, count, total, stats.head.expected),
        min=column(stats.min, np.nan),
        max=column(stats.max, np.nan),
        last=column(stats.last, np.nan),
        last_ms=column(stats.last_ms, -1),
        parked=parked,
        absent=frozenset(stats.head.absent),
    )


def window_value(kind: Kind, count: Array, total: Array, expected: int | Array) -> Array:
    """The value of a window that models work on (see `Seen.value`), by element."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind.total:
            enough = (count >= MIN_SHARE * np.asarray(expected)) & (count > 0)
            scaled = total * np.maximum(1.0, expected / count)
            return np.where(enough, scaled, np.nan)
        return np.where(count > 0, total / count, np.nan)
