"""`citybrain up`: a city with everything it needs, until Ctrl-C or for some seconds."""

from pathlib import Path
from typing import Annotated

import typer

from citybrain.cli.connection import CityOption


def up(
    city: CityOption = None,
    data: Annotated[str | None, typer.Option(help="Where everything is kept.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="Kafka HOST:PORT to use; without it one is started.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many workers.")] = None,
    page_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")
    ] = None,
    edge_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port for devices; 0: 8040, or a free one."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", min=1, help="Stop by itself after so many seconds.")
    ] = None,
    days: Annotated[
        int, typer.Option(min=0, help="How many past days a simulated city makes up.")
    ] = 3,
    recording: Annotated[
        Path | None, typer.Option(help="Play this recording in place of a simulated world.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, help="Times real time; 0 plays a recording flat out.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulated world.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object about the run when it stops.")
    ] = False,
) -> None:
    """Run a city with everything it needs; Ctrl-C stops it.

    Exit code 6 if at the end the readings do not add up.
    """
    import asyncio

    import msgspec

    from citybrain.errors import SumError
    from citybrain.settings import resolve
    from citybrain.up.launch import Options
    from citybrain.up.running import run

    flags = {"city": city, "data": data, "broker": broker, "workers": workers,
             "page_port": page_port, "edge_port": edge_port}  # fmt: skip
    settings, _ = resolve(flags)
    options = Options(days=days, speed=speed, seed=seed, recording=recording, watched=as_json)
    report = asyncio.run(run(settings, options, seconds))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    if not report.sum_holds:
        raise SumError(
            f"readings do not add up: produced {report.produced}, but counted {report.counted}"
            f" + duplicate {report.duplicate} + backfilled {report.backfilled} + overflowed"
            f" {report.overflowed} + dead-lettered {report.dead_lettered} + in flight"
            f" {report.in_flight}"
        )
