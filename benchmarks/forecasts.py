"""How good the forecasts are: mean absolute error beside persistence and historical average.

The last fifth is the test (tfp_pems has files of its own). Each day of it is forecast by
models that were fitted on the days before, as the fitter does it.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from benchmarks import recorded
from benchmarks.frame import Row, Size, of
from benchmarks.recorded import Table
from citybrain.models import baseline
from citybrain.models.fitting import horizon_of_history_ms
from citybrain.models.forecast import FORECASTERS, Situation, features


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
    told = {name: np.full((*y.shape, len(steps)), np.nan) for name in FORECASTERS}
    for today in np.unique(day[table.cut :]):
        rows = np.flatnonzero(day == today)
        rows = rows[(rows >= table.cut) & (rows < len(y) - max(steps))]
        if len(rows):
            _forecast(table, rows, steps, last, told)
    now = np.arange(table.cut, len(y) - max(steps))
    for name, values in told.items():
        for h, s in enumerate(steps):
            error = np.abs(values[now, :, h] - y[now + s])
            label = f"{table.name} {table.horizons_ms[h] // 60_000} min {name}"
            rmse = float(np.sqrt(np.nanmean(error**2)))
            yield Row(label, "mean absolute error", of([float(np.nanmean(error))]),
                      {"rmse": rmse, "rows": int((~np.isnan(error)).sum())})  # fmt: skip


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
    z = (y - mean) / scale
    clipped = np.clip(z[:known], -features.CLIP, features.CLIP)
    x, taught = features.over(z), features.over(clipped)
    now = rows - since
    ahead, width = (np.stack([t[now + s] for s in steps], axis=2) for t in (mean, scale))
    situation = Situation(last[rows], x[now], ahead, width)
    for name, forecaster in FORECASTERS.items():
        weights = forecaster.fit(clipped, taught, steps, 0)
        told[name][rows] = forecaster.predict(weights, situation)


def _last(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The last value seen at each row."""
    row = np.where(np.isnan(y), 0, np.arange(len(y))[:, None])
    np.maximum.accumulate(row, axis=0, out=row)
    return np.take_along_axis(y, row, axis=0)
