"""What is wrong with a device: it is silent, stuck, chattering, or says the impossible.

Each condition is a score a sensor, 1 where it begins to hold. Judged on windows, so an
outage is known to the window; durations come from the kind's `Health` row.
"""

from typing import Protocol

import numpy as np

from citybrain.kinds import Kind
from citybrain.models.block import Array, Arrays
from citybrain.models.seen import Seen


class Condition(Protocol):
    """One way to be unwell."""

    name: str
    calm_rows: int

    def applies(self, kind: Kind) -> bool:
        """Whether a sensor of this kind can be unwell in this way."""

    def window_ms(self, kind: Kind) -> int:
        """The windows it is judged on."""

    def fresh(self, n: int) -> Arrays:
        """State of `n` sensors before the first window."""

    def score(self, state: Arrays, seen: Seen, dark: Array) -> Array:
        """1 or more where the condition holds; NaN where this window says nothing of it.

        dark: sensors of which nothing could be heard, whatever they said.
        """


def _same(times: Array, value: int) -> Array:
    return np.where(times < 0, value, times)


class Silent:
    """Nothing heard: time since the last reading over `silent_ms`.

    A sensor that has never spoken is counted from the first window that was looked at; a
    parked one from the end of its maintenance. While it is dark its time stands still.
    """

    name = "silent"
    calm_rows = 1

    def applies(self, kind: Kind) -> bool:
        """Every sensor can fall silent."""
        return True

    def window_ms(self, kind: Kind) -> int:
        """The shortest window."""
        return kind.pane_ms

    def fresh(self, n: int) -> Arrays:
        """heard_ms: when it last spoke, -1 before the first window."""
        return {"heard_ms": np.full(n, -1, dtype=np.int64)}

    def score(self, state: Arrays, seen: Seen, dark: Array) -> Array:
        """As in `Condition`."""
        heard = _same(state["heard_ms"], seen.start_ms)
        heard = np.maximum(heard, np.where(seen.count > 0, seen.last_ms, -1))
        heard = np.where(dark, heard + seen.window_ms, heard)
        state["heard_ms"][:] = np.where(seen.parked, seen.end_ms, heard)
        score = (seen.end_ms - heard) / seen.kind.health.silent_ms
        return np.where(dark, np.nan, score)


class Stuck:
    """The same value, other than the kind's value at rest, for longer than `stuck_ms`."""

    name = "stuck"
    calm_rows = 1

    def applies(self, kind: Kind) -> bool:
        """Not where a constant value is normal."""
        return kind.health.stuck_ms is not None

    def window_ms(self, kind: Kind) -> int:
        """The shortest window."""
        return kind.pane_ms

    def fresh(self, n: int) -> Arrays:
        """value: the constant so far, since_ms: start of the first window that had it."""
        return {"value": np.full(n, np.nan), "since_ms": np.full(n, -1, dtype=np.int64)}

    def score(self, state: Arrays, seen: Seen, dark: Array) -> Array:
        """As in `Condition`; a window without readings neither breaks nor proves it."""
        limit = seen.kind.health.stuck_ms
        if limit is None:
            return np.full(len(seen.value), np.nan)
        there = seen.count > 0
        constant = there & (seen.min == seen.max)
        goes_on = constant & (seen.last == state["value"])
        state["since_ms"][:] = np.where(
            goes_on | ~there, state["since_ms"], np.where(constant, seen.start_ms, -1)
        )
        state["value"][:] = np.where(there, np.where(constant, seen.last, np.nan), state["value"])
        lasted = np.where(state["since_ms"] < 0, 0, seen.end_ms - state["since_ms"])
        if seen.kind.health.rest is not None:
            lasted = np.where(state["value"] == seen.kind.health.rest, 0, lasted)
        if seen.kind.health.saturates:
            lasted = np.where(state["value"] >= seen.kind.high, 0, lasted)
        return np.where(there, lasted / limit, np.nan)


class Chattering:
    """More readings than `chatter_factor` times what a well sensor sends."""

    name = "chattering"
    calm_rows = 3

    def applies(self, kind: Kind) -> bool:
        """Every sensor can chatter."""
        return True

    def window_ms(self, kind: Kind) -> int:
        """A minute or longer: one burst after a pause is no chatter."""
        return kind.analysed_ms

    def fresh(self, n: int) -> Arrays:
        """Nothing to remember."""
        return {}

    def score(self, state: Arrays, seen: Seen, dark: Array) -> Array:
        """As in `Condition`."""
        return np.asarray(seen.count / (seen.kind.health.chatter_factor * seen.expected))


class Impossible:
    """A step between neighbouring readings that the quantity cannot make, or a value at the
    end of the physical range (the upper one; the lower one where it lies below zero), where
    a broken converter rests."""

    name = "impossible"
    calm_rows = 3

    def applies(self, kind: Kind) -> bool:
        """Every kind has a range."""
        return True

    def window_ms(self, kind: Kind) -> int:
        """The shortest window."""
        return kind.pane_ms

    def fresh(self, n: int) -> Arrays:
        """last: value of the last reading, at_ms its time."""
        return {"last": np.full(n, np.nan), "at_ms": np.full(n, -1, dtype=np.int64)}

    def score(self, state: Arrays, seen: Seen, dark: Array) -> Array:
        """As in `Condition`. A step across a gap of more than two windows is no step."""
        kind, there = seen.kind, seen.count > 0
        edge = there & (seen.max >= kind.high) & (kind.health.rest != kind.high)
        edge &= not kind.health.saturates
        if kind.low < 0:
            edge |= there & (seen.min <= kind.low) & (kind.health.rest != kind.low)
        score = np.where(edge, 1.0, 0.0)
        if kind.health.max_step is not None:
            recent = seen.start_ms - state["at_ms"] <= 2 * seen.window_ms
            step = np.where(
                recent & (state["at_ms"] >= 0),
                np.maximum(np.abs(seen.max - state["last"]), np.abs(seen.min - state["last"])),
                0.0,
            )
            step = np.fmax(step, seen.max - seen.min)
            # Just over the limit, so that the limit itself is allowed.
            score = np.fmax(score, np.where(step > kind.health.max_step, step, 0.0)
                            / kind.health.max_step)  # fmt: skip
        state["last"][:] = np.where(there, seen.last, state["last"])
        state["at_ms"][:] = np.where(there, seen.last_ms, state["at_ms"])
        return np.where(there, score, np.nan)


CONDITIONS: dict[str, Condition] = {
    condition.name: condition for condition in (Silent(), Stuck(), Chattering(), Impossible())
}
