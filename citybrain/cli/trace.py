"""`citybrain trace SENSOR`: where its readings are, hop by hop."""

from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption, connect


def trace(
    sensor: Annotated[str, typer.Argument(help="The sensor's id.")],
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    tail: Annotated[
        int, typer.Option(min=1, help="How many of a log's last records to look at.")
    ] = 2_000,
    as_json: JsonOption = False,
) -> None:
    """Where a sensor's readings are, hop by hop, with counts and ages."""
    import asyncio

    from citybrain.cli.output import print_json, print_table
    from citybrain.clock import wall_clock
    from citybrain.trace import trace as look

    here = connect(city, data, broker)
    hops = asyncio.run(look(here.kafka, here.city, here.data, sensor, wall_clock(), tail))
    if as_json:
        print_json(hops)
        return
    rows = [(h.hop, h.saw, _age(h.age_ms), h.text, _facts(h.facts)) for h in hops]
    print_table(("hop", "", "age", "what", "facts"), rows)


def _age(age_ms: int) -> str:
    if age_ms == -1:
        return "?"
    seconds = age_ms / 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _facts(facts: dict[str, int | float | str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
