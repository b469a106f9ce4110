"""When a model is fitted anew: at each local midnight, and sooner while history still grows."""

from dataclasses import dataclass

import numpy as np

from citybrain.kinds import HOUR
from citybrain.models.daytime import Daytime
from citybrain.models.fitting import Rows, enough

GROWN = 1.5
"""A history that has grown by half (a backfill has come in) is worth a fit before midnight."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The last fit of a kind in a shard: until when its rows were, and how many."""

    until_ms: int
    rows: int


def due_until(history: Rows, last: Fitted | None, daytime: Daytime) -> int | None:
    """Until when to fit now, None for not yet. `history`: all that is known.

    The first fit comes as soon as there is enough, on what had ended at the last full hour;
    then one for each midnight, and one at a full hour when there is half as much again.
    """
    if not len(history.start_ms):
        return None
    now = int(history.start_ms[-1]) + history.step_ms
    hour, midnight = now // HOUR * HOUR, daytime.midnight(now)
    if last is not None and last.until_ms < midnight:
        return midnight
    known = history.until(hour)
    if last is None:
        return hour if enough(known, daytime) else None
    rows = int((~np.isnan(known.value)).sum())
    return hour if hour > last.until_ms and rows >= GROWN * last.rows else None
