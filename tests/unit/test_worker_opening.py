"""Taking partitions: the consumer sends no heartbeat while it waits for our handler."""

import asyncio
from pathlib import Path

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from citybrain.clock import wall_clock
from citybrain.errors import BrokerError
from citybrain.kafka import KafkaSettings
from citybrain.pack import load
from citybrain.streams import app
from citybrain.streams.metrics import WorkerMetrics
from citybrain.topics import full_name
from tests.packs import write_pack


async def test_states_that_never_open_end_the_worker_instead_of_leaving_it_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(places: object) -> None:
        await asyncio.Event().wait()

    city = load(str(write_pack(tmp_path / "pack")))
    metrics = WorkerMetrics(CollectorRegistry(), wall_clock)
    worker = app.Worker(
        city, KafkaSettings("127.0.0.1:1"), ["rollup"], tmp_path, wall_clock, metrics
    )
    monkeypatch.setattr(worker, "_open_all", never)
    monkeypatch.setattr(app, "OPENING_S", 0.05)
    with pytest.raises(BrokerError, match="states did not open within"):
        await worker._open([TP(full_name(city.id, "readings"), 0)])


async def test_states_that_open_slowly_do_not_hold_up_the_group_and_can_be_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    closed = 0

    class Slow:
        def __init__(self, *_: object) -> None: ...

        async def close(self) -> None:
            nonlocal closed
            closed += 1

    async def never(stores: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "KafkaStore", Slow)
    monkeypatch.setattr(app, "prepare", never)
    city = load(str(write_pack(tmp_path / "pack")))
    metrics = WorkerMetrics(CollectorRegistry(), wall_clock)
    settings = KafkaSettings("127.0.0.1:1")
    worker = app.Worker(city, settings, ["rollup"], tmp_path, wall_clock, metrics)
    places = {TP(full_name(city.id, "readings"), number) for number in range(3)}

    await asyncio.wait_for(worker._assigned(places), 5)
    await begun.wait()
    assert "3 partitions to open" in metrics.health().waiting
    await asyncio.wait_for(worker._revoked(places), 5)
    assert closed == 3
    assert not worker.shells
