"""Rows of a query as a table, CSV, JSON or Parquet. Times are ISO 8601 in UTC."""

import sys
from pathlib import Path
from typing import IO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from citybrain.errors import UsageError


def show(rows: pa.Table, form: str, out: Path | IO[bytes], limit: int = 1000) -> None:
    """Write rows to a file or stream. form: table, csv, json or parquet.

    Raises UsageError if the file cannot be written, or for Parquet on a terminal.
    """
    if isinstance(out, Path):
        try:
            with out.open("wb") as file:
                show(rows, form, file, limit)
        except OSError as error:
            raise UsageError(f"out: {out}: {error}") from error
        return
    if form == "parquet":
        if out.isatty():
            raise UsageError("format: parquet is not for a terminal; name a file with --out")
        pq.write_table(rows, pa.PythonFile(out, mode="w"), compression="zstd")
    elif form == "csv":
        pyarrow.csv.write_csv(_readable(rows), pa.PythonFile(out, mode="w"))
    elif form == "json":
        out.write(msgspec.json.encode(_readable(rows).to_pylist(), enc_hook=_plain) + b"\n")
    else:
        _table(rows, out, limit)
    out.flush()


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


def _readable(rows: pa.Table) -> pa.Table:
    """Times as text with a Z, whatever their resolution; the rest as it is."""
    for i, field in enumerate(rows.schema):
        column = rows.column(i)
        if pa.types.is_timestamp(field.type):
            text = pc.strftime(column.cast(pa.timestamp("ms", field.type.tz)), "%Y-%m-%dT%H:%M:%S")
            rows = rows.set_column(i, field.name, text)
            if field.type.tz:
                rows = rows.set_column(i, field.name, pc.binary_join_element_wise(text, "Z", ""))
        elif pa.types.is_dictionary(field.type):
            rows = rows.set_column(i, field.name, column.cast(pa.utf8()))
        elif pa.types.is_binary(field.type):
            shown = [None if v is None else v.hex() for v in column.to_pylist()]
            rows = rows.set_column(i, field.name, pa.array(shown, pa.utf8()))
    return rows


def _table(rows: pa.Table, out: IO[bytes], limit: int) -> None:
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = rows if not limit else rows.slice(0, limit)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for field in rows.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if number else "left", overflow="fold")
    for row in zip(*(column.to_pylist() for column in _readable(shown).columns), strict=True):
        table.add_row(*(Text("" if cell is None else _short(cell)) for cell in row))
    text = StringIO()
    width = None if out.isatty() else 10_000
    Console(file=text, width=width, force_terminal=out.isatty(), soft_wrap=True).print(table)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    out.write("\n".join(lines).encode() + b"\n")
    if shown.num_rows < rows.num_rows:
        print(f"{shown.num_rows} of {rows.num_rows} rows; --limit 0 shows all", file=sys.stderr)


def _short(cell: object) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
