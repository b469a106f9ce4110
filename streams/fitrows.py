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
from citybrain.models.fitting import Rows
from citybrain.models.seen import window_value

_QUERY = """
select sensor, epoch_ms(window_start) as start_ms, value, seen, expected from stats
where kind = $kind and window_ms = $window and seen > 0 and list_contains($sensors, sensor)
and window_start >= epoch_ms($since)::timestamptz
order by window_start, sensor
"""
_NEWEST = """
select max(epoch_ms(window_start)) from stats_all
where kind = $kind and window_ms = $window and list_contains($sensors, sensor)
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


def load(history: Path, city: City, shard: str, kind_name: str) -> Rows:
    """All that a fit may look at: the last revision of each window that has readings."""
    kind = city.kinds[kind_name]
    names = city.roster(shard, kind_name)
    place = {name: i for i, name in enumerate(names)}
    about = {"kind": kind_name, "window": kind.analysed_ms, "sensors": list(names)}
    with Reader(history, tables=["stats"]) as reader:
        newest = reader.arrow(_NEWEST, about).column(0)[0].as_py()
        until = (newest or 0) + kind.analysed_ms
        since = max(0, until - fitting.horizon_of_history_ms(kind.analysed_ms))
        table = reader.arrow(_QUERY, {**about, "since": since})
    sensor = table.column("sensor").cast("string").combine_chunks().dictionary_encode()
    code = np.array([place[name] for name in sensor.dictionary.to_pylist()], dtype=np.int64)
    value = pc.fill_null(table.column("value"), np.nan).to_numpy().astype(np.float64)
    if kind.total:
        seen, expected = (table.column(name).to_numpy() for name in ("seen", "expected"))
        value = window_value(kind, seen, value, expected)
    which = code[sensor.indices.to_numpy()] if len(table) else np.zeros(0, dtype=np.int64)
    return fitting.rows(kind, names, which, table.column("start_ms").to_numpy(), value, until)
