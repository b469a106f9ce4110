"""Giving commands from the command line and showing what became of each."""

from typing import Any

from citybrain.cli.connection import Connection


def give(here: Connection, orders: list[Any], about: list[str], as_json: bool) -> None:
    """Send commands, print one result for each of `about`.

    Raises Refused if one was not applied (the others were), NoAnswer if nobody answers.
    """
    from citybrain.cli.output import print_json
    from citybrain.commands import demand, send_all

    results = send_all(here.kafka, here.city.id, orders)
    if as_json:
        print_json(results)
    for what, result in zip(about, results, strict=True):
        if not as_json and result.outcome == "applied":
            print(f"{result.outcome}: {what}")
    for result in results:
        demand(result)
