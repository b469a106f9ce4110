"""How long after a SIGKILL of a worker everything is up to date again.

100,000 sensors send 100,000 readings a second, two workers share them. One is killed and is
started again at once, as its supervisor does. Kafka's session time-out, in which nobody can
know that it is dead, is stated apart: the engine's own share is what comes after it.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.frame import Row, Size, of
from citybrain import batch as readings
from citybrain import stats, topics
from citybrain.batch import Batch, BatchHead
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.columns import Roster, Rosters
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments
from citybrain.pack import load
from citybrain.topics import full_name

SENSORS, A_MESSAGE, SHARDS = 100_000, 5_000, 4
KIND = "vehicle_count"
SESSION_S = 10.0
CALM_S, LONGEST_S = 15.0, 180.0
SLACK_S = 1.0
"""Up to date: event time is behind the clock by no more than so much above the usual."""


def after_a_kill(size: Size) -> Iterable[Row]:
    """Kill one of two workers again and again; seconds apart from the session time-out."""
    runs = 3 if size == "small" else 7
    folder = Path(tempfile.mkdtemp(prefix="citybrain-bench-"))
    try:
        city = _city(folder / "pack")
        with LocalBroker(folder / "kafka") as broker:
            asyncio.run(topics.ensure(broker.settings, city.id, city.partitions))
            total = asyncio.run(_measure(broker.settings, city, folder, runs))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    own = [max(0.0, one - SESSION_S) for one in total]
    facts: dict[str, float | int | str] = {
        "readings a second": SENSORS,
        "sensors": SENSORS,
        "workers": 2,
        "session time-out": SESSION_S,
        "with it": round(of(total).median, 1),
        "goal": 10,
    }
    yield Row("SIGKILL of a worker to up to date", "s, without the session", of(own), facts)


def _city(folder: Path) -> City:
    folder.mkdir(parents=True)
    table = "\n".join(f"s{i} = {i}" for i in range(SHARDS))
    (folder / "city.toml").write_text(
        f'id = "bench"\ntime_zone = "UTC"\npartitions = {SHARDS}\n[name]\nzh = "测"\n'
        f'en = "Bench"\n[zones.z]\nzh = "区"\nen = "Zone"\n[shards]\n{table}\n'
        f"[kinds.{KIND}]\ncadence_s = 1\n"
    )
    each = SENSORS // SHARDS
    rows = [f"d{i:06},{KIND},z,s{i // each},g{i // A_MESSAGE:03},0,0,," for i in range(SENSORS)]
    head = "sensor,kinds,zone,shard,gateway,lon,lat,link,name"
    (folder / "sensors.csv").write_text("\n".join([head, *rows]) + "\n")
    (folder / "roads.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (folder / "rules.toml").write_text("")
    (folder / "calendar.toml").write_text("")
    return load(str(folder))


async def _measure(settings: KafkaSettings, city: City, folder: Path, runs: int) -> list[float]:
    passed: dict[str, int] = {}
    tasks = [
        asyncio.create_task(_send(settings, city)),
        asyncio.create_task(_follow(settings, city, passed)),
    ]
    workers = [_start(settings, folder, f"worker-{i}") for i in range(2)]
    taken = []

    def behind_s() -> float:
        if len(passed) < SHARDS:
            return float("inf")
        return time.time() - min(passed.values()) / 1000

    async def calm(limit_s: float) -> float:
        begin = time.monotonic()
        while behind_s() > limit_s:
            if time.monotonic() - begin > LONGEST_S:
                raise TimeoutError(f"{behind_s():.0f} s behind after {LONGEST_S:.0f} s")
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.05)
        return time.monotonic() - begin

    try:
        await calm(10)
        for run in range(runs):
            usual = []
            for _ in range(int(CALM_S * 10)):
                await asyncio.sleep(0.1)
                usual.append(behind_s())
            limit_s = float(np.quantile(usual, 0.9)) + SLACK_S
            victim = run % 2
            workers[victim].kill()
            workers[victim].wait()
            killed = time.monotonic()
            workers[victim] = _start(settings, folder, f"worker-{victim}")
            # Its shards stand still until the group knows; before that nothing can be measured.
            while behind_s() <= limit_s and time.monotonic() - killed < SESSION_S:  # noqa: ASYNC110  # the clock has no event
                await asyncio.sleep(0.05)
            await calm(limit_s)
            taken.append(time.monotonic() - killed)
            print(f"  up to date after {taken[-1]:.1f} s", file=sys.stderr, flush=True)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return taken


def _start(settings: KafkaSettings, folder: Path, name: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "citybrain", "worker", "--city", str(folder / "pack"), "--name", name,
        "--data", str(folder / name), "--broker", settings.bootstrap,
    ]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


async def _send(settings: KafkaSettings, city: City) -> None:
    """Every gateway once a second, by the wall clock."""
    members: dict[str, list[str]] = {}
    for sensor in city.sensors.values():
        members.setdefault(sensor.gateway, []).append(sensor.id)
    gateways = [(name, Roster(tuple(sensors))) for name, sensors in members.items()]
    rng = np.random.default_rng(1)
    topic, second = full_name(city.id, "readings"), int(time.time()) + 1
    async with AIOKafkaProducer(**producer_arguments(settings)) as producer:
        for seq in range(1 << 40):
            await asyncio.sleep(max(0.0, second - time.time()))
            now = second * 1000
            for name, roster in gateways:
                count = len(roster.names)
                shard = city.sensors[roster.names[0]].shard
                head = BatchHead(
                    gateway=name, incarnation="a", shard=shard, seq=seq, kind=KIND,
                    watermark_ms=now, sent_ms=now,
                )  # fmt: skip
                batch = Batch(
                    head, roster, np.arange(count, dtype=np.int32),
                    np.full(count, now - 1, np.int64),
                    rng.integers(0, 500, count).astype(np.float64), np.zeros(count, np.uint8),
                )  # fmt: skip
                value = readings.encode(batch)
                await producer.send(topic, value, partition=city.shards[shard])
            second += 1


async def _follow(settings: KafkaSettings, city: City, passed: dict[str, int]) -> None:
    name, rosters = full_name(city.id, "stats"), Rosters()
    async with AIOKafkaConsumer(name, **consumer_arguments(settings, from_start=False)) as consumer:
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    if record.value[:1] != b"{":
                        continue
                    entry = stats.decode(record.value, rosters)
                    if isinstance(entry, stats.Passed):
                        had = passed.get(entry.shard, 0)
                        passed[entry.shard] = max(entry.through_ms, had)
