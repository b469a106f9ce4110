"""The alerting stage in a real worker: a crash changes nothing that anybody can see."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from citybrain import topics
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.commands import Commander, command
from citybrain.contents import records
from citybrain.findings import Acknowledge, Progress, SetThreshold
from citybrain.kafka import KafkaSettings
from citybrain.stage import Record
from citybrain.streams.alerting import Alerting
from tests.alerting import T0, finding, small_city
from tests.stream.alerting_log import write
from tests.stream.engine import WorkerProcess

SHARDS = {"north": ("d1", "d2"), "south": ("d3", "d4")}
Written = list[tuple[bytes, bytes]]


@pytest.fixture
async def city(broker: LocalBroker, tmp_path: Path, city_id: str) -> City:
    made = small_city(tmp_path, city_id)
    await topics.ensure(broker.settings, city_id, made.partitions)
    return made


def minutes(first: int, last: int) -> list[object]:
    """Each minute something begins, gets worse or ends at every sensor, shard by shard."""
    entries: list[object] = []
    for minute in range(first, last):
        for shard, sensors in SHARDS.items():
            onset = minute // 4 * 4
            state = ("raised", "updated", "updated", "cleared")[minute % 4]
            score = (1.5, 2.5, 4.5, 0.0)[minute % 4]
            for sensor in sensors:
                entries += [
                    finding(rule, sensor, minute, state, score, onset)
                    for rule in ("rain", "silent", "outage")
                ]
            entries.append(Progress(shard=shard, through_ms=T0 + minute * 60_000))
    return entries


async def alerts(settings: KafkaSettings, city: City) -> Written:
    """Every record of the alerts topic, in order."""
    return [(r.key, r.value) async for r in records(settings, city.id, "alerts")]


async def expected(settings: KafkaSettings, city: City) -> Written:
    """What the pure stage makes of the log as it stands on the broker."""
    stage, outs = Alerting(city), []
    async for r in records(settings, city.id, "findings"):
        outs += stage.apply(Record("findings", 0, r.offset, r.timestamp, r.value))
    return [(out.key or b"", out.value) for out in outs if out.topic == "alerts"]


async def until(settings: KafkaSettings, city: City, done: Callable[[Written], bool]) -> Written:
    end = time.monotonic() + 120
    while True:
        found = await alerts(settings, city)
        if done(found):
            return found
        assert time.monotonic() < end, f"not within 120 s; {len(found)} alert records"
        await asyncio.sleep(0.2)


async def test_a_worker_killed_in_the_middle_tells_every_change_once(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    settings = broker.settings
    data = tmp_path / "data"
    start = (city.folder, data, settings.bootstrap)
    await write(settings, city, "findings", minutes(0, 40))
    first = WorkerProcess(*start, "worker-1", "alerting")
    second = None
    try:
        await until(settings, city, lambda found: len(found) > 20)
        first.kill()
        await write(settings, city, "findings", minutes(40, 80))
        second = WorkerProcess(*start, "worker-2", "alerting")
        async with Commander(settings, city.id) as commander:
            order = command(
                SetThreshold, "operator-1", wall_clock(), rule="rain", field="levels.1", value=5.0
            )
            assert (await commander.send(order, 120_000)).outcome == "applied"
            await write(settings, city, "findings", minutes(80, 83))
            wanted = await expected(settings, city)
            await until(settings, city, lambda found: len(found) >= len(wanted))
            rain = next(key for key, _ in reversed(wanted) if key.startswith(b"rain")).decode()
            seen = command(Acknowledge, "operator-1", wall_clock(), alert=rain)
            assert (await commander.send(seen, 120_000)).outcome == "applied"
        wanted = await expected(settings, city)
        found = await until(settings, city, lambda found: len(found) >= len(wanted))
        assert second.stop() == 0, second.log.read_text()
    finally:
        for worker in (first, second):
            if worker and worker.process.poll() is None:
                worker.kill()
    assert found == wanted
