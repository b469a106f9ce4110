"""`citybrain fitter`: fit models on history and publish them."""

from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption


def fitter(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    port: Annotated[int, typer.Option(help="Port of /metrics and /health; 0: any.")] = 0,
    every_seconds: Annotated[float, typer.Option(help="Pause between two looks.")] = 15.0,
) -> None:
    """Fit a city's models on its history and publish them, until SIGTERM.

    Each local midnight, once there are three days of history, and when days were filled in.
    """
    import asyncio
    import os

    from citybrain.cli.connection import connect
    from citybrain.errors import UsageError
    from citybrain.streams.fitter import run

    if every_seconds <= 0:
        raise UsageError(f"every-seconds: {every_seconds} is not above 0")
    to = connect(city, data, broker)
    # Fitting can wait; readings cannot.
    os.nice(10)
    asyncio.run(run(to.kafka, to.city, to.data, port, every_s=every_seconds))
