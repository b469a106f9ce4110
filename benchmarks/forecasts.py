"""How good the forecasts are: mean absolute error beside persistence and historical average.

The last fifth is the test (tfp_pems has files of its own). Each day of it is forecast by
models that were fitted on the days before, as the fitter does it. Of the forecaster that the
engine uses, the share of truths within its intervals is printed, adapted online as it is there.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from benchmarks import recorded
from benchmarks.frame import Row, Size, of
from benchmarks.recorded import Table
from citybrain.models import baseline
from citybrain.models.fitting import FORECASTER, horizon_of_history_ms
from citybrain.models.forecast import FORECASTERS, Past, Situation, conformal, features

LEVELS = (0.8, 0.9, 0.95)
SCALE = "scale"  # the baseline's, at the targets


def accuracy(size: Size) -> Iterable[Row]:
    """One row a data set, forecaster and horizon."""
    tables = [recorded.pems(), recorded.metro(), recorded.beijing(), recorded.aarhus("speed"),
              recorded.aarhus("count")]  # fmt: skip
    there = [table for table in tables if table is not None]
    if not there:
        yield Row("forecasts: skipped, no ../shared/data", "", of([0.0]))
    for table in there:
        yield from _judge(table)


def _judge(table: Table) -> Iterable[Row]:
    y, steps = table.value, tuple(h // table.step_ms for h in table.horizons_ms)
    last = _last(y)
    day = table.daytime.split(table.start_ms)[2]
    told = {name: np.full((*y.shape, len(steps)), np.nan) for name in (*FORECASTERS, SCALE)}
    for today in np.unique(day[table.cut :]):
        rows = np.flatnonzero(day == today)
        rows = rows[(rows >= table.cut) & (rows < len(y) - max(steps))]
        if len(rows):
            _forecast(table, rows, steps, last, told)
    now = np.arange(table.cut, len(y) - max(steps))
    scale = told.pop(SCALE)
    for name, values in told.items():
        for h, s in enumerate(steps):
            error = np.abs(values[now, :, h] - y[now + s])
            label = f"{table.name} {table.horizons_ms[h] // 60_000} min {name}"
            rmse = float(np.sqrt(np.nanmean(error**2)))
            facts: dict[str, float | int | str] = {
                "rmse": rmse, "rows": int((~np.isnan(error)).sum())
            }  # fmt: skip
            if name == FORECASTER:
                mine = (values[now, :, h] - y[now + s]) / scale[now, :, h]
                facts |= {f"within {level:.0%}": _covered(mine, s, level) for level in LEVELS}
            yield Row(label, "mean absolute error", of([float(np.nanmean(error))]), facts)


def _covered(error: npt.NDArray[np.float64], ahead: int, level: float) -> float:
    """Share of the truths of all sensors within intervals that adapt to the errors [T, n], in
    scales, as they become known; the first day sets them."""
    day = min(len(error) // 4, 288)
    width = conformal.initial(error[:day], level)
    inside = known = 0
    issued = np.tile(width, (ahead, 1))
    for t in range(day, len(error)):
        then, issued[t % ahead] = issued[t % ahead].copy(), width
        seen = ~np.isnan(error[t])
        inside += int((np.abs(error[t]) <= then)[seen].sum())
        known += int(seen.sum())
        conformal.adapt(width, error[t], level)
    return round(inside / max(1, known), 3)


def _forecast(
    table: Table,
    rows: npt.NDArray[np.int64],
    steps: tuple[int, ...],
    last: npt.NDArray[np.float64],
    told: dict[str, npt.NDArray[np.float64]],
) -> None:
    """Forecasts of one day by models of the days before, as the fitter and the stage do it."""
    begin = int(rows[0])
    since = max(0, begin - horizon_of_history_ms(table.step_ms) // table.step_ms)
    part = slice(since, int(rows[-1]) + 1 + max(steps))
    start, y, known = table.start_ms[part], table.value[part], begin - since
    usual = baseline.fit(start[:known], y[:known], table.step_ms, table.kind, table.daytime)
    mean, scale = usual.over(start, table.daytime)
    x = features.over((y - mean) / scale)
    past = Past.of(y[:known], mean[:known], scale[:known])
    now = rows - since
    ahead, width = (np.stack([t[now + s] for s in steps], axis=2) for t in (mean, scale))
    told[SCALE][rows] = width
    situation = Situation(last[rows], x[now], ahead, width)
    for name, forecaster in FORECASTERS.items():
        weights = forecaster.fit(past, steps, 0)
        told[name][rows] = forecaster.predict(weights, situation)


def _last(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The last value seen at each row."""
    row = np.where(np.isnan(y), 0, np.arange(len(y))[:, None])
    np.maximum.accumulate(row, axis=0, out=row)
    return np.take_along_axis(y, row, axis=0)
