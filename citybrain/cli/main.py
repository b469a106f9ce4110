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
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("citybrain.cli.up:up", "Run a city with everything it needs; Ctrl-C stops it."),
    "status": ("citybrain.cli.status:status", "What runs, what waits, where readings are."),
    "doctor": ("citybrain.cli.doctor:doctor", "What is wrong, and how to mend it."),
    "edge": ("citybrain.cli.edge:app", "Run an edge agent."),
    "sensor": ("citybrain.cli.sensor:app", "Register, try or park a sensor or gateway."),
    "trace": ("citybrain.cli.trace:trace", "Where a sensor's readings are, hop by hop."),
    "worker": ("citybrain.cli.worker:worker", "Run one worker of the engine."),
    "historian": ("citybrain.cli.historian:historian", "Write what happens to Parquet."),
    "fitter": ("citybrain.cli.fitter:fitter", "Fit models on history and publish them."),
    "centre": ("citybrain.cli.centre:centre", "Serve the operations centre's page."),
    "world": ("citybrain.cli.world:world", "Run a built-in city's simulated world."),
    "alert": ("citybrain.cli.alert:app", "List, acknowledge, assign, shelve alerts."),
    "incident": ("citybrain.cli.incident:app", "Report, list, close incidents; see responders."),
    "emergency": ("citybrain.cli.emergency:app", "Measure emergency trips on a simulator."),
    "rule": ("citybrain.cli.rule:app", "Show the rules; change a threshold."),
    "token": ("citybrain.cli.token:app", "Who may give commands over HTTP."),
    "outbox": ("citybrain.cli.outbox:outbox", "Tell webhooks of new and worse alerts."),
    "dead-letter": ("citybrain.cli.dead_letter:app", "List, show, retry refused input."),
    "signals": ("citybrain.cli.signals:app", "Compare signal controllers on a simulator."),
    "city": ("citybrain.cli.city:app", "List, check and import cities."),
    "query": ("citybrain.cli.query:query", "Ask history in SQL."),
    "replay": ("citybrain.cli.replay:replay", "Put a recording through the engine's cores."),
    "diff": ("citybrain.cli.diff:diff", "Which alerts two replays have gained, lost, moved."),
    "backup": ("citybrain.cli.backup:backup", "Copy a city's data while it runs."),
    "restore": ("citybrain.cli.backup:restore", "Bring a backup back."),
    "topics": ("citybrain.cli.topics:app", "Show the topic table; compare it with a cluster."),
    "settings": ("citybrain.cli.settings:settings", "Where each setting's value comes from."),
}


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
