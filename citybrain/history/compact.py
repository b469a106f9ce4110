"""Small files into larger ones, old ones away. Readers notice neither.

A flush leaves a small file in each folder every few seconds. When a folder has FEW files that
were merged equally often, they become one, sorted; so a row is rewritten a few times a day at
most. Merged files stop counting at once and are deleted minutes later, when nobody reads them.
"""

from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from citybrain.clock import Clock
from citybrain.history.journal import File
from citybrain.history.store import Ranges, Store, ranges_of
from citybrain.history.tables import TABLES
from citybrain.kinds import MINUTE

FEW = 12
MOST_ROWS = 2_000_000
"""A file of so many rows is large enough; no merge makes a much larger one."""
GRACE_MS = 10 * MINUTE


class Compactor:
    """Tends one history folder; call `step` now and then from the writer."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def step(self) -> int:
        """One merge at most, and what retention says. Returns files that count no more."""
        group = self.due()
        gone = self._merge(group) if group else 0
        return gone + self._expire()

    def due(self) -> list[File] | None:
        """Files of one folder to be merged, the smallest first; None if there is no need."""
        groups: dict[tuple[str, str, str, int], list[File]] = defaultdict(list)
        for file in self._store.journal.files():
            if file.rows < MOST_ROWS:
                groups[file.table, file.kind, file.day, file.level].append(file)
        for key in sorted(groups, key=lambda key: (key[3], key)):
            taken: list[File] = []
            rows = 0
            for file in sorted(groups[key], key=lambda f: (f.rows, f.path)):
                if taken and rows + file.rows > MOST_ROWS:
                    break
                taken.append(file)
                rows += file.rows
            if len(taken) >= FEW or (len(taken) > 1 and len(taken) < len(groups[key])):
                return taken
        return None

    def sweep(self) -> None:
        """Delete files that stopped counting GRACE_MS ago."""
        for path in self._store.journal.forget(self._clock() - GRACE_MS):
            (self._store.root / path).unlink(missing_ok=True)

    def _merge(self, group: list[File]) -> int:
        first = group[0]
        table = TABLES[first.table]
        parts, ranges = [], Ranges()
        for file in group:
            path = self._store.root / file.path
            got = pq.read_table(path, partitioning=None)
            parts.append(pa.Table.from_arrays(
                [_column(got, field) for field in table.schema], schema=table.schema))  # fmt: skip
            for key, (low, high) in ranges_of(path).items():
                old = ranges.get(key, (low, high))
                ranges[key] = (min(low, old[0]), max(high, old[1]))
        whole = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
        keys = [(name, "ascending") for name in (*table.order, "known_at")]
        whole = whole.take(pc.sort_indices(_plain(whole, [k for k, _ in keys]), keys))
        made = self._store.write(
            first.table, first.kind, first.day, whole, ranges, max(f.level for f in group) + 1
        )
        self._store.journal.commit([made], dropped=[f.path for f in group], now_ms=self._clock())
        return len(group)

    def _expire(self) -> int:
        """Files whose newest row is older than the table's retention, by event time: counted
        from the newest row, so that a recorded city of years ago keeps its history too."""
        old = list(self._old())
        if old:
            self._store.journal.commit(dropped=[f.path for f in old], now_ms=self._clock())
        return len(old)

    def _old(self) -> Iterator[File]:
        files = self._store.journal.files()
        newest: dict[str, int] = {}
        for file in files:
            newest[file.table] = max(newest.get(file.table, 0), file.last_ms or 0)
        for file in files:
            if (file.last_ms or 0) < newest[file.table] - TABLES[file.table].keep_ms:
                yield file


def _column(got: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """A column as the schema is today; one that an older writer did not know is null."""
    if field.name not in got.column_names:
        return pa.chunked_array([pa.nulls(got.num_rows, field.type)])
    column = got.column(field.name)
    return column if column.type == field.type else column.cast(field.type)


def _plain(table: pa.Table, names: list[str]) -> pa.Table:
    """Columns to sort by: dictionaries as text, which sorts alike in every file."""
    table = table.select(list(dict.fromkeys(names)))
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.utf8()))
    return table
