"""`citybrain outbox`: tell others of new and worse alerts."""

from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, cluster


def outbox(
    webhooks: Annotated[
        str | None, typer.Option(help="Addresses to tell, several with commas.")
    ] = None,
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    port: Annotated[int, typer.Option(help="Port of /metrics and /health; 0 = a free one.")] = 0,
) -> None:
    """Post new and worse alerts to webhooks, each at most once, until it is stopped."""
    import asyncio
    from pathlib import Path

    from citybrain import pack
    from citybrain.errors import UsageError
    from citybrain.settings import resolve
    from citybrain.webhooks import run

    flags = {"city": city, "data": data, "broker": broker, "webhooks": webhooks}
    settings, _ = resolve(flags)
    if not settings.webhooks:
        raise UsageError("webhooks: no address is given; there is nobody to tell")
    city_id = pack.load(settings.city).id
    asyncio.run(run(cluster(settings), city_id, Path(settings.data), settings.webhooks, port))
