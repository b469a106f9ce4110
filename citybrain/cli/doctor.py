"""`citybrain doctor`: what is wrong, and how to mend it."""

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption


def doctor(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is wrong here, and how to mend it. Warnings alone end with exit code 0.

    Exit code 3 if something has to be installed or freed, 4 for the pack, 5 for the broker:
    that of the first thing that is wrong.
    """
    from rich.text import Text

    from citybrain.checks import all_checks
    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import wall_clock
    from citybrain.settings import resolve

    settings, _ = resolve({"city": city, "data": data, "broker": broker})
    checks = all_checks(settings, wall_clock)
    if as_json:
        print_json(checks)
    else:
        colours = {"ok": "green", "warning": "yellow", "wrong": "bold red"}
        print_table(
            ("", "check", "found", "how to mend it"),
            ((Text(c.state, colours[c.state]), c.name, c.found, c.mend) for c in checks),
        )
    for check in checks:
        if check.state == "wrong":
            raise typer.Exit(check.code)
