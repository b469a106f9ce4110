"""`citybrain replay`: put a recording through the engine's cores."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def replay(
    city: Annotated[str, typer.Option(help="Built-in city or folder of a pack.")],
    recording: Annotated[Path, typer.Option(help="Recording (Parquet), e.g. of `city import`.")],
    out: Annotated[Path, typer.Option(help="Folder for the Parquet files.")],
    pack: Annotated[
        str | None, typer.Option(help="Another pack to try: its rules, over the city's own.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Only readings from here on (ISO, UTC).")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Only readings before this (ISO, UTC).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write stats, findings, forecasts, link_states and alerts as a live engine would.

    The same recording and pack give the same files; columns are described in docs/history.md.
    """
    from citybrain import pack as packs
    from citybrain.clock import moment
    from citybrain.errors import UsageError
    from citybrain.streams.replaying import run

    first = None if start is None else moment(start, "start")
    last = None if end is None else moment(end, "end")
    if first is not None and last is not None and first >= last:
        raise UsageError(f"start: {start} is not before end = {end}")
    done = run(
        packs.load(pack or city), recording, out, first, last,
        print if sys.stderr.isatty() else None,
    )  # fmt: skip
    if not done["readings"]:
        typer.echo("warning: no reading of the recording lies in this time", err=True)
    if as_json:
        typer.echo(json.dumps(done, ensure_ascii=False))
        return
    typer.echo(
        f"{done['readings']} readings in {done['seconds']} s: {done['readings_per_second']} /s"
    )
    for name, file in done["files"].items():
        typer.echo(f"{name:<12} {file['rows']:>10} rows  {file['sha256'][:16]}  {file['path']}")
