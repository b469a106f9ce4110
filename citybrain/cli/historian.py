"""`citybrain historian`: write what happens to Parquet."""

import asyncio
from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, connect


def historian(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    port: Annotated[int, typer.Option(help="Port of /metrics and /health; 0 = a free one.")] = 0,
    flush_seconds: Annotated[float, typer.Option(help="At most this long until on disk.")] = 3.0,
) -> None:
    """Write every log of a city to <data>/history, once and in order, until it is stopped."""
    from citybrain.errors import UsageError
    from citybrain.history.historian import Limits, run

    if flush_seconds <= 0:
        raise UsageError(f"flush-seconds: {flush_seconds} is not above 0")
    to = connect(city, data, broker)
    asyncio.run(run(to.kafka, to.city, to.data, Limits(ms=round(flush_seconds * 1000)), port))
