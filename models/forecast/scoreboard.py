"""How the live forecasts do beside persistence and the historical average, by horizon.

Calm and congested regimes apart: a model that is good at night and bad in the rush hour
must not hide it in an average. Errors are forgotten by half in two days.
"""

import numpy as np

from citybrain.fits import Score
from citybrain.kinds import DAY
from citybrain.models.block import Array

REGIMES = ("calm", "congested")
RIVALS = ("persistence", "historical_average")
_HALF_LIFE_MS = 2 * DAY
_BEHIND, _LEVEL = 1.05, 1.0
MIN_TRUTHS = 24.0
"""Issues of a horizon, by sensor on average, before a model is judged."""

WEIGHT, MODEL, COVERED = 0, 1, 4


def fresh(horizons: int) -> Array:
    """Sums [H, 2 regimes, 5]: weight, errors of model, persistence, average, covered."""
    return np.zeros((horizons, len(REGIMES), 5))


def add(sums: Array, h: int, step_ms: int, congested: Array, errors: Array, covered: Array) -> None:
    """Take the absolute errors [3, n] (model, persistence, average) of one issue, in place.

    covered [n]: whether the truth fell in the interval. Sensors with a NaN do not count.
    """
    sums[h] *= 0.5 ** (step_ms / _HALF_LIFE_MS)
    known = ~np.isnan(errors).any(axis=0)
    for regime, mine in enumerate((known & ~congested, known & congested)):
        sums[h, regime, WEIGHT] += mine.sum()
        sums[h, regime, MODEL:COVERED] += errors[:, mine].sum(axis=1)
        sums[h, regime, COVERED] += covered[mine].sum()


def scores(sums: Array, horizons_ms: tuple[int, ...]) -> list[Score]:
    """The board as records, without what has no truth yet."""
    found = []
    for h, horizon in enumerate(horizons_ms):
        for regime, name in enumerate(REGIMES):
            weight = float(sums[h, regime, WEIGHT])
            if weight < 1:
                continue
            model, persistence, average, covered = (
                round(float(x) / weight, 6) for x in sums[h, regime, MODEL:]
            )
            found.append(
                Score(
                    horizon_ms=horizon,
                    regime=name,
                    weight=round(weight, 1),
                    model=model,
                    persistence=persistence,
                    historical_average=average,
                    coverage=covered,
                )
            )
    return found


def verdict(sums: Array, h: int, sensors: int, demoted: bool) -> tuple[bool, str, float, float]:
    """Whether the model is (still) out of use at a horizon, the best rival, both mean errors.

    It falls out when it is more than 5 % behind, and is back when it is level.
    """
    total = sums[h].sum(axis=0)
    weight = float(total[WEIGHT])
    if weight < MIN_TRUTHS * max(1, sensors):
        return demoted, RIVALS[1], 0.0, 0.0
    errors = total[MODEL:COVERED] / weight
    best = int(np.argmin(errors[1:]))
    limit = _LEVEL if demoted else _BEHIND
    behind = bool(errors[0] > limit * errors[1 + best])
    return behind, RIVALS[best], float(errors[0]), float(errors[1 + best])
