"""`citybrain token`: who may give commands over HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citybrain.cli.connection import DataOption, JsonOption

if TYPE_CHECKING:
    from citybrain.people import People

app = typer.Typer(no_args_is_help=True, help="Tokens of those who give commands over HTTP.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Under which commands are given.")]


@app.command()
def show(data: DataOption = None) -> None:
    """Print the token of the data folder's owner, which may give every command."""
    from citybrain.clock import wall_clock
    from citybrain.people import owner_name

    typer.echo(_people(data).owner_token(owner_name(), wall_clock()))


@app.command()
def add(
    name: Name,
    role: Annotated[
        str, typer.Option(help="operator: works alerts; supervisor: rules and sensors too.")
    ] = "operator",
    data: DataOption = None,
) -> None:
    """Give a person or program a token. It is printed this once and stored as a hash."""
    from citybrain.clock import wall_clock

    typer.echo(_people(data).add(name, role, wall_clock()))
    typer.echo(f"the token of {name} ({role}); it cannot be shown again", err=True)


@app.command("list")
def list_(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Who has a token."""
    from datetime import UTC

    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import shown

    people = _people(data).all()
    if as_json:
        print_json([{"name": p.name, "role": p.role, "created_ms": p.created_ms} for p in people])
        return
    rows = ((p.name, p.role, shown(p.created_ms, UTC)) for p in people)
    print_table(("name", "role", "since (UTC)"), rows)


@app.command()
def revoke(name: Name, data: DataOption = None) -> None:
    """Take back the tokens of a person; a running centre notices at once."""
    from citybrain.errors import UsageError

    gone = _people(data).revoke(name)
    if not gone:
        raise UsageError(f"name: {name!r} has no token; `citybrain token list` shows who has")
    typer.echo(f"{gone} token(s) taken back")


def _people(data: str | None) -> "People":
    from citybrain.people import People
    from citybrain.settings import resolve

    return People(Path(resolve({"data": data})[0].data))
