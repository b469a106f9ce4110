"""Reading history: a DuckDB connection with one view a table, and nothing else.

Files come from the journal, so a reader sees whole flushes only. `Reader.query` runs one
SELECT of somebody else's: no files but history's, no settings, no writing.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from citybrain.errors import UsageError
from citybrain.history.journal import NAME, Journal
from citybrain.history.tables import TABLES

# view -> (what one row of the log's identity is, which of its repeats counts)
_WINDOW = "sensor, kind, window_ms, window_start"
_LAST = {
    "stats": (_WINDOW, "revision desc, known_at"),
    "alerts": ("id", "revision desc, known_at"),
    "link_states": ("link", "at_time desc, known_at"),
}
# A stage that was killed writes its last outputs again; each counts once.
_ONCE = {
    "stats": f"{_WINDOW}, revision",
    "findings": "id, state, at_time",
    "forecasts": "sensor, kind, target, horizon, model",
    "alerts": "id, revision",
    "link_states": "link, at_time",
    "command_results": "id, outcome",
    "commands": "id",
    "dead_letters": "id",
}
VIEWS: dict[str, str] = {name: table.text for name, table in TABLES.items()} | {
    "stats": "closed windows, the last revision of each",
    "stats_all": "closed windows, every revision",
    "alerts": "alerts as they stand: the last change of each",
    "alerts_all": "every change of every alert",
    "link_states": "how each road flows: its last state",
    "link_states_all": "every state of every road",
}
"""View -> what a row of it is."""


class Reader:
    """Queries over one history folder as it was when this was opened.

    as_of_ms: only what was known by then (`known_at`). Raises UsageError if there is no
    history in the folder.
    """

    def __init__(
        self, root: Path, as_of_ms: int | None = None, tables: Iterable[str] = TABLES
    ) -> None:
        if not (root / NAME).is_file():
            raise UsageError(f"data: {root} holds no history; name the data folder of a city")
        self.root = root
        self._spill = tempfile.TemporaryDirectory(prefix="citybrain-query-")
        self._db: Any = duckdb.connect()
        self._db.execute("set timezone = 'UTC'")
        self._db.execute(f"set temp_directory = {_quoted(self._spill.name)}")
        self._db.execute("set memory_limit = '2GB'")
        self._db.execute("set preserve_insertion_order = true")
        with Journal(root, writable=False) as journal:
            for name in tables:
                self._view(name, [str(root / f.path) for f in journal.files(name)], as_of_ms)

    def close(self) -> None:
        """Release memory and temporary files."""
        self._db.close()
        self._spill.cleanup()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """From here on no file but history's can be read, none written, no setting changed."""
        self._db.execute(f"set allowed_directories = [{_quoted(str(self.root))}]")
        self._db.execute("set enable_external_access = false")
        self._db.execute("set lock_configuration = true")

    def query(self, sql: str) -> pa.Table:
        """The rows of one SELECT. Raises UsageError with what is wrong with it."""
        try:
            statements = self._db.extract_statements(sql)
            allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
            if len(statements) != 1 or statements[0].type not in allowed:
                raise UsageError(
                    "query: expected one SELECT; views are " + ", ".join(sorted(VIEWS))
                )
            return self._db.sql(statements[0]).to_arrow_table()
        except duckdb.CatalogException as error:
            raise UsageError(f"query: {error}\nviews: {', '.join(sorted(VIEWS))}") from error
        except duckdb.Error as error:
            raise UsageError(f"query: {error}") from error

    def views(self) -> pa.Table:
        """What can be asked for: every view with its columns."""
        rows = [
            (view, VIEWS[view], column, words[1])
            for view in sorted(VIEWS)
            for column, words in TABLES[view.removesuffix("_all")].columns.items()
        ]
        names = ["view", "a row is", "column", "meaning"]
        return pa.table([list(column) for column in zip(*rows, strict=True)], names=names)

    def arrow(self, sql: str, parameters: Any = None) -> pa.Table:
        """The rows of a query of ours."""
        return self._db.sql(sql, params=parameters).to_arrow_table()

    def _view(self, name: str, paths: list[str], as_of_ms: int | None) -> None:
        if paths:
            listed = ", ".join(_quoted(path) for path in paths)
            source = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
        else:
            self._db.register(f"_empty_{name}", TABLES[name].schema.empty_table())
            source = f"_empty_{name}"
        columns = ", ".join(f'"{column}"' for column in TABLES[name].columns)
        known = "" if as_of_ms is None else f" where known_at <= epoch_ms({as_of_ms})::timestamptz"
        rows = f"select {columns} from {source}{known}"
        if name in _ONCE:
            rows = _first(rows, _ONCE[name], "known_at")
        if name not in _LAST:
            self._db.execute(f"create view {name} as {rows}")
            return
        self._db.execute(f"create view {name}_all as {rows}")
        of, order = _LAST[name]
        source = f"select {columns} from {source}{known}"
        self._db.execute(f"create view {name} as {_first(source, of, order)}")


def _first(rows: str, of: str, order: str) -> str:
    return f"{rows} qualify row_number() over (partition by {of} order by {order}) = 1"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
