"""How good the anomaly detectors are: injected events on real data, and NAB's labelled ones.

Each day is scored by a baseline of the days before, as the engine does it. The threshold is
set where a detector raises one false alarm a sensor and week on the series as recorded (which
has real incidents in it, all counted as false), then the events are put in: half an hour and
more of hardly any traffic, or of less than half the speed. An event is found if an alarm
begins between its onset and ten minutes after its end. Random scores and the change since the
last value stand beside. NAB is small (14 windows) and never to be quoted alone.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from benchmarks import recorded
from benchmarks.frame import Row, Size, of
from benchmarks.recorded import Table
from citybrain.kinds import DAY, MINUTE
from citybrain.models import baseline, episodes
from citybrain.models.anomaly import DETECTORS
from citybrain.models.anomaly.cusum import Cusum
from citybrain.models.episodes import Limits

Floats = npt.NDArray[np.float64]
_LENGTH = 12  # rows of five minutes
_FALSE_A_WEEK = 1.0


def events(size: Size) -> Iterable[Row]:
    """Recall and delay by detector; then NAB."""
    tables = [recorded.aarhus("count"), recorded.aarhus("speed")]
    if None in tables:
        yield Row("anomalies: skipped, no ../shared/data", "", of([0.0]))
    for table in tables:
        if table is not None:
            yield from _injected(table, 10 if size == "small" else 60)
    yield from _nab()


def _injected(table: Table, sensors: int) -> Iterable[Row]:
    every = table.value.shape[1] // sensors
    plain = table.value[:, ::every]
    bad, put = _with_events(table, plain)
    first = table.cut
    for name in (*DETECTORS, "random", "last_value"):
        clean, dirty = (_scores(table, values, name) for values in (plain, bad))
        at = _threshold(table, clean[first:])
        found = _alarms(table, dirty[first:], at)
        delays = []
        for sensor, row in put:
            hits = [r for r in range(row, row + _LENGTH + 2) if (sensor, r - first) in found]
            if hits:
                delays.append((hits[0] - row + 1) * table.step_ms / MINUTE)
        yield Row(
            f"{table.name} injected {name}", "share found",
            of([len(delays) / max(1, len(put))]),
            {"events": len(put), "median delay min": float(np.median(delays)) if delays else -1.0,
             "false alarms a sensor and week": _FALSE_A_WEEK, "threshold": at},
        )  # fmt: skip


def _with_events(table: Table, plain: Floats) -> tuple[Floats, list[tuple[int, int]]]:
    """Values with events in the test part, by day, and where they are (sensor, row)."""
    random = np.random.default_rng(1)
    values, put = plain.copy(), []
    hour = table.daytime.split(table.start_ms)[1] * 24 // DAY
    rest = 0.1 if table.kind.total else 0.45
    for sensor in range(plain.shape[1]):
        row = table.cut + int(random.integers(0, 288))
        while row < len(plain) - 2 * _LENGTH:
            part = plain[row : row + _LENGTH, sensor]
            lively = np.isnan(part).mean() < 0.3 and np.nanmean(part) >= 5
            if 7 <= hour[row] <= 18 and lively:
                values[row : row + _LENGTH, sensor] = np.round(part * rest)
                put.append((sensor, row))
                row += 288
            row += int(random.integers(12, 72))
    return values, put


def _scores(table: Table, values: Floats, name: str) -> Floats:
    """Scores [T, n], NaN where nothing was seen or expected."""
    if name == "random":
        chance = np.random.default_rng(2).random(values.shape)
        return np.where(np.isnan(values), np.nan, chance)
    if name == "last_value":
        step = np.abs(np.diff(values, axis=0, prepend=values[:1]))
        return np.asarray(step / np.nanquantile(step[: table.cut], 0.995, axis=0))
    day = table.daytime.split(table.start_ms)[2]
    detector = DETECTORS[name](table.step_ms)
    state = detector.fresh(values.shape[1])
    out = np.full(values.shape, np.nan)
    begin = max(0, table.cut - 3 * DAY // table.step_ms)
    for today in np.unique(day[begin:]):
        rows = np.flatnonzero(day == today)
        past = slice(max(0, int(rows[0]) - 28 * DAY // table.step_ms), int(rows[0]))
        usual = baseline.fit(table.start_ms[past], values[past], table.step_ms, table.kind,
                             table.daytime)  # fmt: skip
        mean, scale = usual.over(table.start_ms[past], table.daytime)
        reach = Cusum(table.step_ms).reach(((values[past] - mean) / scale)[-14 * 288 :])
        known = (~np.isnan(reach)).any(axis=0) if len(reach) else np.zeros(values.shape[1], bool)
        ceiling = np.zeros(values.shape[1])
        if known.any():
            ceiling[known] = np.nanquantile(reach[:, known], 0.995, axis=0)
        detector.prime(state, ceiling)
        mean, scale = usual.over(table.start_ms[rows], table.daytime)
        for row, z in zip(rows, (values[rows] - mean) / scale, strict=True):
            out[row] = np.abs(detector.step(state, z))
    return out


def _alarms(table: Table, score: Floats, at: float) -> set[tuple[int, int]]:
    """(sensor, row) of every alarm with the rules' hysteresis and refractory time."""
    limits = Limits(at, at / 2, calm_rows=3, quiet_ms=15 * MINUTE)
    state, found = episodes.fresh(score.shape[1]), set()
    nobody = np.zeros(score.shape[1], dtype=bool)
    for row, line in enumerate(score):
        start = row * table.step_ms
        done = episodes.step(state, limits, line, start, start + table.step_ms, nobody)
        found |= {(int(sensor), row) for sensor in done.raised}
    return found


def _threshold(table: Table, score: Floats) -> float:
    """The lowest threshold with no more than the stated false alarms."""
    weeks = score.shape[1] * len(score) * table.step_ms / (7 * DAY)
    low, high = 0.0, float(np.nanmax(score))
    for _ in range(8):
        middle = (low + high) / 2
        many = len(_alarms(table, score, middle)) > _FALSE_A_WEEK * weeks
        low, high = (middle, high) if many else (low, middle)
    return high


def _nab() -> Iterable[Row]:
    """Labelled windows with an alarm in them, and alarms outside, at the rules' threshold."""
    series = recorded.nab()
    if series is None:
        yield Row("NAB: skipped, no ../shared/data", "", of([0.0]))
        return
    for name in (*DETECTORS, "random", "last_value"):
        hits = total = outside = 0
        weeks = 0.0
        for table, inside, windows in series:
            whole = Table(table.name, table.kind, table.daytime, table.start_ms, table.value,
                          3 * DAY // table.step_ms, ())  # fmt: skip
            score = _scores(whole, table.value, name)
            score[: whole.cut] = np.nan
            # The yardsticks are given the threshold of one false alarm a week, ours their own.
            at = 1.5 if name in DETECTORS else _threshold(whole, score)
            rows = [row for _, row in _alarms(whole, score, at)]
            number = np.cumsum(np.diff(inside.astype(int), prepend=0) > 0)
            hits += len({int(number[row]) for row in rows if inside[row]})
            outside += sum(not inside[row] for row in rows)
            total += windows
            weeks += len(score) * table.step_ms / (7 * DAY)
        yield Row(f"NAB realTraffic {name}", "share found", of([hits / total]),
                  {"windows": total, "false alarms a week": outside / weeks})  # fmt: skip
