"""Fitting: windows of history in, a model's bytes out. The same rows give the same bytes.

When, and from when on a model is used, is in `models.schedule`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from citybrain.city import City
from citybrain.kinds import DAY, MINUTE, Kind
from citybrain.models import baseline
from citybrain.models.anomaly.cusum import Cusum
from citybrain.models.anomaly.quantile import LEVEL
from citybrain.models.baseline import MIN_VISITS
from citybrain.models.block import Array, Arrays, pack
from citybrain.models.daytime import Daytime
from citybrain.models.fit import FitHead, digest
from citybrain.models.forecast import FORECASTERS, Past, conformal
from citybrain.stats import Effective

FORECASTER = "blend"
SEED = 20260301
PART_SENSORS = 128
"""Sensors of one part of a model: about 250 kB."""

_FINE_DAYS, _COARSE_DAYS = 28, 366


@dataclass(frozen=True, slots=True)
class Rows:
    """Windows of one kind in one shard on a regular grid: value [T, n], NaN where missing."""

    step_ms: int
    start_ms: npt.NDArray[np.int64]
    names: tuple[str, ...]
    value: npt.NDArray[np.float64]

    def until(self, until_ms: int) -> "Rows":
        """Only what had ended by then."""
        keep = self.start_ms + self.step_ms <= until_ms
        return Rows(self.step_ms, self.start_ms[keep], self.names, self.value[keep])


def horizon_of_history_ms(step_ms: int) -> int:
    """How far back a fit looks: four weeks, or a year for windows of half an hour and more."""
    return DAY * (_COARSE_DAYS if step_ms >= 30 * MINUTE else _FINE_DAYS)


def rows(
    kind: Kind,
    names: tuple[str, ...],
    sensor: Array,
    start_ms: npt.NDArray[np.int64],
    value: Array,
    until_ms: int,
) -> Rows:
    """Lay loose rows out on a grid. sensor: index into `names`, below 0 is left out.

    Where a window stands twice the later row counts (a higher revision). Windows without a
    value are no rows: the grid is the same whether or not a log tells them.
    """
    step = kind.analysed_ms
    since = until_ms - horizon_of_history_ms(step)
    keep = (sensor >= 0) & (start_ms >= since) & (start_ms + step <= until_ms) & ~np.isnan(value)
    if not keep.any():
        none = np.zeros(0, dtype=np.int64)
        return Rows(step, none, names, np.zeros((0, len(names))))
    place = start_ms[keep] // step
    first, last = int(place.min()), int(place.max())
    table = np.full((last - first + 1, len(names)), np.nan)
    table[place - first, sensor[keep]] = value[keep]
    return Rows(step, (np.arange(last - first + 1) + first) * step, names, table)


def enough(history: Rows, daytime: Daytime) -> bool:
    """Whether any sensor has the days that a baseline asks for, half of each at least."""
    if not len(history.start_ms):
        return False
    day = daytime.split(history.start_ms)[2]
    least = DAY / history.step_ms / 2
    seen = [(~np.isnan(history.value[day == d])).sum(axis=0) >= least for d in np.unique(day)]
    return bool(np.sum(seen, axis=0).max(initial=0) >= MIN_VISITS)


def fit(history: Rows, city: City, kind: Kind, until_ms: int) -> list[bytes]:
    """The model of what had ended by `until_ms`, in parts; [] without enough history."""
    # One thread: sums in another order would give another last bit and another hash.
    with threadpool_limits(1):
        return _fit(history, city, kind, until_ms)


def effective(shard: str, kind: str, parts: list[bytes], from_ms: int) -> list[Effective]:
    """The records that bring a model to its shard."""
    name = digest(parts)
    return [
        Effective(
            shard=shard,
            kind=kind,
            role="fit",
            digest=name,
            from_ms=from_ms,
            at_ms=from_ms,
            body=body,
            part=part,
            parts=len(parts),
        )
        for part, body in enumerate(parts)
    ]


def _fit(history: Rows, city: City, kind: Kind, until_ms: int) -> list[bytes]:
    daytime = Daytime(city.zone_info, city.calendar)
    history = history.until(until_ms)
    if not enough(history, daytime):
        return []
    step = kind.analysed_ms
    usual = baseline.fit(history.start_ms, history.value, step, kind, daytime)
    mean, scale = usual.over(history.start_ms, daytime)
    z = (history.value - mean) / scale
    horizons = tuple(h for h in kind.horizons_ms if h % step == 0)
    forecaster = FORECASTERS[FORECASTER]
    past, steps = Past.of(history.value, mean, scale), tuple(h // step for h in horizons)
    weights = forecaster.fit(past, steps, SEED)
    arrays: Arrays = usual.arrays() | {k: v.astype(np.float32) for k, v in weights.items()}
    arrays["ceiling"] = _ceiling(z[-14 * DAY // step :], step).astype(np.float32)
    arrays["width"] = _widths(past, steps, weights).astype(np.float32)
    head = {
        "kind": kind.name,
        "step_ms": step,
        "forecaster": FORECASTER,
        "horizons_ms": horizons,
        "since_ms": int(history.start_ms[0]),
        "until_ms": until_ms,
        "rows": int((~np.isnan(history.value)).sum()),
        "seed": SEED,
    }
    return _parts(head, history.names, arrays)


def _parts(head: Mapping[str, object], names: tuple[str, ...], arrays: Arrays) -> list[bytes]:
    parts = []
    for at in range(0, len(names), PART_SENSORS):
        some = slice(at, at + PART_SENSORS)
        mine = FitHead(names=names[some], **head)  # type: ignore[arg-type]  # the fields of `fit`
        parts.append(pack(mine, {key: array[some] for key, array in arrays.items()}))
    return parts


def _ceiling(z: Array, step_ms: int) -> Array:
    """What each sensor's plain CUSUM reached on one row in two hundred."""
    cusum = Cusum(step_ms)
    size = cusum.reach(z)
    known = (~np.isnan(size)).any(axis=0)
    ceiling = np.full(z.shape[1], cusum.floor)
    if known.any():
        ceiling[known] = np.nanquantile(size[:, known], LEVEL, axis=0)
    return np.asarray(np.maximum(ceiling, cusum.floor))


def _widths(past: Past, steps: tuple[int, ...], weights: Arrays) -> Array:
    """Half-widths [n, H] in scales, from the errors on the training interval."""
    now, truth = past.look_back(steps)
    errors = (truth - FORECASTERS[FORECASTER].predict(weights, now)) / now.scale
    widths = np.zeros(errors.shape[1:])
    for h in range(len(steps)):
        widths[:, h] = conformal.initial(errors[:, :, h])
    return widths
