"""Local wall-clock times to UTC, in bulk, with a rule for what a clock change does to them.

    spring   01:00  02:00 ....... 03:00        02:00 to 03:00 never was: such a time is missing
    autumn   01:00  02:00 - 03:00              02:00 to 03:00 was twice: such a time is doubled
                    02:00 - 03:00  04:00

Missing times belong to no instant and are refused. Of doubled times of one series, in the
order of the rows, those before the clock seems to go back (or stand still) are the first
pass, the others the second; where only one row is there, it is the first pass.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from citybrain.kinds import DAY, HOUR

Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Changes:
    """Clock changes of a zone: instants in UTC ms, offsets from UTC before and after in ms."""

    at_ms: Times
    before_ms: Times
    after_ms: Times
    offset_ms: int


def changes(zone: ZoneInfo, first_ms: int, last_ms: int) -> Changes:
    """All changes in [first, last] and two days around; `offset_ms` holds before the first."""
    step = 12 * HOUR
    probes = np.arange(first_ms - 2 * DAY, last_ms + 2 * DAY + step, step, dtype=np.int64)
    offsets = np.array([_offset(zone, int(t)) for t in probes], np.int64)
    found = []
    for i in np.flatnonzero(offsets[1:] != offsets[:-1]):
        low, high = int(probes[i]), int(probes[i + 1])
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == offsets[i] else (low, middle)
        found.append((high, int(offsets[i]), int(offsets[i + 1])))
    at, before, after = (
        (np.array(column, np.int64) for column in zip(*found, strict=True))
        if (found)
        else (np.empty(0, np.int64),) * 3
    )
    return Changes(at, before, after, int(offsets[0]))


def _offset(zone: ZoneInfo, utc_ms: int) -> int:
    moment = datetime.fromtimestamp(utc_ms / 1000, UTC).astimezone(zone)
    delta = moment.utcoffset()
    return 0 if delta is None else round(delta.total_seconds() * 1000)


@dataclass(frozen=True, slots=True)
class Resolved:
    """UTC ms by row (meaningless where missing), and which rows a clock change touched."""

    utc_ms: Times
    missing: Mask
    doubled: Mask


def resolve(local_ms: Times, series: npt.NDArray[Any], zone: ZoneInfo) -> Resolved:
    """UTC of local times (ms since 1970 as the wall clock shows them).

    series: number of the series that a row belongs to; rows stand in their file's order.
    """
    missing = np.zeros(len(local_ms), bool)
    doubled = np.zeros(len(local_ms), bool)
    if not len(local_ms):
        return Resolved(local_ms.copy(), missing, doubled)
    known = changes(zone, int(local_ms.min()), int(local_ms.max()))
    # On the wall clock a change spans [at + min, at + max) of the two offsets.
    begin = known.at_ms + np.minimum(known.before_ms, known.after_ms)
    end = known.at_ms + np.maximum(known.before_ms, known.after_ms)
    passed = np.searchsorted(end, local_ms, side="right")
    offsets = np.concatenate([[known.offset_ms], known.after_ms]).astype(np.int64)
    utc = local_ms - offsets[passed]
    for i in range(len(known.at_ms)):
        inside = (local_ms >= begin[i]) & (local_ms < end[i])
        if known.after_ms[i] > known.before_ms[i]:
            missing |= inside
            continue
        doubled |= inside
        rows = np.flatnonzero(inside)
        second = rows[_second_pass(local_ms[rows], series[rows])]
        utc[second] = local_ms[second] - known.after_ms[i]
    return Resolved(utc, missing, doubled)


def _second_pass(local_ms: Times, series: npt.NDArray[Any]) -> Mask:
    """Rows whose series has shown the same time or a later one before, in row order."""
    if not len(local_ms):
        return np.zeros(0, bool)
    order = np.argsort(series, kind="stable")
    sorted_ms, sorted_series = local_ms[order], series[order]
    first = np.concatenate([[True], sorted_series[1:] != sorted_series[:-1]])
    # One running maximum for all series: each starts above every time of the one before it.
    span = int(local_ms.max() - local_ms.min()) + 1
    lifted = sorted_ms - local_ms.min() + np.cumsum(first) * (2 * span)
    before = np.concatenate([[0], np.maximum.accumulate(lifted)[:-1]])
    second = np.zeros(len(local_ms), bool)
    second[order] = ~first & (before >= lifted)
    return second
