"""The historian on a real broker: killed at any moment, each reading is in history once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from citybrain import batch, topics
from citybrain.broker import LocalBroker
from citybrain.columns import Roster
from citybrain.errors import SetupError
from citybrain.history.journal import Journal
from citybrain.history.read import Reader
from citybrain.kafka import producer_arguments
from tests.packs import write_pack

ROSTER = Roster(tuple(f"d{i}" for i in range(1, 3)))
START = 1_700_000_000_000


def message(seq: int, n: int = 2) -> bytes:
    head = batch.BatchHead(
        gateway="g1", incarnation="i", shard="north", seq=seq, kind="vehicle_count",
        watermark_ms=START + seq * 10_000, sent_ms=START,
    )  # fmt: skip
    codes = np.arange(n, dtype=np.int32)
    time = np.full(n, START + seq * 10_000, np.int64)
    value = np.full(n, float(seq % 100))
    return batch.encode(batch.Batch(head, ROSTER, codes, time, value, np.zeros(n, np.uint8)))


class Historian:
    """A `citybrain historian` process of ours."""

    def __init__(self, broker: LocalBroker, city: Path, data: Path) -> None:
        command = [
            sys.executable, "-m", "citybrain", "historian", "--broker", broker.settings.bootstrap,
            "--city", str(city), "--data", str(data), "--flush-seconds", "0.2",
        ]  # fmt: skip
        self.data = data
        self.process = subprocess.Popen(command, env=os.environ | {"NO_COLOR": "1"})

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def health(self) -> dict[str, Any]:
        run = json.loads((self.data / "run" / "historian.json").read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{run['port']}/health", timeout=10) as got:
            found: dict[str, Any] = json.loads(got.read())
            return found


@contextmanager
def historian(broker: LocalBroker, city: Path, data: Path) -> Iterator[Historian]:
    running = Historian(broker, city, data)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


async def until(true: Any, what: str, running: Historian, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert running.process.poll() is None, "the historian has ended"
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


def rows_flushed(data: Path) -> int:
    try:
        with Journal(data / "history", writable=False) as journal:
            return sum(f.rows for f in journal.files("readings"))
    except SetupError:  # nothing is there yet
        return 0


async def test_killed_again_and_again_each_reading_is_in_history_once(
    broker: LocalBroker, tmp_path: Path
) -> None:
    city = write_pack(tmp_path / "pack")
    (city / "city.toml").write_text(
        (city / "city.toml").read_text().replace('"small"', '"history-kill"')
    )
    await topics.ensure(broker.settings, "history-kill", 4)
    name = topics.full_name("history-kill", "readings")
    producer = AIOKafkaProducer(**producer_arguments(broker.settings))
    await producer.start()
    total, data = 600, tmp_path / "data"

    async def send() -> None:
        for seq in range(total):
            await producer.send(name, message(seq), partition=0)
            if seq % 7 == 0:  # what a gateway repeats counts once
                await producer.send(name, message(seq), partition=0)
            if seq % 50 == 0:
                await producer.send(name, b"no Arrow, no JSON", partition=0)
            await asyncio.sleep(0.01)
        await producer.flush()

    sending = asyncio.create_task(send())
    try:
        for wanted in (40, 200, 420):
            with historian(broker, city, data) as running:
                await until(lambda w=wanted: rows_flushed(data) >= w, f"{wanted} rows", running)
                running.kill()
        await sending
        with historian(broker, city, data) as running:
            await until(lambda: rows_flushed(data) >= 2 * total, "all rows", running)
            assert running.health()["ok"]
            assert running.stop() == 0
    finally:
        sending.cancel()
        await producer.stop()
    with Reader(data / "history") as reader:
        (row,) = reader.query(
            "select count(*) n, count(distinct (sensor, time)) distinct_n,"
            " sum(value)::bigint total, min(known_at) > timestamptz '2025-01-01' as received"
            " from readings"
        ).to_pylist()
    expected = 2 * sum(seq % 100 for seq in range(total))
    assert row == {"n": 2 * total, "distinct_n": 2 * total, "total": expected, "received": True}


async def test_a_stopped_historian_has_written_what_it_took_and_goes_on_from_there(
    broker: LocalBroker, tmp_path: Path
) -> None:
    city = write_pack(tmp_path / "pack")
    (city / "city.toml").write_text(
        (city / "city.toml").read_text().replace('"small"', '"history-stop"')
    )
    await topics.ensure(broker.settings, "history-stop", 4)
    name = topics.full_name("history-stop", "readings")
    data = tmp_path / "data"
    async with AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
        for round_ in range(2):
            for seq in range(round_ * 10, round_ * 10 + 10):
                await producer.send_and_wait(name, message(seq), partition=0)
            with historian(broker, city, data) as running:
                await until(lambda r=round_: rows_flushed(data) >= 20 * (r + 1), "rows", running)
                assert running.stop() == 0
    with Journal(data / "history", writable=False) as journal:
        assert journal.offsets()["readings", 0] == 20
    assert rows_flushed(data) == 40
