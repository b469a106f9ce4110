"""The engine on a real broker: a raw loop and the Faust worker on the same messages; latency.

Per core means: readings divided by CPU seconds of the whole process, all its threads, with
decoding, emission and snapshots in it. The ratio to the raw loop (aiokafka on uvloop, the same
decoding, the same window core, nothing else) holds on any machine; absolute figures do not.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.frame import Row, Size, Spread, of
from citybrain import batch as readings
from citybrain import stats, topics
from citybrain.batch import Batch, BatchHead
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.columns import Roster, Rosters
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments
from citybrain.models.windows import Windows
from citybrain.pack import load
from citybrain.topics import full_name

SENSORS = 100_000
A_MESSAGE = 5_000
KIND = "parking_occupied"
T0 = 1_700_000_000_000 // 1_800_000 * 1_800_000


def throughput(size: Size) -> Iterable[Row]:
    """The raw loop and the worker, each on the same prepared messages."""
    runs, sweeps = (5, 60) if size == "small" else (7, 200)
    with _world(SENSORS, 1, cadence_s=5) as (broker, city, folder):
        messages = asyncio.run(_prepare(broker, city, sweeps))
        facts: dict[str, float | int | str] = {
            "readings a message": A_MESSAGE,
            "sensors": SENSORS,
            "windows": "1, 5, 30 min",
            "messages": messages,
        }
        raw, worker = [], []
        # Both in turn, so that a change of the machine's speed meets both.
        for run in range(runs + 1):
            one = uvloop.run(_raw(broker, city, messages))
            two = _worker(broker, city, folder, f"run{run}", messages)
            if run:
                raw.append(one)
                worker.append(two)
        yield Row("raw aiokafka + window core", "readings/s per core", of(raw), facts)
        yield Row("Faust worker, all of it", "readings/s per core", of(worker), facts)
        ratios = [b / a for a, b in zip(raw, worker, strict=True)]
        yield Row("Faust worker / raw loop", "", of(ratios), {"goal": 0.4})


def latency(size: Size) -> Iterable[Row]:
    """Receipt of the record that moved the watermark to receipt of the statistic."""
    seconds = 40 if size == "small" else 240
    with _world(20_000, 4, cadence_s=10, kind="vehicle_count") as (broker, city, folder):
        process = _start(broker.settings, folder, "latency")
        try:
            taken = asyncio.run(_paced(broker, city, seconds))
        finally:
            process.terminate()
            process.wait(60)
        taken.sort()
        facts = {
            "p50": taken[len(taken) // 2],
            "messages": len(taken),
            "readings a second": 20_000,
        }
        p99 = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
        yield Row("latency to the statistic, p99", "ms", Spread(p99, taken[0], taken[-1], 1), facts)


@contextmanager
def _world(
    sensors: int, shards: int, cadence_s: int, kind: str = KIND
) -> Iterator[tuple[LocalBroker, City, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="citybrain-bench-"))
    try:
        pack = folder / "pack"
        pack.mkdir()
        table = "\n".join(f"s{i} = {i}" for i in range(shards))
        (pack / "city.toml").write_text(
            f'id = "bench"\ntime_zone = "UTC"\npartitions = {shards}\n[name]\nzh = "测"\n'
            f'en = "Bench"\n[zones.z]\nzh = "区"\nen = "Zone"\n[shards]\n{table}\n'
            f"[kinds.{kind}]\ncadence_s = {cadence_s}\n"
        )
        per = sensors // shards
        rows = [f"d{i:06},{kind},z,s{i // per},g{i // A_MESSAGE:03},0,0,," for i in range(sensors)]
        head = "sensor,kinds,zone,shard,gateway,lon,lat,link,name"
        (pack / "sensors.csv").write_text("\n".join([head, *rows]) + "\n")
        (pack / "roads.geojson").write_text('{"type": "FeatureCollection", "features": []}')
        (pack / "rules.toml").write_text("")
        (pack / "calendar.toml").write_text("")
        city = load(str(pack))
        with LocalBroker(folder / "kafka") as broker:
            asyncio.run(topics.ensure(broker.settings, city.id, city.partitions))
            yield broker, city, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _messages(city: City, step_ms: int) -> Iterator[tuple[int, int, bytes]]:
    """(event time, partition, batch) without end: every gateway at every step."""
    kind = next(iter(city.kinds))
    members: dict[str, list[str]] = {}
    for sensor in city.sensors.values():
        members.setdefault(sensor.gateway, []).append(sensor.id)
    rosters = {gateway: Roster(tuple(names)) for gateway, names in members.items()}
    rng = np.random.default_rng(1)
    for sweep in range(1 << 40):
        now = T0 + sweep * step_ms
        for gateway, roster in rosters.items():
            count = len(roster.names)
            shard = city.sensors[roster.names[0]].shard
            head = BatchHead(
                gateway=gateway, incarnation="a", shard=shard, seq=sweep, kind=kind,
                watermark_ms=now, sent_ms=now,
            )  # fmt: skip
            batch = Batch(
                head, roster, np.arange(count, dtype=np.int32), np.full(count, now, np.int64),
                rng.integers(0, 500, count).astype(np.float64), np.zeros(count, np.uint8),
            )  # fmt: skip
            yield now, city.shards[shard], readings.encode(batch)


async def _prepare(broker: LocalBroker, city: City, sweeps: int) -> int:
    count = sweeps * SENSORS // A_MESSAGE
    async with AIOKafkaProducer(**producer_arguments(broker.settings, linger_ms=5)) as producer:
        for i, (_, partition, value) in enumerate(_messages(city, 5_000)):
            if i == count:
                break
            await producer.send(full_name(city.id, "readings"), value, partition=partition)
    return count


async def _raw(broker: LocalBroker, city: City, messages: int) -> float:
    kind = city.kinds[KIND]
    windows = Windows(SENSORS, kind.windows_ms, (), kind.delay_ms, kind.ring_ms)
    number = {name: i for i, name in enumerate(city.roster("s0", KIND))}
    places: dict[Roster, np.ndarray] = {}
    rosters = Rosters()
    consumer = AIOKafkaConsumer(**consumer_arguments(broker.settings))
    left, told = messages, 0
    async with consumer:
        place = TopicPartition(full_name(city.id, "readings"), 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        begin = time.process_time()
        while left:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                for record in records:
                    batch = readings.decode(record.value, rosters)
                    if not isinstance(batch, Batch):
                        continue  # a worker has left out gateways that were silent
                    if batch.roster not in places:
                        places[batch.roster] = np.array([number[n] for n in batch.roster.names])
                    sensors = places[batch.roster][batch.codes]
                    windows.add(sensors, batch.time_ms, batch.value, batch.head.seq)
                    told += len(windows.advance(batch.head.watermark_ms))
                    left -= 1
        return messages * A_MESSAGE / (time.process_time() - begin)


def _start(settings: KafkaSettings, folder: Path, name: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "citybrain", "worker", "--city", str(folder / "pack"),
        "--data", str(folder / name), "--broker", settings.bootstrap, "--stages", "rollup",
    ]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def _worker(broker: LocalBroker, city: City, folder: Path, name: str, messages: int) -> float:
    """CPU between a tenth and all of the messages; its state is deleted afterwards."""
    process = _start(broker.settings, folder, name)
    try:
        watched = psutil.Process(process.pid)
        marks = []
        for wanted in (messages // 10, messages):
            while (taken := _taken(folder / name)) < wanted:
                time.sleep(0.05 if wanted < messages else 0.2)
                assert process.poll() is None, "the worker has ended"
            used = watched.cpu_times()
            marks.append((taken, used.user + used.system))
    finally:
        process.terminate()
        process.wait(60)
    asyncio.run(_forget(broker.settings, city))
    (first, began), (last, ended) = marks
    return (last - first) * A_MESSAGE / (ended - began)


def _taken(data: Path) -> int:
    try:
        port = json.loads((data / "run" / "worker.json").read_text())["port"]
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    except (OSError, json.JSONDecodeError):
        return 0
    lines = [line for line in page.splitlines() if line.startswith("citybrain_stage_records_total")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


async def _forget(settings: KafkaSettings, city: City) -> None:
    """Delete the snapshots, so that the next run begins at the log's beginning."""
    name = full_name(city.id, "snapshots")
    keys = set()
    async with AIOKafkaConsumer(name, **consumer_arguments(settings)) as consumer:
        while got := await consumer.getmany(timeout_ms=1_000):
            keys |= {record.key for records in got.values() for record in records}
    async with AIOKafkaProducer(**producer_arguments(settings)) as producer:
        for key in keys:
            await producer.send(name, None, key, partition=0)


async def _paced(broker: LocalBroker, city: City, seconds: int) -> list[int]:
    """Four messages a second, ten seconds of event time in each second; the latencies in ms."""
    taken: list[int] = []
    rosters = Rosters()
    consumer = AIOKafkaConsumer(full_name(city.id, "stats"), **consumer_arguments(broker.settings))
    loop = asyncio.get_running_loop()

    async def read() -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    entry = stats.decode(record.value, rosters)
                    if isinstance(entry, stats.Stats):
                        taken.append(record.timestamp - entry.head.cause_ms)

    async with consumer, AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
        reading = asyncio.create_task(read())
        begin = loop.time() + 8
        for i, (_, partition, value) in enumerate(_messages(city, 10_000)):
            due = begin + i / 4
            if due > begin + seconds:
                break
            await asyncio.sleep(max(0, due - loop.time()))
            await producer.send(full_name(city.id, "readings"), value, partition=partition)
        await asyncio.sleep(3)
        reading.cancel()
    # The first seconds are those in which partitions were still being taken.
    return taken[len(taken) // 10 :]
