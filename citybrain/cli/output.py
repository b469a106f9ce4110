"""How commands show data: tables for people, JSON for programs, both on stdout."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


def print_json(data: Any) -> None:
    """One indented JSON document; bytes as base64."""
    print(msgspec.json.format(msgspec.json.encode(data), indent=1).decode())


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """A table as wide as its contents where stdout is no terminal, so that nothing is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    console.print(table, soft_wrap=False)


def _text(cell: Any) -> Any:
    from rich.text import Text

    if isinstance(cell, Text):
        return cell
    text = "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)
    # What came from outside may hold control sequences; the terminal is not to obey them.
    return Text("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text))
