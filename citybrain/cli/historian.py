"""`citybrain historian`: write what happens to Parquet."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def historian(
    city: Annotated[str | None, typer.Option(help="Built-in city or folder of a pack.")] = None,
    data: Annotated[str | None, typer.Option(help="Data folder.")] = None,
    broker: Annotated[str | None, typer.Option(help="host:port of the Kafka cluster.")] = None,
    port: Annotated[int, typer.Option(help="Port of /metrics and /health; 0 = a free one.")] = 0,
    flush_seconds: Annotated[float, typer.Option(help="At most this long until on disk.")] = 3.0,
) -> None:
    """Write every log of a city to <data>/history, once and in order, until it is stopped."""
    from citybrain import pack
    from citybrain.errors import UsageError
    from citybrain.history.historian import Limits, run
    from citybrain.kafka import kafka_settings
    from citybrain.settings import resolve

    if flush_seconds <= 0:
        raise UsageError(f"flush-seconds: {flush_seconds} is not above 0")
    settings, _ = resolve({"city": city, "data": data, "broker": broker})
    asyncio.run(
        run(
            kafka_settings(settings),
            pack.load(settings.city),
            Path(settings.data),
            Limits(ms=round(flush_seconds * 1000)),
            port,
        )
    )
