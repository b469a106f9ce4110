"""A city, a broker, and messages of its gateways on the log: what the engine's rows run on.

A gateway's sensors are neighbours in the pack and stand in each of its messages in the same
order, all read at one time, as an edge agent merges them.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from citybrain import batch as readings
from citybrain import topics
from citybrain.batch import Batch, BatchHead
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.columns import Roster
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments
from citybrain.pack import load
from citybrain.topics import full_name

KIND = "parking_occupied"
STEP_MS = 5_000
T0 = 1_700_000_000_000 // 1_800_000 * 1_800_000


@dataclass(frozen=True)
class Shape:
    """A city of gateways with `a_message` sensors each, which are read every `step_ms`."""

    sensors: int
    a_message: int
    shards: int = 1
    kind: str = KIND
    step_ms: int = STEP_MS
    rules: str = ""


@contextmanager
def pack(shape: Shape) -> Iterator[tuple[City, Path]]:
    """The city of a shape; its folder is deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="citybrain-bench-"))
    try:
        place = folder / "pack"
        place.mkdir()
        table = "\n".join(f"s{i} = {i}" for i in range(shape.shards))
        (place / "city.toml").write_text(
            f'id = "bench"\ntime_zone = "UTC"\npartitions = {shape.shards}\n[name]\nzh = "测"\n'
            f'en = "Bench"\n[zones.z]\nzh = "区"\nen = "Zone"\n[shards]\n{table}\n'
            f"[kinds.{shape.kind}]\ncadence_s = {shape.step_ms // 1000}\n"
        )
        per = shape.sensors // shape.shards
        rows = (
            f"d{i:07},{shape.kind},z,s{i // per},g{i // shape.a_message:04},0,0,,"
            for i in range(shape.sensors)
        )
        head = "sensor,kinds,zone,shard,gateway,lon,lat,link,name"
        (place / "sensors.csv").write_text("\n".join([head, *rows]) + "\n")
        (place / "roads.geojson").write_text('{"type": "FeatureCollection", "features": []}')
        (place / "rules.toml").write_text(shape.rules)
        (place / "calendar.toml").write_text("")
        yield load(str(place)), folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def world(shape: Shape) -> Iterator[tuple[LocalBroker, City, Path]]:
    """The same with a broker and its topics."""
    with pack(shape) as (city, folder), LocalBroker(folder / "kafka") as broker:
        asyncio.run(topics.ensure(broker.settings, city.id, city.partitions))
        yield broker, city, folder


def messages(city: City, step_ms: int) -> Iterator[tuple[int, Batch]]:
    """(partition, batch) without end: every gateway at every step."""
    kind = next(iter(city.kinds))
    members: dict[str, list[str]] = {}
    for sensor in city.sensors.values():
        members.setdefault(sensor.gateway, []).append(sensor.id)
    rosters = {gateway: Roster(tuple(names)) for gateway, names in members.items()}
    codes = {
        count: (np.arange(count, dtype=np.int32), np.zeros(count, np.uint8))
        for count in map(len, members.values())
    }
    rng = np.random.default_rng(1)
    pool = [
        {count: rng.integers(0, 500, count).astype(np.float64) for count in codes}
        for _ in range(16)
    ]
    for sweep in range(1 << 40):
        now = T0 + sweep * step_ms
        for number, (gateway, roster) in enumerate(rosters.items()):
            count = len(roster.names)
            shard = city.sensors[roster.names[0]].shard
            head = BatchHead(
                gateway=gateway, incarnation="a", shard=shard, seq=sweep, kind=kind,
                watermark_ms=now, sent_ms=now,
            )  # fmt: skip
            code, quality = codes[count]
            value = pool[(sweep + 7 * number) % 16][count]
            yield (
                city.shards[shard],
                Batch(head, roster, code, np.full(count, now, np.int64), value, quality),
            )


async def prepare(broker: LocalBroker, city: City, shape: Shape, sweeps: int) -> int:
    """Put so many steps of everybody on the log; the number of messages."""
    count = sweeps * shape.sensors // shape.a_message
    name = full_name(city.id, "readings")
    async with AIOKafkaProducer(**producer_arguments(broker.settings, linger_ms=5)) as producer:
        for i, (partition, batch) in enumerate(messages(city, shape.step_ms)):
            if i == count:
                break
            headers = [("n", str(len(batch)).encode())]
            await producer.send(name, readings.encode(batch), partition=partition, headers=headers)
    return count


class Worker:
    """A real `citybrain worker` process, or `benchmarks.timed` around one."""

    def __init__(
        self, settings: KafkaSettings, folder: Path, name: str, stages: str = "rollup",
        timed: Path | None = None,
    ) -> None:  # fmt: skip
        self.data = folder / name
        options = [str(folder / "pack"), str(self.data), settings.bootstrap, stages]
        command = [sys.executable, "-m"]
        if timed:
            command += ["benchmarks.timed", str(timed), *options]
        else:
            names = ("--city", "--data", "--broker", "--stages")
            pairs = [part for pair in zip(names, options, strict=True) for part in pair]
            command += ["citybrain", "worker", *pairs]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.watched = psutil.Process(self.process.pid)

    def taken(self) -> dict[tuple[str, str], int]:
        """Records taken by stage and partition."""
        assert self.process.poll() is None, "the worker has ended"
        try:
            port = json.loads((self.data / "run" / "worker.json").read_text())["port"]
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        except (OSError, json.JSONDecodeError):
            return {}
        found = {}
        for line in page.splitlines():
            if line.startswith("citybrain_stage_records_total{"):
                labels = dict(p.split("=") for p in line[30 : line.index("}")].split(","))
                who = labels["stage"].strip('"'), labels["partition"].strip('"')
                found[who] = int(float(line.rpartition(" ")[2]))
        return found

    def cpu_s(self) -> float:
        """CPU seconds of all its threads."""
        used = self.watched.cpu_times()
        return used.user + used.system

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.terminate()
        self.process.wait(60)


def total(workers: Sequence[Worker], stage: str = "rollup") -> int:
    """Records that a stage has taken in all workers together."""
    return sum(
        number for one in workers for (name, _), number in one.taken().items() if name == stage
    )


def reach(workers: Sequence[Worker], wanted: int, stage: str = "rollup") -> int:
    """Wait until so many records were taken; how many it are then."""
    while (taken := total(workers, stage)) < wanted:
        time.sleep(0.1)
    return taken


async def forget(settings: KafkaSettings, city: City) -> None:
    """Delete the snapshots, so that the next run begins at the log's beginning."""
    name = full_name(city.id, "snapshots")
    keys = set()
    async with AIOKafkaConsumer(name, **consumer_arguments(settings)) as consumer:
        while got := await consumer.getmany(timeout_ms=500):
            keys |= {(r.partition, r.key) for records in got.values() for r in records}
    async with AIOKafkaProducer(**producer_arguments(settings)) as producer:
        for partition, key in keys:
            await producer.send(name, None, key, partition=partition)
