"""`citybrain fitter`: fit models on history and publish them."""

from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption


def fitter(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    port: Annotated[int, typer.Option(help="Port of /metrics and /health; 0: any.")] = 0,
) -> None:
    """Fit a city's models on its history and publish them, until SIGTERM.

    The first as soon as there are three days of history, then at each local midnight.
    """
    import asyncio
    import os

    from citybrain.cli.connection import connect
    from citybrain.streams.fitter import run

    to = connect(city, data, broker)
    # Fitting can wait; readings cannot.
    os.nice(10)
    asyncio.run(run(to.kafka, to.city, to.data, port))
