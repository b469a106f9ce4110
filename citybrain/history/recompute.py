"""Windows of readings that came too late for the engine: computed in bulk from raw history.

A block (an hour of one kind) whose readings have changed is computed again from all its raw
readings. What differs from the last revision in history is written as the next one, marked
`backfill`; what does not is left, so doing it twice changes nothing. Sums are exact in any
order because values lie on the kind's binary grid.

Raw readings pass the same door as in the engine (`citybrain.streams.screen`): sensors of the
pack, finite, in range, not bad by their own word, not from the future; of several readings of
one sensor at one time the first one known counts.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from citybrain.batch import BAD
from citybrain.city import City
from citybrain.clock import Clock
from citybrain.history import rows
from citybrain.history.intake import block_ms
from citybrain.history.journal import File
from citybrain.history.store import Store
from citybrain.history.tables import TABLES
from citybrain.kinds import MINUTE, Kind

MOST_ROWS = 1_000_000
"""About so many readings are worked on at once: what bounds memory."""

_FUTURE_MS = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring blocks of one kind. known_ms: by block, when its last reading was known."""

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
        self._spill = tempfile.TemporaryDirectory(prefix="citybrain-recompute-")
        self._db: Any = duckdb.connect()
        self._db.execute(
            "set timezone = 'UTC'; set memory_limit = '768MB'; set threads = 2;"
            f" set temp_directory = '{self._spill.name}'; set preserve_insertion_order = false"
        )

    def close(self) -> None:
        """Release memory and temporary files."""
        self._db.close()
        self._spill.cleanup()

    def due(self, until_ms: int) -> Run | None:
        """The next run of blocks that have been quiet since `until_ms`."""
        stale = self._store.journal.stale()
        quiet = [
            (kind, block, known) for (kind, block), known in stale.items() if known <= until_ms
        ]
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
        found = self._windows(work)
        self._store.journal_files(
            "stats", work.kind.name, found, [(work.kind.name, *one) for one in work.blocks]
        )
        return sum(part.num_rows for part in found)

    def _run(self, kind: Kind, blocks: Sequence[tuple[int, int]]) -> Run:
        step = block_ms(kind)
        files = self._files("readings", kind.name)
        taken = [blocks[0]]
        amount = _rows_within(files, blocks[0][0], blocks[0][0] + step)
        for block in blocks[1:]:
            amount += _rows_within(files, block[0], block[0] + step)
            if block[0] != taken[-1][0] + step or amount > MOST_ROWS:
                break
            taken.append(block)
        return Run(kind, taken[0][0], taken[-1][0] + step, tuple(taken))

    def _files(self, table: str, kind: str) -> list[File]:
        return [f for f in self._store.journal.files(table) if f.kind == kind]

    def _windows(self, work: Run) -> list[pa.RecordBatch]:
        kind, step = work.kind, work.kind.windows_ms[-1]
        reach = max(kind.rolling_ms, default=0)
        passed = self._passed(kind) if reach else 0
        # Rolling windows: those that hold a changed reading and have ended by now, and those
        # that end while history's time moves on from where it was.
        closed = max(passed, work.end_ms)
        since = min(work.start_ms, passed or work.start_ms)
        back = max(0, reach - step)
        self._load(kind, since - back, min(closed, work.end_ms + back))
        parts = []
        for window in kind.windows_ms:
            parts.append(self._grouped(
                window, window, f"w{window}", f"w{_before(kind, window)}",
                f'"start" - "start" % {window}', work.start_ms, work.end_ms,
            ))  # fmt: skip
        for window in kind.rolling_ms:
            starts = f'unnest(range("start" - {window - step}, "start" + 1, {step}))'
            parts.append(self._grouped(
                window, step, f"w{window}", f"w{step}", starts,
                since - window + step, min(closed - window + step, work.end_ms),
            ))  # fmt: skip
        return [batch for part in parts for batch in self._rows(work, *part)]

    def _passed(self, kind: Kind) -> int:
        """The end of the last of the longest tumbling windows in history, 0 for none."""
        step = kind.windows_ms[-1]
        last = max((f.last_ms or 0 for f in self._files("stats", kind.name)), default=0)
        if not last:
            return 0
        source = self._source("stats", kind.name, last - 2 * step, last + 1)
        ((end,),) = self._db.execute(
            f"select max(epoch_ms(window_end)) from {source} where window_ms = {step}"
        ).fetchall()
        return int(end or 0)

    def _load(self, kind: Kind, first: int, last: int) -> None:
        """Raw readings of [first, last) as the shortest windows: table w<pane>."""
        names = [s.id for s in self._city.sensors.values() if kind.name in s.kinds]
        self._db.register("known", pa.table({"name": names}))
        source = self._source("readings", kind.name, first, last)
        self._db.execute(f"""
            create or replace temp table w0 as
            select sensor, epoch_ms(time) as "start", 1::bigint as seen, v as sum, v * v as sumsq,
                   v as min, v as max, v as last, epoch_ms(time) as last_ms, generated
            from (
                select sensor, time, arg_min(value, known_at) as v, bool_or(generated) as generated
                from {source} semi join known on sensor = known.name
                where time >= make_timestamptz({first} * 1000)
                  and time < make_timestamptz({last} * 1000)
                  and isfinite(value) and value between {kind.low!r} and {kind.high!r}
                  and quality < {BAD} and epoch_ms(time) <= epoch_ms(known_at) + {_FUTURE_MS}
                group by sensor, time
            )""")

    def _grouped(
        self, window: int, step: int, name: str, source: str, starts: str, first: int, last: int
    ) -> tuple[int, int, pa.Table]:
        """Windows of one length, from those one shorter; only starts of [first, last) are told."""
        self._db.execute(f"""
            create or replace temp table {name} as
            select sensor, begin as "start", sum(seen)::bigint as seen, sum(sum) as sum,
                   sum(sumsq) as sumsq, min(min) as min, max(max) as max,
                   arg_max(last, last_ms) as last, max(last_ms) as last_ms,
                   bool_or(generated) as generated
            from (select *, {starts} as begin from {source}) group by sensor, begin""")
        told = self._db.sql(
            f'select * from {name} where "start" >= {first} and "start" < {last}'
            ' order by sensor, "start"'
        ).to_arrow_table()
        return window, step, told

    def _rows(self, work: Run, window: int, step: int, told: pa.Table) -> list[pa.RecordBatch]:
        """The windows that are not in history as they are, as rows of its next revision."""
        if not told.num_rows:
            return []
        kind = work.kind
        start = told.column("start").to_numpy()
        data = {name: told.column(name).to_numpy() for name in ("seen", "sum", "sumsq")}
        words = rows.window_columns(kind.total, data["seen"], data["sum"], data["sumsq"])
        old_revision, old_seen, old_late, same = self._compare(kind, window, told, words, start)
        keep = np.flatnonzero(~same)
        if not len(keep):
            return []
        seen = data["seen"]
        expected = kind.expected(window)
        sensor = told.column("sensor").combine_chunks().dictionary_encode()
        chosen = pa.array(keep)
        columns = {
            "sensor": sensor.take(chosen), "kind": kind.name, "window_ms": window, "step_ms": step,
            "window_start": start[keep], "window_end": start[keep] + window,
            **{name: column.take(chosen) for name, column in words.items()},
            **{name: told.column(name).to_numpy()[keep] for name in ("min", "max", "last")},
            "seen": seen[keep], "expected": expected,
            "completeness": np.minimum(1.0, seen[keep] / max(1, expected)),
            "late": np.where(old_revision < 0, 0, old_late + seen - old_seen)[keep],
            "revision": (old_revision + 1)[keep], "backfill": True,
            "generated": told.column("generated").combine_chunks().take(chosen),
            "known_at": self._clock(),
        }  # fmt: skip
        return [rows.build("stats", kind.name, columns, len(keep)).data]

    def _compare(
        self,
        kind: Kind,
        window: int,
        told: pa.Table,
        words: dict[str, pa.Array],
        start: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[Any], ...]:
        """Last revision in history (-1 for none), what it had seen, and whether it is equal."""
        none = np.full(len(start), -1, np.int64)
        first, last = int(start.min()), int(start.max())
        if not self._overlapping("stats", kind.name, first, last + 1):
            return none, none * 0, none * 0, np.zeros(len(start), bool)
        source = self._source("stats", kind.name, first, last + 1)
        self._db.register("told", told.select(["sensor", "start"]).append_column(
            "row", pa.array(np.arange(len(start)))))  # fmt: skip
        old = self._db.sql(f"""
            select row, s.revision, s.seen, s.late, s.value, s.min, s.max, s.last, s.std
            from told join (
                select sensor, epoch_ms(window_start) as "start",
                       arg_max(struct_pack(revision, seen, late, value, min, max, last, std),
                               revision) as s
                from {source} where window_ms = {window}
                  and window_start between make_timestamptz({first} * 1000)
                                       and make_timestamptz({last} * 1000)
                group by 1, 2
            ) old using (sensor, "start")""").to_arrow_table()
        row = old.column("row").to_numpy()
        revision, seen, late = none.copy(), none * 0, none * 0
        revision[row] = old.column("revision").to_numpy()
        seen[row] = old.column("seen").to_numpy()
        late[row] = old.column("late").to_numpy()
        same = np.zeros(len(start), bool)
        equal = seen[row] == told.column("seen").to_numpy()[row]
        for name in ("value", "min", "max", "last", "std"):
            mine = words[name].to_numpy(zero_copy_only=False) if name in words else (
                told.column(name).to_numpy())  # fmt: skip
            equal &= old.column(name).to_numpy() == mine[row]
        same[row] = equal
        return revision, seen, late, same

    def _overlapping(self, table: str, kind: str, first: int, last: int) -> list[File]:
        return [
            f
            for f in self._files(table, kind)
            if (f.first_ms or 0) < last and (f.last_ms or 0) >= first
        ]

    def _source(self, table: str, kind: str, first: int, last: int) -> str:
        root: Path = self._store.root
        paths = [str(root / f.path) for f in self._overlapping(table, kind, first, last)]
        if not paths:
            self._db.register("nothing", TABLES[table].schema.empty_table())
            return "nothing"
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"


def _before(kind: Kind, window: int) -> int:
    """The next shorter window, 0 for the raw readings."""
    shorter = [w for w in kind.windows_ms if w < window]
    return shorter[-1] if shorter else 0


def _rows_within(files: Iterable[File], first: int, last: int) -> float:
    """Roughly how many rows of the files lie in [first, last)."""
    total = 0.0
    for f in files:
        span = (f.last_ms or 0) - (f.first_ms or 0) + 1
        overlap = min(last, (f.last_ms or 0) + 1) - max(first, f.first_ms or 0)
        total += f.rows * max(0, overlap) / span
    return total
