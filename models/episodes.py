"""From scores to episodes: hysteresis, duration, refractory time. One rule, many places.

score   . . 3 4 4 2 . . . . .        raise_at 3, clear_at 2, hold 2 windows, 3 calm rows
episode       R       C              R raised, C cleared
onset       ^                        first window that supports it
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citybrain.kinds import MINUTE
from citybrain.models.block import Array, Arrays

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Limits:
    """When an episode begins and ends, in the detector's scale.

    below: low scores are bad. hold_ms: how long a score must stay before it raises.
    calm_rows: windows on the good side of `clear_at` that end it. quiet_ms: how long after
    its end no new one begins. stale_ms: without any score for so long it ends as unknown.
    levels: further marks; passing one is an update. repeat_ms: an update is due after so
    long in any case.
    """

    raise_at: float
    clear_at: float
    below: bool = False
    hold_ms: int = 0
    calm_rows: int = 1
    quiet_ms: int = 0
    stale_ms: int = 60 * MINUTE
    levels: tuple[float, ...] = ()
    repeat_ms: int = 180 * MINUTE


@dataclass(frozen=True, slots=True)
class Transitions:
    """Rows whose episode was raised, updated, cleared, with its onset (of all rows).

    reason: per cleared row `calm`, `no-data` or `maintenance`.
    """

    raised: Rows
    updated: Rows
    cleared: Rows
    onset_ms: Rows
    reason: tuple[str, ...]


_NONE = np.zeros(0, dtype=np.int64)
_NOTHING = Transitions(_NONE, _NONE, _NONE, _NONE, ())


def fresh(n: int) -> Arrays:
    """State of `n` places without an episode."""
    return {
        "active": np.zeros(n, dtype=bool),
        "onset_ms": np.full(n, -1, dtype=np.int64),
        "calm": np.zeros(n, dtype=np.int32),
        "quiet_until_ms": np.zeros(n, dtype=np.int64),
        "known_ms": np.zeros(n, dtype=np.int64),
        "reported": np.zeros(n),
        "reported_ms": np.zeros(n, dtype=np.int64),
    }


def step(
    state: Arrays, limits: Limits, score: Array, start_ms: int, end_ms: int, parked: Array
) -> Transitions:
    """Take the scores [n] of one window (NaN: unknown); changes `state` in place."""
    sign = -1.0 if limits.below else 1.0
    s = np.where(parked, np.nan, sign * score)
    raise_at, clear_at = sign * limits.raise_at, sign * limits.clear_at
    active, onset, calm = state["active"], state["onset_ms"], state["calm"]
    known = ~np.isnan(s)
    state["known_ms"][known] = end_ms
    over = s >= raise_at  # NaN is not
    if not over.any() and onset.max(initial=-1) < 0:
        return _NOTHING  # and nothing is active: what is active has an onset
    low = s < clear_at

    onset[over & (onset < 0)] = start_ms
    onset[(low | parked) & ~active] = -1
    raised = over & ~active & (end_ms - onset >= limits.hold_ms)
    raised &= end_ms >= state["quiet_until_ms"]

    calm[:] = np.where(low & active, calm + 1, np.where(known, 0, calm))
    ended = active & (calm >= limits.calm_rows)
    stale = active & ~known & ~parked & (end_ms - state["known_ms"] >= limits.stale_ms)
    parted = active & parked
    cleared = ended | stale | parted

    size = np.maximum(np.abs(state["reported"]), abs(raise_at))
    grown = s - state["reported"] >= np.maximum(0.25 * size, 1e-9)
    if limits.levels:
        marks = np.sort(sign * np.array(limits.levels))
        grown |= np.searchsorted(marks, s, "right") != np.searchsorted(
            marks, state["reported"], "right"
        )
    due = end_ms - state["reported_ms"] >= limits.repeat_ms
    updated = active & known & ~cleared & (grown | due)

    onsets = onset.copy()
    told = raised | updated
    state["reported"][told] = s[told]
    state["reported_ms"][told] = end_ms
    active[raised] = True
    active[cleared] = False
    onset[cleared] = -1
    calm[cleared | raised] = 0
    state["quiet_until_ms"][cleared] = end_ms + limits.quiet_ms
    rows = np.flatnonzero(cleared)
    why = tuple(
        "maintenance" if parted[i] else "no-data" if stale[i] and not ended[i] else "calm"
        for i in rows
    )
    return Transitions(np.flatnonzero(raised), np.flatnonzero(updated), rows, onsets, why)
