"""`citybrain emergency`: emergency trips, measured on a simulator."""

import typer

app = typer.Typer(no_args_is_help=True)
