"""`citybrain edge run CONFIG.toml`: run an edge agent until it is told to stop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _edge() -> None:
    """Edge agents: the one way in for readings."""


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The agent's TOML file.")],
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    port: Annotated[int, typer.Option(help="Port of /metrics and /health; 0: any.")] = 0,
) -> None:
    """Run an edge agent: take readings from its sources, keep them on disk, send them on."""
    import asyncio
    import logging
    import sys

    from prometheus_client import CollectorRegistry

    from citybrain import log
    from citybrain.cli.connection import cluster
    from citybrain.edge.agent import Agent
    from citybrain.edge.config import read
    from citybrain.pack import load
    from citybrain.process import running, stop_event
    from citybrain.settings import resolve

    stated = read(config)
    flags = {
        "city": city if city is not None else stated.city,
        "data": data if data is not None else stated.data,
        "broker": broker if broker is not None else stated.broker,
    }
    settings, _ = resolve(flags)
    folder = Path(settings.data)
    registry = CollectorRegistry()
    name = f"edge-{stated.name}"
    # What opening the spool says comes before `running`.
    log.configure(name)
    # The sender says once that the broker is away; aiokafka would say it every few seconds.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    async def serve() -> None:
        agent = Agent(stated, load(settings.city), folder, cluster(settings), registry)
        with running(name, folder, registry, agent.health, port):
            await agent.run(stop_event())

    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else _uvloop()) as runner:
        runner.run(serve())


def _uvloop() -> "Callable[[], asyncio.AbstractEventLoop]":
    import uvloop

    return uvloop.new_event_loop
