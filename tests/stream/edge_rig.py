"""An edge agent in this process on the real broker, and what it wrote to Kafka."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from citybrain import batch, findings
from citybrain.accounts import Account
from citybrain.batch import Batch, Heartbeat
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.columns import Rosters
from citybrain.edge.agent import Agent
from citybrain.edge.config import EdgeConfig
from citybrain.edge.tokens import Tokens
from citybrain.findings import DeadLetter
from citybrain.kafka import KafkaSettings, consumer_arguments
from citybrain.pack import load
from citybrain.topics import TOPICS, full_name
from tests.packs import CITY, write_pack

Series = tuple[str, str, int]


def make_city(folder: Path, city_id: str) -> City:
    """The small pack under a test's own city id."""
    return load(str(write_pack(folder, city=CITY.replace('"small"', f'"{city_id}"'))))


@asynccontextmanager
async def agent(
    city: City, data: Path, kafka: KafkaSettings, **config: Any
) -> AsyncIterator[Agent]:
    """A running agent; stopped cleanly at the end."""
    table = {"sources": {"http": {"port": 0}}} | config
    made = Agent(msgspec.convert(table, EdgeConfig), city, data, kafka, CollectorRegistry())
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(made.run(stop, ready.set))
    waits = asyncio.create_task(ready.wait())
    await asyncio.wait([running, waits], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not running.done():
            yield made
    finally:
        stop.set()
        await running


def client(made: Agent, data: Path, gateway: str, sensor: str = "") -> httpx.AsyncClient:
    """An HTTP client with a fresh token."""
    token = Tokens(data).add(gateway, sensor, wall_clock())
    port = made.sources["http"].health().facts["http_port"]
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )


async def records(kafka: KafkaSettings, city: City, topic: str) -> list[Any]:
    """All records of a topic, by partition."""
    consumer = AIOKafkaConsumer(**consumer_arguments(kafka))
    await consumer.start()
    try:
        name = full_name(city.id, topic)
        parts = [TopicPartition(name, p) for p in range(TOPICS[topic].partitions(city.partitions))]
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        found: list[Any] = []
        for part in parts:
            await consumer.seek_to_beginning(part)
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for got in (await consumer.getmany(timeout_ms=500)).values():
                found += got
        return sorted(found, key=lambda r: (r.partition, r.offset))
    finally:
        await consumer.stop()


async def readings_log(kafka: KafkaSettings, city: City) -> list[Batch | Heartbeat]:
    """What is on the readings log, batches that were sent again left out as the engine does."""
    rosters = Rosters()
    seen: dict[tuple[str, str, str], int] = {}
    found: list[Batch | Heartbeat] = []
    for record in await records(kafka, city, "readings"):
        item = batch.decode(record.value, rosters)
        if isinstance(item, Batch):
            assert dict(record.headers)["n"] == b"%d" % len(item)
            head = item.head
            assert record.partition == city.shards[head.shard]
            party = (head.gateway, head.incarnation, head.shard)
            if head.seq <= seen.get(party, -1):
                continue
            assert head.seq == seen.get(party, -1) + 1, f"{party}: a batch is missing"
            seen[party] = head.seq
        found.append(item)  # type: ignore[arg-type]  # an edge writes no other control records
    return found


def values(items: list[Batch | Heartbeat]) -> dict[Series, list[float]]:
    """Every reading on the log, by series and time."""
    found: dict[Series, list[float]] = {}
    for item in items:
        if isinstance(item, Batch):
            for code, time, value in zip(item.codes, item.time_ms, item.value, strict=True):
                series = (item.roster.names[code], item.head.kind, int(time))
                found.setdefault(series, []).append(float(value))
    return found


async def dead_letters(kafka: KafkaSettings, city: City) -> list[DeadLetter]:
    """The city's dead letters."""
    found = await records(kafka, city, "dead-letter")
    return [msgspec.json.decode(r.value, type=findings.DeadLetter) for r in found]


async def accounts(kafka: KafkaSettings, city: City) -> dict[str, int]:
    """The edge's accounts, summed over parties and shards."""
    last = {
        r.key: msgspec.json.decode(r.value, type=Account)
        for r in await records(kafka, city, "accounts")
    }
    total: dict[str, int] = {}
    for account in last.values():
        for name, n in account.counts.items():
            total[name] = total.get(name, 0) + n
    return total


def mosquitto(folder: Path, port: int = 0) -> Iterator[int]:
    """A Mosquitto that keeps its sessions in a folder, while this lasts."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(program).is_file():
        pytest.skip("Mosquitto is not installed; `make system` installs it")
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"
    )
    process = subprocess.Popen(
        [program, "-c", str(folder / "mosquitto.conf")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


async def until(condition: Any, timeout_s: float = 60) -> None:
    """Wait for a condition of this process."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # conditions of other objects have no event
            await asyncio.sleep(0.05)
