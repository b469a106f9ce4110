"""Reading a city's tables into columns, and counting what could not be used."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from citybrain.cityimport import mapping
from citybrain.cityimport.localtime import resolve
from citybrain.cityimport.mapping import Table, Value
from citybrain.errors import PackError
from citybrain.grid import snap
from citybrain.kinds import KINDS


@dataclass
class Counts:
    """What became of the values of one table. doubled ones are kept; all others here are not.

    read = kept + empty + filtered + bad_time + missing_time + unknown_kind + out_of_range
    + duplicate + conflict.
    """

    read: int = 0
    kept: int = 0
    empty: int = 0
    filtered: int = 0
    bad_time: int = 0
    missing_time: int = 0
    unknown_kind: int = 0
    out_of_range: int = 0
    duplicate: int = 0
    conflict: int = 0
    doubled_time: int = 0
    unknown_kinds: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one kind from one table, in the table's order, cleaned."""

    kind: str
    table: int
    gateway: str
    names: pa.StringArray
    codes: npt.NDArray[np.int32]
    time_ms: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]


class Source:
    """Reads files under one folder through DuckDB. Raises PackError naming file and column."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._db: Any = duckdb.connect()
        self._db.execute("set timezone = 'UTC'")

    def path(self, file: str) -> Path:
        """Where a file is. Raises PackError if it is not there."""
        path = self.base / file
        if not path.is_file():
            raise PackError(f"{path}: no such file; name the folder of the data with --from")
        return path

    def scan(self, file: str) -> str:
        """How SQL names a file, with its rows numbered by their place in it."""
        path = self.path(file)
        quoted = "'" + str(path).replace("'", "''") + "'"
        if path.suffix == ".parquet":
            return f"read_parquet({quoted})"
        return f"read_csv({quoted}, header = true, sample_size = 100000)"

    def columns(self, file: str) -> dict[str, str]:
        """Column -> type word of a file."""
        try:
            rows = self._db.execute(f"describe select * from {self.scan(file)}").fetchall()
        except duckdb.Error as error:
            raise PackError(f"{self.base / file}: cannot be read as a table: {error}") from error
        return {row[0]: row[1] for row in rows}

    def need(self, file: str, **wanted: str) -> dict[str, str]:
        """Check that columns exist (field of the mapping -> column). Returns column types."""
        have = self.columns(file)
        for name, column in wanted.items():
            if column not in have:
                raise PackError(
                    f"{self.base / file}: {name}: no column {column!r}; it has {sorted(have)}"
                )
        return have

    def rows(self, file: str, select: dict[str, str], where: str = "true") -> pa.Table:
        """Expressions by name over a file's rows, in the order of the file."""
        listed = ", ".join(f"{expression} as {name}" for name, expression in select.items())
        try:
            found: pa.Table = self._db.sql(
                f"select {listed} from {self.scan(file)} where {where}"
            ).to_arrow_table()
        except duckdb.Error as error:
            raise PackError(f"{self.base / file}: {error}") from error
        return found


def quoted(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def local_ms(table: Table, types: dict[str, str]) -> tuple[str, bool]:
    """SQL for a row's time in ms since 1970 (null if it is none), and whether that is UTC."""
    column, word = quoted(table.time), types[table.time]
    if table.time_format in ("s", "ms"):
        factor = 1000 if table.time_format == "s" else 1
        return f"round(try_cast({column} as double) * {factor})::bigint", True
    if word.startswith("TIMESTAMP WITH"):
        return f"epoch_ms({column}::timestamptz)", True
    if word in ("BIGINT", "INTEGER", "UBIGINT", "HUGEINT", "DOUBLE"):
        raise PackError(
            f"{table.file}: time_format: column {table.time!r} holds numbers; expected s or ms"
        )
    if word.startswith("TIMESTAMP") or word == "DATE":
        return f"epoch_ms({column}::timestamp)", False
    if table.time_format:
        pattern = table.time_format.replace("'", "''")
        utc = "%z" in table.time_format
        return f"epoch_ms(try_strptime({column}::varchar, '{pattern}')::timestamp)", utc
    return f"epoch_ms(try_cast({column} as timestamp))", False


def series(
    source: Source, number: int, table: Table, zone: ZoneInfo, counts: Counts
) -> Iterator[Series]:
    """The values of one table, kind by kind."""
    types = source.need(table.file, time=table.time)
    time, utc = local_ms(table, types)
    if table.sensor_name:
        sensor = "'" + table.sensor_name.replace("'", "''") + "'"
    else:
        source.need(table.file, sensor=table.sensor)
        prefix = table.sensor_prefix.replace("'", "''")
        sensor = f"'{prefix}' || {quoted(table.sensor)}::varchar"
    if table.time_zone:
        zone = mapping.zone(f"{table.file}: time_zone", table.time_zone)
    gateway = table.gateway or Path(table.file).name.split(".")[0].lower()
    for kind, value, expression, filter_ in _wanted(source, table, counts):
        rows = source.rows(
            table.file,
            {
                "t": time,
                "s": sensor,
                "v": f"try_cast({expression} as double) * {value.factor!r} + {value.offset!r}",
                "w": mapping.condition(value.where) if value.where else "true",
            },
            filter_,
        )
        yield _clean(rows, kind, number, gateway, None if utc else zone, counts)


def _wanted(source: Source, table: Table, counts: Counts) -> Iterator[tuple[str, Value, str, str]]:
    """(kind, how, SQL of the value, SQL of the rows) for each kind in a table."""
    if table.values:
        for column, value in table.values.items():
            source.need(table.file, values=column)
            yield value.kind, value, quoted(column), "true"
        return
    source.need(table.file, kind=table.kind, value=table.value)
    found = source.rows(
        table.file, {"k": f"{quoted(table.kind)}::varchar", "n": "count(*)"}, "true group by 1"
    )
    for name, n in sorted(zip(*(c.to_pylist() for c in found.columns), strict=True), key=str):
        how = table.kinds.get(name or "") or (Value(name) if name in KINDS else None)
        if how is None:
            counts.read += n
            counts.unknown_kind += n
            counts.unknown_kinds.add(str(name))
            continue
        same = "'" + name.replace("'", "''") + "'"
        yield how.kind, how, quoted(table.value), f"{quoted(table.kind)}::varchar = {same}"


def _clean(
    rows: pa.Table, kind: str, number: int, gateway: str, zone: ZoneInfo | None, counts: Counts
) -> Series:
    counts.read += rows.num_rows
    value = rows.column("v").to_numpy()
    value = np.asarray(value, np.float64)
    no_time = rows.column("t").is_null().to_numpy()
    no_sensor = rows.column("s").is_null().to_numpy()
    passes = rows.column("w").fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
    names = rows.column("s").combine_chunks().dictionary_encode()
    codes = names.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32)
    time = rows.column("t").fill_null(0).to_numpy().astype(np.int64)
    row = KINDS[kind]

    keep = np.ones(len(value), bool)

    def drop(wrong: npt.NDArray[np.bool_]) -> int:
        nonlocal keep
        n = int((keep & wrong).sum())
        keep = keep & ~wrong
        return n

    counts.empty += drop(~np.isfinite(value) | no_sensor)
    counts.filtered += drop(~passes)
    counts.bad_time += drop(no_time)
    codes, time, value = codes[keep], time[keep], value[keep]
    if zone is not None:
        resolved = resolve(time, codes, zone)
        time, keep = resolved.utc_ms, np.ones(len(value), bool)
        counts.missing_time += drop(resolved.missing)
        counts.doubled_time += int(resolved.doubled.sum())
        codes, time, value = codes[keep], time[keep], value[keep]
    value = snap(value, row.resolution)
    keep = np.ones(len(value), bool)
    counts.out_of_range += drop((value < row.low) | (value > row.high))
    return Series(kind, number, gateway, names.dictionary, codes[keep], time[keep], value[keep])
