"""`citybrain centre`: serve the operations centre's page."""

from pathlib import Path
from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption


def centre(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port of the page; 0 takes any that is free.", min=0, max=65535),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Another one than this machine's own is for a container"
            " whose published port is bound to it.",
            envvar="CITYBRAIN_LISTEN",
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve the operations centre's page, read-only, to this machine alone.

    It asks nobody to sign in: who may reach the port may look. Names other than 127.0.0.1 and
    localhost are refused.
    """
    import asyncio

    from citybrain import pack
    from citybrain.cli.connection import cluster
    from citybrain.clock import wall_clock
    from citybrain.dashboards.centre.run import serve
    from citybrain.settings import resolve

    flags = {"city": city, "data": data, "broker": broker, "page_port": port}
    settings, _ = resolve(flags)
    asyncio.run(
        serve(
            pack.load(settings.city),
            Path(settings.data),
            cluster(settings),
            wall_clock,
            settings.page_port,
            listen,
        )
    )
