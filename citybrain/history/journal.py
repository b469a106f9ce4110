"""The journal of history: which files count, and up to which offset the logs are in them.

One SQLite file (WAL). A flush is one transaction: its files, the next offset of every
partition, the sequence numbers of the gateways, the windows to recompute. A file that the
journal does not know does not exist: readers ask the journal, and `recover` deletes what a
killed writer has left behind. So a reading is in exactly one file that counts.

When power fails, SQLite may lose its last transactions, whole: files and offsets go back
together, and the logs are read again from there.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from citybrain.errors import SetupError
from citybrain.sequences import Sequence

VERSION = 1
NAME = "journal.sqlite"

_SCHEMA = (
    "create table files (path text primary key, dataset text not null, kind text not null,"
    " day text not null, rows integer not null, bytes integer not null, level integer not null,"
    " first_ms integer, last_ms integer, dropped_ms integer) without rowid",
    "create index by_folder on files (dataset, kind, day)",
    "create table offsets (topic text, partition integer, next integer not null,"
    " primary key (topic, partition)) without rowid",
    "create table sequences (gateway text, incarnation text, shard text, state blob not null,"
    " primary key (gateway, incarnation, shard)) without rowid",
    "create table stale (kind text, block_ms integer, known_ms integer not null,"
    " primary key (kind, block_ms)) without rowid",
    "create table numbers (name text primary key, value integer not null) without rowid",
    f"pragma user_version = {VERSION}",
)


@dataclass(frozen=True, slots=True)
class File:
    """One Parquet file. path: relative to the history folder. level: how often merged."""

    path: str
    table: str
    kind: str
    day: str
    rows: int
    bytes: int
    level: int
    first_ms: int | None
    last_ms: int | None


Sequences = Mapping[tuple[str, str, str], Sequence]
Partition = tuple[str, int]


class Journal:
    """Reads and writes the journal of one history folder.

    Raises SetupError if the file cannot be opened or is of a newer version.
    """

    def __init__(self, root: Path, *, writable: bool = True) -> None:
        self.path = root / NAME
        try:
            if writable:
                root.mkdir(parents=True, exist_ok=True)
                self._db = self._open(self.path)
                self._db.execute("pragma journal_mode=wal")
                self._db.execute("pragma synchronous=normal")
            else:
                self._db = self._open(f"{self.path.absolute().as_uri()}?mode=ro")
            (version,) = self._db.execute("pragma user_version").fetchone()
            if writable and version == 0:
                version = self._create()
        except (sqlite3.Error, OSError) as error:
            raise SetupError(f"history journal {self.path}: {error}") from error
        if not 0 < version <= VERSION:
            self._db.close()
            raise SetupError(
                f"history journal {self.path}: version {version} is newer than {VERSION}"
                if version
                else f"history journal {self.path}: nothing is in it yet"
            )

    @staticmethod
    def _open(where: Path | str) -> sqlite3.Connection:
        # One caller at a time, but not always from the same thread (flushes have theirs).
        return sqlite3.connect(
            where, uri=isinstance(where, str), isolation_level=None, timeout=30,
            check_same_thread=False,
        )  # fmt: skip

    def _create(self) -> int:
        self._db.execute("begin immediate")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._db.execute("commit")
        return VERSION

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def files(self, table: str | None = None, *, dropped: bool = False) -> list[File]:
        """Files that count (or those that have been dropped), in the order of their paths."""
        with closing(self._db.cursor()) as cursor:
            rows = cursor.execute(
                "select path, dataset, kind, day, rows, bytes, level, first_ms, last_ms from files"
                " where (dropped_ms is not null) = ? and (? is null or dataset = ?) order by path",
                (dropped, table, table),
            )
            return [File(*row) for row in rows]

    def offsets(self) -> dict[Partition, int]:
        """The next offset to read, by (topic, partition)."""
        rows = self._db.execute("select topic, partition, next from offsets")
        return {(topic, partition): following for topic, partition, following in rows}

    def sequences(self) -> dict[tuple[str, str, str], Sequence]:
        """Which batches are in history, by (gateway, incarnation, shard)."""
        rows = self._db.execute("select gateway, incarnation, shard, state from sequences")
        return {
            (gateway, incarnation, shard): msgspec.json.decode(state, type=Sequence)
            for gateway, incarnation, shard, state in rows
        }

    def stale(self) -> dict[tuple[str, int], int]:
        """Blocks to recompute: (kind, start) -> when the last late reading was known."""
        rows = self._db.execute("select kind, block_ms, known_ms from stale order by 1, 2")
        return {(kind, block): known for kind, block, known in rows}

    def next_number(self) -> int:
        """A number for a file name, never handed out before."""
        (number,) = self._db.execute(
            "insert into numbers values ('file', 0)"
            " on conflict (name) do update set value = value + 1 returning value"
        ).fetchone()
        return int(number)

    def commit(
        self,
        files: Iterable[File] = (),
        offsets: Mapping[Partition, int] | None = None,
        sequences: Sequences | None = None,
        stale: Mapping[tuple[str, int], int] | None = None,
        done: Iterable[tuple[str, int, int]] = (),
        dropped: Collection[str] = (),
        now_ms: int = 0,
    ) -> None:
        """All of it or none. done: blocks recomputed (kind, start, known); one that has become
        stale again meanwhile stays. dropped: paths that no longer count since now_ms."""
        with closing(self._db.cursor()) as cursor:
            cursor.execute("begin immediate")
            try:
                cursor.executemany(
                    "insert into files values (?, ?, ?, ?, ?, ?, ?, ?, ?, null)",
                    [(f.path, f.table, f.kind, f.day, f.rows, f.bytes, f.level, f.first_ms,
                      f.last_ms) for f in files],
                )  # fmt: skip
                cursor.executemany(
                    "insert or replace into offsets values (?, ?, ?)",
                    [(*key, following) for key, following in (offsets or {}).items()],
                )
                cursor.executemany(
                    "insert or replace into sequences values (?, ?, ?, ?)",
                    [(*key, msgspec.json.encode(had)) for key, had in (sequences or {}).items()],
                )
                cursor.executemany(
                    "insert into stale values (?, ?, ?) on conflict do update"
                    " set known_ms = max(known_ms, excluded.known_ms)",
                    [(*key, known) for key, known in (stale or {}).items()],
                )
                cursor.executemany(
                    "delete from stale where kind = ? and block_ms = ? and known_ms <= ?", done
                )
                cursor.executemany(
                    "update files set dropped_ms = ? where path = ?",
                    [(now_ms, path) for path in dropped],
                )
                cursor.execute("commit")
            except BaseException:
                cursor.execute("rollback")
                raise

    def forget(self, before_ms: int) -> list[str]:
        """Paths dropped before a time: no reader has them open any more. Removes the entries."""
        rows = self._db.execute(
            "delete from files where dropped_ms < ? returning path", (before_ms,)
        ).fetchall()
        return [path for (path,) in rows]

    def begin_logs_anew(self) -> None:
        """The logs begin at offset 0 again (another cluster); what is in history stays."""
        self._db.execute("delete from offsets")
