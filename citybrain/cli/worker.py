"""`citybrain worker`: run stages of the engine."""

from typing import Annotated

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption


def worker(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    stages: Annotated[str, typer.Option(help="Stages to run, with commas; all of them.")] = "",
    name: Annotated[str, typer.Option(help="Name of this process.")] = "worker",
    port: Annotated[int, typer.Option(help="Port of /metrics and /health; 0: any.")] = 0,
) -> None:
    """Run one worker of the engine until SIGTERM; start as many as there are cores."""
    from prometheus_client import CollectorRegistry

    from citybrain.cli.connection import connect
    from citybrain.clock import wall_clock
    from citybrain.errors import UsageError
    from citybrain.process import running
    from citybrain.streams.app import run
    from citybrain.streams.metrics import WorkerMetrics
    from citybrain.streams.stages import STAGES

    wanted = [stage for stage in stages.split(",") if stage] or list(STAGES)
    for stage in wanted:
        if stage not in STAGES:
            raise UsageError(f"--stages: {stage!r} is not one of {sorted(STAGES)}")
    to = connect(city, data, broker)
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, wall_clock)
    with running(name, to.data, registry, metrics.health, port):
        run(to.city, to.kafka, wanted, to.data, wall_clock, metrics)
