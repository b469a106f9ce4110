"""One Parquet file a table, for a replay: the same rows give the same bytes."""

import hashlib
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from citybrain import forecasts, stats
from citybrain.columns import Rosters
from citybrain.errors import SetupError
from citybrain.history import rows
from citybrain.history.rows import Row, Rows, together
from citybrain.history.tables import TABLES, Table
from citybrain.stage import Record

_MESSAGES = 2_000
_ROWS = 1 << 17


class TableFile:
    """A file that is written under another name until `close`."""

    def __init__(self, path: Path, table: Table) -> None:
        self.path = path
        self.rows = 0
        self._name = table.name
        self._schema = table.schema
        self._new = path.with_suffix(".new")
        self._writer = pq.ParquetWriter(self._new, self._schema, compression="zstd")
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._single: list[Row] = []

    def add(self, got: Rows | Row) -> None:
        """Rows behind the others."""
        if isinstance(got, Row):
            self._single.append(got)
            if len(self._single) >= _MESSAGES:
                self._gather()
            return
        self._hold(got.data)

    def _hold(self, data: pa.RecordBatch) -> None:
        self._held.append(data)
        self._held_rows += data.num_rows
        if self._held_rows >= _ROWS:
            self._put()

    def _gather(self) -> None:
        if self._single:
            rows, self._single = self._single, []
            self._hold(together(self._name, rows))

    def close(self) -> None:
        """The file is whole and has its name."""
        self._gather()
        self._put()
        self._writer.close()
        self._new.replace(self.path)

    def discard(self) -> None:
        """Nothing is left of it."""
        self._writer.close()
        self._new.unlink(missing_ok=True)

    def _put(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held, self._schema).unify_dictionaries()
            self._writer.write_table(table.combine_chunks())
            self.rows += self._held_rows
            self._held, self._held_rows = [], 0


_TABLE_OF = {
    "stats": "stats", "findings": "findings", "forecasts": "forecasts", "alerts": "alerts",
    "link-states": "link_states",
}  # fmt: skip


class ReplayFiles:
    """Takes the records that a replay writes; `<out>/<table>.parquet` for each wanted table.

    A context manager: the files appear when it ends without an error. Raises SetupError if
    the folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            self.files = {
                name: TableFile(out / f"{name}.parquet", TABLES[name])
                for name in _TABLE_OF.values()
            }
        except OSError as error:
            raise SetupError(f"out: {out}: {error}") from error
        self._rosters = Rosters()
        self._stats: dict[str, list[tuple[stats.Stats, int]]] = {}
        self._forecasts: dict[str, list[tuple[forecasts.Forecast, int]]] = {}

    def take(self, record: Record) -> None:
        """Keep the rows of a record; records of other topics are passed over."""
        table = _TABLE_OF.get(record.topic)
        if table is None or not record.value:
            return
        if record.value[:1] == b"{" and table in ("stats", "forecasts"):
            return
        if table == "stats":
            got = record.entry or stats.decode(record.value, self._rosters)
            assert isinstance(got, stats.Stats)
            held = self._stats.setdefault(got.head.kind, [])
            held.append((got, record.timestamp_ms))
            if len(held) >= _MESSAGES:
                self._flush_stats(got.head.kind)
        elif table == "forecasts":
            said = record.entry or forecasts.decode(record.value, self._rosters)
            assert isinstance(said, forecasts.Forecast)
            ahead = self._forecasts.setdefault(said.head.kind, [])
            ahead.append((said, record.timestamp_ms))
            if len(ahead) >= _MESSAGES:
                self._flush_forecasts(said.head.kind)
        else:
            self._add(rows.decode(record, self._rosters))

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, by table. Only after the end."""
        return {
            name: hashlib.sha256(file.path.read_bytes()).hexdigest()
            for name, file in self.files.items()
        }

    def _flush_stats(self, kind: str) -> None:
        self._add(rows.closed(self._stats.pop(kind)))

    def _flush_forecasts(self, kind: str) -> None:
        self._add(rows.forecast(self._forecasts.pop(kind)))

    def _add(self, got: Rows | Row | None) -> None:
        if got is not None and got.table in self.files:
            self.files[got.table].add(got)

    def __enter__(self) -> "ReplayFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            for file in self.files.values():
                file.discard()
            return
        for name in sorted(self._stats):
            self._flush_stats(name)
        for name in sorted(self._forecasts):
            self._flush_forecasts(name)
        for file in self.files.values():
            file.close()
