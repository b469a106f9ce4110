"""`citybrain query`: ask history in SQL."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from citybrain.cli.connection import DataOption


class Format(StrEnum):
    """How rows are shown."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def query(
    sql: Annotated[str, typer.Argument(help='One SELECT, or "views" to list what there is.')],
    data: DataOption = None,
    as_of: Annotated[
        str | None, typer.Option(help="Only what was known by this time (ISO 8601, UTC).")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to show rows.")] = Format.table,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file, not to stdout.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a table at most; 0 = all.")] = 1000,
) -> None:
    """Ask history in SQL (DuckDB's). Times are UTC; columns are described in docs/history.md."""
    from citybrain.clock import moment
    from citybrain.history.read import Reader
    from citybrain.history.show import show
    from citybrain.settings import resolve

    settings, _ = resolve({"data": data})
    sql = "describe-views" if sql.strip().lower() == "views" else sql
    with Reader(
        Path(settings.data) / "history", None if as_of is None else moment(as_of, "as-of")
    ) as reader:
        reader.lock()
        rows = reader.views() if sql == "describe-views" else reader.query(sql)
    show(rows, "json" if as_json else form.value, out or sys.stdout.buffer, limit)
