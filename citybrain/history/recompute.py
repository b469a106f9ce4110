"""Windows of readings that came too late for the engine: computed in bulk from raw history.

A block (an hour of one kind) whose readings have changed is computed again from all its raw
readings. What differs from the last revision in history is written as the next one, marked
`backfill`; what does not is left, so doing it twice changes nothing. Sums are exact in any
order because values lie on the kind's binary grid.

Raw readings pass the same door as in the engine (`citybrain.streams.screen`): sensors of the
pack, finite, in range, not bad by their own word, not from the future; of several readings of
one sensor at one time the first one known counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from citybrain.batch import BAD
from citybrain.city import City
from citybrain.clock import Clock
from citybrain.history import regroup, rows
from citybrain.history.intake import block_ms
from citybrain.history.journal import File
from citybrain.history.regroup import Grouped
from citybrain.history.store import Store
from citybrain.history.tables import TABLES, TIME
from citybrain.kinds import MINUTE, Kind

MOST_ROWS = 1_000_000
"""About so many readings are worked on at once: what bounds memory."""

_FUTURE_MS = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring blocks of one kind. blocks: start, and when its last reading was known."""

    kind: Kind
    start_ms: int
    end_ms: int
    blocks: tuple[tuple[int, int], ...]


class Recompute:
    """Recomputes stale blocks of one history folder."""

    def __init__(self, store: Store, city: City, clock: Clock) -> None:
        self._store = store
        self._city = city
        self._clock = clock

    def due(self, until_ms: int) -> Run | None:
        """The next run of blocks that have been quiet since `until_ms`."""
        stale = self._store.journal.stale()
        quiet = [(*key, known) for key, known in stale.items() if known <= until_ms]
        for name, found in groupby(quiet, key=lambda row: row[0]):
            kind = self._city.kinds.get(name)
            blocks = [(block, known) for _, block, known in found]
            if kind is None:  # no longer in the pack: nothing to compute
                self._store.journal.commit(done=[(name, *one) for one in blocks])
                continue
            return self._run(kind, blocks)
        return None

    def run(self, work: Run) -> int:
        """Compute a run and commit its rows and its end as one. Returns rows written."""
        found = list(self._changed(work))
        done = [(work.kind.name, *one) for one in work.blocks]
        self._store.put("stats", work.kind.name, found, done)
        return sum(part.num_rows for part in found)

    def _run(self, kind: Kind, blocks: Sequence[tuple[int, int]]) -> Run:
        step = block_ms(kind)
        files = self._files("readings", kind)
        taken = [blocks[0]]
        amount = _rows_within(files, blocks[0][0], blocks[0][0] + step)
        for block in blocks[1:]:
            amount += _rows_within(files, block[0], block[0] + step)
            if block[0] != taken[-1][0] + step or amount > MOST_ROWS:
                break
            taken.append(block)
        return Run(kind, taken[0][0], taken[-1][0] + step, tuple(taken))

    def _changed(self, work: Run) -> Iterable[pa.RecordBatch]:
        kind, step = work.kind, work.kind.windows_ms[-1]
        names = [s.id for s in self._city.sensors.values() if kind.name in s.kinds]
        reach = max(kind.rolling_ms, default=0)
        passed = self._passed(kind) if reach else 0
        # Rolling windows: those that hold a changed reading and have ended by now, and those
        # that end while history's time moves on from where it was.
        closed = max(passed, work.end_ms)
        since = min(work.start_ms, passed or work.start_ms)
        back = max(0, reach - step)
        part = self._readings(kind, names, since - back, min(closed, work.end_ms + back))
        for window in kind.windows_ms:
            part = regroup.tumbling(part, window)
            told = part.between(work.start_ms, work.end_ms)
            yield from self._rows(kind, names, window, window, told)
        for window in kind.rolling_ms:
            last = min(closed - window + step, work.end_ms)
            told = regroup.rolling(part, window, step).between(since - window + step, last)
            yield from self._rows(kind, names, window, step, told)

    def _passed(self, kind: Kind) -> int:
        """The end of the last of the longest tumbling windows in history, 0 for none."""
        step = kind.windows_ms[-1]
        last = max((f.last_ms or 0 for f in self._files("stats", kind)), default=0)
        if not last:
            return 0
        ends = self._read("stats", kind, last - 2 * step, last + 1, ["window_end"],
                          ds.field("window_ms") == step)  # fmt: skip
        return int(pc.max(_ms(ends, "window_end")).as_py() or 0)

    def _readings(self, kind: Kind, names: list[str], first: int, last: int) -> Grouped:
        """Raw readings of [first, last) that the engine would count."""
        columns = ["time", "sensor", "value", "quality", "generated", "known_at"]
        got = self._read("readings", kind, first, last, columns)
        sensor = _codes(got, names)
        time, value = _ms(got, "time").to_numpy(), got.column("value").to_numpy()
        good = (sensor >= 0) & (value >= kind.low) & (value <= kind.high)
        good &= got.column("quality").to_numpy() < BAD
        known = _ms(got, "known_at").to_numpy()
        good &= time <= known + _FUTURE_MS
        generated = got.column("generated").to_numpy()
        return regroup.of_readings(*(c[good] for c in (sensor, time, value, generated, known)))

    def _rows(
        self, kind: Kind, names: list[str], window: int, step: int, told: Grouped
    ) -> Iterable[pa.RecordBatch]:
        """The windows that are not in history as they are, as rows of its next revision."""
        if not len(told):
            return
        words = rows.window_columns(kind.total, told.seen, told.sum, told.sumsq)
        old = self._old(kind, names, window, told)
        revision = np.full(len(told), -1, np.int64)
        late = np.zeros(len(told), np.int64)
        same = np.zeros(len(told), np.bool_)
        if old is not None:
            row, table = old
            revision[row] = table.column("revision").to_numpy()
            had, was = (table.column(name).to_numpy() for name in ("seen", "late"))
            late[row] = was + told.seen[row] - had
            equal = told.seen[row] == had
            mine = {"min": told.min, "max": told.max, "last": told.last}
            mine |= {n: words[n].to_numpy(zero_copy_only=False) for n in ("value", "std")}
            for name, column in mine.items():
                equal &= table.column(name).to_numpy() == column[row]
            same[row] = equal
        keep = np.flatnonzero(~same)
        if not len(keep):
            return
        new, chosen = told.take(keep), pa.array(keep)
        expected = kind.expected(window)
        columns = {
            "sensor": rows.sensors(new.sensor.astype(np.int32), names), "kind": kind.name,
            "window_ms": window, "step_ms": step,
            "window_start": new.start_ms, "window_end": new.start_ms + window,
            **{name: column.take(chosen) for name, column in words.items()},
            "min": new.min, "max": new.max, "last": new.last,
            "seen": new.seen, "expected": expected,
            "completeness": np.minimum(1.0, new.seen / max(1, expected)),
            "late": late[keep], "revision": (revision + 1)[keep], "backfill": True,
            "generated": new.generated, "known_at": self._clock(),
        }  # fmt: skip
        yield rows.build("stats", kind.name, columns, len(keep)).data

    def _old(
        self, kind: Kind, names: list[str], window: int, told: Grouped
    ) -> tuple[npt.NDArray[np.intp], pa.Table] | None:
        """The last revision in history of those windows that have one: row of `told`, columns."""
        first, last = int(told.start_ms.min()), int(told.start_ms.max())
        columns = ["sensor", "window_start", "revision", "seen", "late", "value", "min", "max",
                   "last", "std"]  # fmt: skip
        got = self._read("stats", kind, first, last + 1, columns, ds.field("window_ms") == window)
        if not got.num_rows:
            return None
        span = last - first + 1
        key = _codes(got, names) * span + _ms(got, "window_start").to_numpy() - first
        order = np.lexsort((got.column("revision").to_numpy(), key))
        key = key[order]
        newest = np.append(key[1:] != key[:-1], True)
        key, order = key[newest], order[newest]
        mine = told.sensor * span + told.start_ms - first  # ascending, as told is sorted
        row = np.searchsorted(mine, key)
        found = (row < len(mine)) & (mine[np.minimum(row, len(mine) - 1)] == key)
        return row[found], got.take(pa.array(order[found]))

    def _files(self, table: str, kind: Kind) -> list[File]:
        return [f for f in self._store.journal.files(table) if f.kind == kind.name]

    def _read(
        self, table: str, kind: Kind, first: int, last: int, columns: list[str],
        where: Any = True,
    ) -> pa.Table:  # fmt: skip
        """Rows with their day column in [first, last), in the order in which they were known."""
        paths = [
            str(self._store.root / f.path)
            for f in self._files(table, kind)
            if (f.first_ms or 0) < last and (f.last_ms or 0) >= first
        ]
        schema = TABLES[table].schema
        if not paths:
            return schema.empty_table().select(columns)
        day = ds.field(TABLES[table].day)
        bounds = (day >= pa.scalar(first, TIME)) & (day < pa.scalar(last, TIME))
        source = ds.dataset(paths, schema=schema, format="parquet")
        got: pa.Table = source.to_table(columns, filter=bounds & where)
        return got.unify_dictionaries().combine_chunks()


def _ms(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table.column(name).cast(pa.int64())


def _codes(table: pa.Table, names: list[str]) -> npt.NDArray[np.int64]:
    """Sensors as places in `names`, -1 for one that is not there."""
    place = {name: i for i, name in enumerate(names)}
    column = table.column("sensor")
    if not len(column):
        return np.zeros(0, np.int64)
    words = column.chunk(0)
    known = np.array([place.get(name, -1) for name in words.dictionary.to_pylist()], np.int64)
    codes: npt.NDArray[np.int64] = known[words.indices.to_numpy()]
    return codes


def _rows_within(files: Iterable[File], first: int, last: int) -> float:
    """Roughly how many rows of the files lie in [first, last)."""
    total = 0.0
    for f in files:
        span = (f.last_ms or 0) - (f.first_ms or 0) + 1
        overlap = min(last, (f.last_ms or 0) + 1) - max(first, f.first_ms or 0)
        total += f.rows * max(0, overlap) / span
    return total
