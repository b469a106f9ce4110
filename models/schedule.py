"""When a model is fitted, and from which window on it is used: by the log alone.

    local midnight      first window     first + lead
    |....... (a hole) ..|................|
    ^ models of what    ^ all that ended ^ windows that start here
      ended by here       is known: fit    use the model

Every local midnight that a log passes has its model (once there is enough history). A live
fitter and a replay follow this rule, so both use the same models from the same windows. One
thing comes from outside: days that are filled in afterwards, through the backfill lane. They
are worth a fit of their own, at a full hour, which is used as soon as it is there; a recording
has no such lane, and so no such fit.
"""

from dataclasses import dataclass

import msgspec

from citybrain.kinds import HOUR
from citybrain.models.daytime import Daytime

GROWN = 1.5
"""A history that a backfill has made larger by half is worth a fit before midnight."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The last fit of a kind in a shard: until when its rows were, and how many."""

    until_ms: int
    rows: int


class Day(msgspec.Struct, frozen=True):
    """The last local midnight that a kind's windows have passed, and the first window after it."""

    midnight_ms: int
    first_ms: int

    def effective_ms(self, step_ms: int) -> int:
        """Windows of `step_ms` that start here or later use the model of this midnight."""
        return self.first_ms + max(HOUR, 2 * step_ms)


def day_of(start_ms: int, before: Day | None, daytime: Daytime) -> Day:
    """The day of a window that starts at `start_ms`; `before`: that of the window before."""
    midnight = daytime.midnight(start_ms)
    return before if before and midnight <= before.midnight_ms else Day(midnight, start_ms)


def early(rows: int, backfilled: int, last: Fitted | None) -> bool:
    """Whether a backfill is worth a fit now. rows: what is known, with `backfilled` of it."""
    return backfilled > 0 and (last is None or rows >= GROWN * last.rows)
