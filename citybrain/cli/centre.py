"""`citybrain centre`: serve the operations centre's page."""

from pathlib import Path
from typing import Annotated

import typer


def centre(
    city: Annotated[str | None, typer.Option(help="Built-in city or folder of a pack.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    broker: Annotated[str | None, typer.Option(help="Kafka, HOST:PORT.")] = None,
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
    from citybrain.clock import wall_clock
    from citybrain.dashboards.centre.run import serve
    from citybrain.kafka import kafka_settings
    from citybrain.settings import resolve

    flags = {"city": city, "data": data and str(data), "broker": broker, "page_port": port}
    settings, _ = resolve(flags)
    asyncio.run(
        serve(
            pack.load(settings.city),
            Path(settings.data),
            kafka_settings(settings),
            wall_clock,
            settings.page_port,
            listen,
        )
    )
