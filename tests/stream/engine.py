"""What the engine's tests share: a city, readings with a known truth, worker processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from citybrain import batch as readings
from citybrain import stats
from citybrain.accounts import Account
from citybrain.batch import Batch, BatchHead, Heartbeat
from citybrain.city import City
from citybrain.columns import Roster, Rosters
from citybrain.kafka import KafkaSettings, consumer_arguments, producer_arguments
from citybrain.topics import full_name

DEADLINE_S = 120.0


@dataclass
class Truth:
    """The batch answer, one reading at a time: (window, start, sensor) -> count and sum."""

    windows_ms: tuple[int, ...]
    rows: dict[tuple[int, int, str], tuple[int, float]] = field(default_factory=dict)
    produced: int = 0

    def add(self, sensor: str, time_ms: int, value: float) -> None:
        for length in self.windows_ms:
            name = (length, time_ms // length * length, sensor)
            count, total = self.rows.get(name, (0, 0.0))
            self.rows[name] = (count + 1, total + value)


class Gateway:
    """One gateway of one shard: numbers its batches and keeps the truth of what it sent."""

    def __init__(self, city: City, shard: str, name: str, kind: str, truth: Truth) -> None:
        self.city, self.shard, self.name, self.kind, self.truth = city, shard, name, kind, truth
        sensors = [
            s.id
            for s in city.sensors.values()
            if s.shard == shard and s.gateway == name and kind in s.kinds
        ]
        self.roster = Roster(tuple(sensors))
        self.seq = 0

    def batch(self, time_ms: int, values: Any, watermark_ms: int, **head: Any) -> bytes:
        """All sensors at one time."""
        count = len(self.roster.names)
        said: dict[str, Any] = {
            "gateway": self.name, "incarnation": "a", "shard": self.shard, "seq": self.seq,
            "kind": self.kind, "watermark_ms": watermark_ms, "sent_ms": watermark_ms,
        } | head  # fmt: skip
        if "seq" not in head:
            self.seq += 1
            for sensor, value in zip(self.roster.names, values, strict=True):
                self.truth.add(sensor, time_ms, float(value))
        self.truth.produced += count
        return readings.encode(
            Batch(
                BatchHead(**said), self.roster, np.arange(count, dtype=np.int32),
                np.full(count, time_ms, np.int64), np.asarray(values, np.float64),
                np.zeros(count, np.uint8),
            )
        )  # fmt: skip

    def beat(self, watermark_ms: int) -> bytes:
        """A heartbeat."""
        return readings.encode_control(
            Heartbeat(
                gateway=self.name, incarnation="a", shard=self.shard,
                watermark_ms=watermark_ms, sent_ms=watermark_ms, interval_ms=3_600_000,
            )
        )  # fmt: skip


class Told:
    """What a reader of the engine's outputs holds."""

    def __init__(self) -> None:
        self.windows: dict[tuple[str, int, int, str], tuple[int, int, float]] = {}
        self.accounts: dict[str, Account] = {}
        self.letters: list[dict[str, Any]] = []

    def take(self, topic: str, value: bytes) -> None:
        if topic.endswith(".accounts"):
            account = msgspec.json.decode(value, type=Account)
            self.accounts[account.shard] = account
        elif topic.endswith(".dead-letter"):
            self.letters.append(msgspec.json.decode(value))
        else:
            entry = stats.decode(value, Rosters())
            if not isinstance(entry, stats.Stats):
                return
            head = entry.head
            for i, code in enumerate(entry.codes.tolist()):
                name = (head.kind, head.window_ms, head.start_ms, entry.roster.names[code])
                row = (head.revision, int(entry.seen[i]), float(entry.sum[i]))
                had = self.windows.get(name)
                if had is not None and had[0] == row[0]:
                    assert had == row, f"{name} was told in two ways: {had} and {row}"
                if had is None or row[0] > had[0]:
                    self.windows[name] = row

    def last(self, kind: str) -> dict[tuple[int, int, str], tuple[int, float]]:
        """(window, start, sensor) -> count and sum of the last revision, where any was seen."""
        return {
            (window, start, sensor): (seen, total)
            for (of, window, start, sensor), (_, seen, total) in self.windows.items()
            if of == kind and seen
        }

    def total(self, fate: str) -> int:
        return sum(account.counts.get(fate, 0) for account in self.accounts.values())


@asynccontextmanager
async def producer(settings: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(**producer_arguments(settings)) as started:
        yield started


async def read_until(
    settings: KafkaSettings, city: str, done: Callable[[Told], bool], why: str
) -> Told:
    """Read all outputs from their beginning until they say enough."""
    names = [full_name(city, name) for name in ("stats", "accounts", "dead-letter")]
    told = Told()
    consumer = AIOKafkaConsumer(*names, **consumer_arguments(settings))
    async with consumer:
        loop = asyncio.get_running_loop()
        until = loop.time() + DEADLINE_S
        while not done(told):
            assert loop.time() < until, f"not within {DEADLINE_S} s: {why}; {told.accounts}"
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    told.take(record.topic, record.value)
    return told


async def keys(settings: KafkaSettings, topic: str) -> set[tuple[int, bytes]]:
    """(partition, key) of all records of a topic."""
    found = set()
    async with AIOKafkaConsumer(topic, **consumer_arguments(settings)) as consumer:
        while got := await consumer.getmany(timeout_ms=2_000):
            found |= {(r.partition, r.key) for records in got.values() for r in records}
    return found


class WorkerProcess:
    """A real `citybrain worker`."""

    def __init__(self, pack: Path, data: Path, broker: str, name: str, stages: str) -> None:
        self.log = data / f"{name}.log"
        data.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "citybrain", "worker", "--city", str(pack), "--data", str(data),
            "--broker", broker, "--name", name, "--stages", stages,
        ]  # fmt: skip
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
