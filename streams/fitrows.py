"""History for the fitter: the analysed windows of a kind in a shard, from Parquet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from citybrain.city import City
from citybrain.history.journal import NAME, Journal
from citybrain.history.read import Reader
from citybrain.models import fitting
from citybrain.models.daytime import Daytime
from citybrain.models.fitting import Rows
from citybrain.models.schedule import Day
from citybrain.models.seen import window_value

_QUERY = """
select sensor, epoch_ms(window_start) as start_ms, value, seen, expected, backfill from stats
where kind = $kind and window_ms = $window and seen > 0 and list_contains($sensors, sensor)
and window_start >= epoch_ms($since)::timestamptz
and window_start < epoch_ms($until)::timestamptz
order by window_start, sensor
"""
_NEWEST = """
select max(epoch_ms(window_start)) from stats_all
where kind = $kind and window_ms = $window and list_contains($sensors, sensor)
and revision = 0 and not backfill
"""
_FIRST = """
select min(epoch_ms(window_start)) from stats_all
where kind = $kind and window_ms = $window and list_contains($sensors, sensor)
and revision = 0 and not backfill and window_start >= epoch_ms($since)::timestamptz
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """How much there is of a kind: rows, and the starts of its oldest and newest window."""

    rows: int
    oldest_ms: int
    newest_ms: int


def stored(history: Path) -> Mapping[str, Stored]:
    """What history holds of each kind's statistics: tells cheaply whether anything came in."""
    if not (history / NAME).is_file():
        return {}
    found: dict[str, Stored] = {}
    with Journal(history, writable=False) as journal:
        for file in journal.files("stats"):
            if file.first_ms is None or file.last_ms is None:
                continue
            before = found.get(file.kind, Stored(0, file.first_ms, file.last_ms))
            found[file.kind] = Stored(
                before.rows + file.rows,
                min(before.oldest_ms, file.first_ms),
                max(before.newest_ms, file.last_ms),
            )
    return found


def told(
    history: Path, city: City, shard: str, kind_name: str, daytime: Daytime
) -> tuple[int, Day] | None:
    """Start of the newest window that a shard's log has told of a kind, and its day; None
    before the first. Rows of empty windows count: the log had come so far."""
    about = _about(city, shard, kind_name)
    with Reader(history, tables=["stats"]) as reader:
        newest = reader.arrow(_NEWEST, about).column(0)[0].as_py()
        if newest is None:
            return None
        midnight = daytime.midnight(newest)
        first = reader.arrow(_FIRST, {**about, "since": midnight}).column(0)[0].as_py()
    return newest, Day(midnight, first)


def load(history: Path, city: City, shard: str, kind_name: str, until_ms: int) -> tuple[Rows, int]:
    """What a fit of what had ended by `until_ms` may look at, and how many of its values came
    through the backfill: the last revision of each window."""
    kind = city.kinds[kind_name]
    names = city.roster(shard, kind_name)
    place = {name: i for i, name in enumerate(names)}
    since = max(0, until_ms - fitting.horizon_of_history_ms(kind.analysed_ms))
    about = {**_about(city, shard, kind_name), "since": since, "until": until_ms}
    with Reader(history, tables=["stats"]) as reader:
        table = reader.arrow(_QUERY, about)
    sensor = table.column("sensor").cast("string").combine_chunks().dictionary_encode()
    code = np.array([place[name] for name in sensor.dictionary.to_pylist()], dtype=np.int64)
    value = pc.fill_null(table.column("value"), np.nan).to_numpy().astype(np.float64)
    if kind.total:
        seen, expected = (table.column(name).to_numpy() for name in ("seen", "expected"))
        value = window_value(kind, seen, value, expected)
    which = code[sensor.indices.to_numpy()] if len(table) else np.zeros(0, dtype=np.int64)
    start = table.column("start_ms").to_numpy()
    rows = fitting.rows(kind, names, which, start, value, until_ms)
    return rows, int(table.column("backfill").to_numpy().sum())


def _about(city: City, shard: str, kind_name: str) -> dict[str, object]:
    kind = city.kinds[kind_name]
    sensors = list(city.roster(shard, kind_name))
    return {"kind": kind_name, "window": kind.analysed_ms, "sensors": sensors}
