"""The command line: a registry of commands, one file each, imported only when it is called.

Data goes to stdout, messages to stderr. A CityBrainError ends with its exit code and one
line; its traceback is shown with --debug only.
"""

import importlib
import os
import sys
from typing import Annotated, Any

import typer

# command -> (module:function or module:app, one line of help). Importing every command's
# module would take seconds; only the one that is called is imported.
COMMANDS: dict[str, tuple[str, str]] = {}


def _version(wanted: bool) -> None:
    if wanted:
        from citybrain import __version__

        typer.echo(f"citybrain {__version__}")
        raise typer.Exit


def _top(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A streaming engine for a city: statistics, anomalies, forecasts, alerts."""
    if debug:
        os.environ["CITYBRAIN_DEBUG"] = "1"


def build(called: str | None) -> typer.Typer:
    """The application with the called command loaded and the others by their help lines."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
    app.callback()(_top)
    for name, (where, text) in COMMANDS.items():
        if name != called:
            app.command(name, help=text)(lambda: None)
            continue
        module, _, attribute = where.partition(":")
        target: Any = getattr(importlib.import_module(module), attribute)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, help=text)
        else:
            app.command(name, help=text)(target)
    return app


def main() -> None:
    """Entry point of the `citybrain` command."""
    from citybrain.errors import CityBrainError

    called = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        build(called)(prog_name="citybrain")
    except CityBrainError as error:
        if os.environ.get("CITYBRAIN_DEBUG"):
            raise
        print(f"citybrain: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
