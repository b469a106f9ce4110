"""`citybrain diff`: which alerts two replays have gained, lost, moved."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def diff(
    a: Annotated[Path, typer.Argument(help="Folder of a replay (or its alerts.parquet).")],
    b: Annotated[Path, typer.Argument(help="The same with another pack, threshold or model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Alerts of B compared with those of A.

    Two alerts are the same case if rule and place are equal and they overlap in time. Gained:
    only in B. Lost: only in A. Moved: in both, with another opening, end or worst severity.
    """
    from citybrain.clock import stamp
    from citybrain.history import alertdiff

    found = alertdiff.compare(alertdiff.read(a), alertdiff.read(b))
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False))
        return

    def line(sign: str, case: alertdiff.Case) -> str:
        end = "-" if case.cleared_ms is None else stamp(case.cleared_ms)
        return f"{sign} {stamp(case.opened_ms)}  {end:<24} {case.severity}  {case.place}"

    for case in found.gained:
        typer.echo(line("+", case))
    for case in found.lost:
        typer.echo(line("-", case))
    for move in found.moved:
        typer.echo(line("<", move.before))
        typer.echo(line(">", move.after))
    print(
        f"{len(found.gained)} gained, {len(found.lost)} lost, {len(found.moved)} moved,"
        f" {found.same} the same",
        file=sys.stderr,
    )
