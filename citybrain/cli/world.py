"""`citybrain world`: the simulated world of a built-in city, as devices that speak HTTP."""

from pathlib import Path
from typing import Annotated

import typer


def world(
    city: Annotated[str, typer.Option(help="A built-in city or a pack's folder.")] = "adlershof",
    data: Annotated[Path, typer.Option(help="The data folder.")] = Path("data"),
    edge: Annotated[
        str, typer.Option(help="URL of the edge agent's HTTP source.")
    ] = "http://127.0.0.1:8040",
    speed: Annotated[
        float,
        typer.Option(min=0.01, help="Above 1: live through --days at this speed up to now."),
    ] = 1.0,
    days: Annotated[
        float, typer.Option(min=0, help="Past days to fill in the background; 0 for none.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same world.")] = 1,
    schedule: Annotated[
        Path | None, typer.Option(help="JSON file of what happens, instead of chance.")
    ] = None,
    past_share: Annotated[
        float, typer.Option(min=0.05, max=1, help="Of one core, for the past days.")
    ] = 0.7,
    mqtt: Annotated[
        str | None, typer.Option(help="HOST:PORT of an MQTT broker for the weather stations.")
    ] = None,
    twin: Annotated[
        bool, typer.Option(help="Run the same streets under the local plans alone beside.")
    ] = True,
    port: Annotated[int, typer.Option(help="Of /metrics and /health; 0 takes a free one.")] = 0,
) -> None:
    """Run the simulated world of a city until SIGTERM or Ctrl-C."""
    import asyncio

    from citybrain.edge.world import schedule as schedules
    from citybrain.edge.world.live import live
    from citybrain.edge.world.options import Options
    from citybrain.pack import load

    given = None if schedule is None else schedules.read(schedule)
    options = Options(
        data=data, edge=edge, seed=seed, speed=speed, days=days, past_share=past_share,
        port=port, given=given, twin=twin, mqtt=None if mqtt is None else _address(mqtt),
    )  # fmt: skip
    asyncio.run(live(load(city), options))


def _address(text: str) -> tuple[str, int]:
    from citybrain.errors import UsageError

    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--mqtt: {text!r} is not HOST:PORT")
    return host, int(port)
