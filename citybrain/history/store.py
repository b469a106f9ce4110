"""Writing history: rows are held in memory, then flushed to Parquet files in one commit.

    <history>/<table>/kind=<kind>/date=<UTC day>/<number>.parquet   (kind=all where there is none)

A file is written under `.new`, made durable, renamed, and counts once the journal says so.
Every file carries the offset ranges that its rows came from (metadata `citybrain.offsets`).
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from citybrain.errors import SetupError
from citybrain.history.journal import File, Journal, Partition, Sequences
from citybrain.history.rows import Row, Rows, together
from citybrain.history.tables import TABLES
from citybrain.kinds import DAY

_OFFSETS = b"citybrain.offsets"
_ROW_GROUP = 1 << 19
_ROW_BYTES = 1 << 10  # a finding or an alert, roughly
Ranges = dict[Partition, tuple[int, int]]


class Held:
    """Rows of one table and kind that are not yet in a file."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.single: list[Row] = []
        self.ranges: Ranges = {}


class Store:
    """The one writer of a history folder; a lock keeps a second one out.

    Raises SetupError if the folder cannot be written or another writer holds it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = Journal(root)
        self._lock = open(root / ".lock", "w")  # noqa: SIM115  # held as long as the store
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            self.journal.close()
            raise SetupError(f"history {root}: another process writes to it") from error
        self._held: dict[tuple[str, str], Held] = {}
        self.bytes = 0
        self.rows = 0
        self.recover()

    def close(self) -> None:
        """Give the folder up; what is held and not flushed is forgotten."""
        self.journal.close()
        self._lock.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recover(self) -> list[Path]:
        """Delete what a killed writer left: files that the journal does not know."""
        shutil.rmtree(self.root / ".new", ignore_errors=True)
        (self.root / ".new").mkdir()
        known = {f.path for f in self.journal.files()}
        known |= {f.path for f in self.journal.files(dropped=True)}
        orphans = [
            path
            for path in self.root.glob("*/kind=*/date=*/*.parquet")
            if str(path.relative_to(self.root)) not in known
        ]
        for path in orphans:
            path.unlink()
        return orphans

    def add(self, rows: Rows | Row, source: tuple[str, int, int] | None = None) -> None:
        """Hold rows. source: (topic, partition, offset) of the record they came from."""
        held = self._held.setdefault((rows.table, rows.kind), Held())
        if isinstance(rows, Row):
            held.single.append(rows)
            self.bytes += _ROW_BYTES
            self.rows += 1
        else:
            held.batches.append(rows.data)
            self.bytes += rows.data.nbytes
            self.rows += rows.data.num_rows
        if source:
            topic, partition, offset = source
            first, _ = held.ranges.get((topic, partition), (offset, offset))
            held.ranges[topic, partition] = (first, offset)

    def flush(
        self,
        offsets: Mapping[Partition, int] | None = None,
        sequences: Sequences | None = None,
        stale: Mapping[tuple[str, int], int] | None = None,
        done: Iterable[tuple[str, int, int]] = (),
    ) -> list[File]:
        """Write all that is held and commit it with the offsets, as one."""
        files: list[File] = []
        for (table, kind), held in sorted(self._held.items()):
            if held.single:
                held.batches.append(together(table, held.single))
            data = pa.Table.from_batches(held.batches).unify_dictionaries()
            for day, part in by_day(table, data):
                files.append(self.write(table, kind, day, part, held.ranges))
        self.journal.commit(files, offsets, sequences, stale, done)
        self._held = {}
        self.bytes = self.rows = 0
        return files

    def put(
        self, table: str, kind: str, parts: Sequence[pa.RecordBatch],
        done: Iterable[tuple[str, int, int]],
    ) -> list[File]:  # fmt: skip
        """Write rows that come from history itself, and commit them with what is done."""
        files: list[File] = []
        if parts:
            data = pa.Table.from_batches(parts).unify_dictionaries()
            files = [self.write(table, kind, day, part, {}) for day, part in by_day(table, data)]
        self.journal.commit(files, done=done)
        return files

    def write(
        self, table: str, kind: str, day: str, data: pa.Table, ranges: Ranges, level: int = 0
    ) -> File:
        """Write one file into its place; it counts when the journal has it."""
        number = self.journal.next_number()
        folder = Path(table, f"kind={kind or 'all'}", f"date={day}")
        path = folder / f"{number:010d}.parquet"
        said = {f"{topic}-{partition}": span for (topic, partition), span in ranges.items()}
        data = data.replace_schema_metadata({_OFFSETS: json.dumps(said)})
        new = self.root / ".new" / path.name
        pq.write_table(data, new, compression="zstd", row_group_size=_ROW_GROUP)
        _sync(new)
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        new.rename(self.root / path)
        _sync(self.root / folder)
        moments = data.column(TABLES[table].day).cast(pa.int64()).to_numpy()
        return File(
            str(path), table, kind, day, data.num_rows, (self.root / path).stat().st_size, level,
            int(moments.min()), int(moments.max()),
        )  # fmt: skip


def by_day(table: str, data: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """The rows of each UTC day."""
    days = data.column(TABLES[table].day).cast(pa.int64()).to_numpy() // DAY
    distinct = np.unique(days)
    for number in distinct.tolist():
        part = data if len(distinct) == 1 else data.filter(pa.array(days == number))
        yield datetime.fromtimestamp(number * DAY / 1000, UTC).strftime("%Y-%m-%d"), part


def ranges_of(path: Path) -> Ranges:
    """The offset ranges that a file says it came from."""
    said = json.loads((pq.read_schema(path).metadata or {}).get(_OFFSETS, b"{}"))
    found: Ranges = {}
    for name, (first, last) in said.items():
        topic, _, partition = name.rpartition("-")
        found[topic, int(partition)] = (first, last)
    return found


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
