"""A live engine on a recording (broker, worker, historian) has the rows of a replay of it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer

from citybrain import batch, pack, recording, topics
from citybrain.batch import Batch
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.errors import SetupError
from citybrain.history.journal import Journal
from citybrain.history.read import Reader
from citybrain.kafka import producer_arguments
from citybrain.kinds import HOUR, MINUTE, SECOND
from citybrain.streams.replaying import run
from tests.packs import CITY, write_pack

RULES = """
[busy]
detector = "threshold"
kinds = ["vehicle_count"]
cause = "busy"
group = "sensor"
severity = 3
window_s = 60
raise_at = 50.0
clear_at = 30.0
advice = "x"
zh = "忙"
en = "Busy"

[hot]
detector = "threshold"
kinds = ["temperature"]
cause = "heat"
group = "zone"
severity = 2
window_s = 60
raise_at = 30.0
clear_at = 28.0
advice = "x"
zh = "热"
en = "Hot"

[silent]
detector = "health"
cause = "silent"
group = "sensor"
severity = 4
raise_at = 1.0
settings = { condition = "silent" }
advice = "x"
zh = "无数据"
en = "Silent"
"""
START = 480_000 * HOUR
# Column by column; known_at is when each engine heard of it, and is theirs.
TABLES = {
    "stats": "sensor, kind, window_ms, step_ms, window_start, window_end, value, mean, std,"
    " min, max, last, seen, expected, completeness, late, revision",
    "findings": "id, detector, rule, state, kind, zone, link, sensor, onset, at_time, score,"
    " threshold, observed, expected, unit, evidence, params, model, pack",
    "alerts": "id, revision, transition, rule, cause, zone, link, sensor, severity, active,"
    " opened_at, updated_at, cleared_at, detector, kind, observed, findings, finding_count, pack",
}


def make_recording(path: Path, city: City) -> int:
    """Twenty minutes with busy detectors, a hot station and a detector that falls silent."""
    chance = np.random.default_rng(7)
    with recording.RecordingWriter(path, city) as writer:
        for step in range(120):
            at = START + step * 10 * SECOND
            series = [
                (sensor.id, kind)
                for sensor in city.sensors.values()
                for kind in sensor.kinds
                if (kind not in ("temperature", "precipitation") or at % MINUTE == 0)
                and not (sensor.id == "d3" and step > 40)
            ]
            names, kinds = zip(*series, strict=True) if series else ((), ())
            level = {
                "vehicle_count": 12.0 if 30 < step < 80 else 3.0,
                "temperature": 20.0 + step / 8,
            }
            values = np.array([level.get(k, 5.0) for k in kinds]) + chance.integers(
                0, 4, len(kinds)
            )
            writer.write(np.full(len(names), at), names, kinds, values.astype(float))
    return writer.rows


@contextmanager
def processes(city: Path, data: Path, broker: str) -> Iterator[None]:
    commands = [["worker"], ["historian", "--flush-seconds", "0.5"]]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "citybrain", *command, "--city", str(city), "--data",
             str(data), "--broker", broker],
            env=os.environ | {"NO_COLOR": "1"},
        )
        for command in commands
    ]  # fmt: skip
    try:
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            assert process.wait(60) == 0


def rows_in(data: Path) -> dict[str, int]:
    try:
        with Journal(data / "history", writable=False) as journal:
            found = dict.fromkeys(TABLES, 0)
            for file in journal.files():
                found[file.table] = found.get(file.table, 0) + file.rows
            return found
    except SetupError:
        return {}


async def test_a_live_engine_and_a_replay_of_one_recording_have_the_same_rows(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    folder = write_pack(tmp_path / "pack", city=CITY.replace('"small"', f'"{city_id}"'))
    (folder / "rules.toml").write_text(RULES)
    city = pack.load(str(folder))
    path, data = tmp_path / "recording.parquet", tmp_path / "data"
    make_recording(path, city)
    replayed = run(city, path, tmp_path / "replay")
    assert replayed["files"]["alerts"]["rows"] > 5

    await topics.ensure(broker.settings, city.id, city.partitions)
    async with AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
        for entry in recording.cut(path, city):
            batched = isinstance(entry, Batch)
            shard = entry.head.shard if isinstance(entry, Batch) else entry.shard
            value = batch.encode(entry) if isinstance(entry, Batch) else batch.encode_control(entry)
            headers = [("n", str(len(entry) if batched else 0).encode())]  # type: ignore[arg-type]
            await producer.send(
                topics.full_name(city.id, "readings"), value, partition=city.shards[shard],
                headers=headers,
            )  # fmt: skip
        await producer.flush()
        wanted = {name: replayed["files"][name]["rows"] for name in TABLES}
        with processes(folder, data, broker.settings.bootstrap):
            until = time.monotonic() + 150
            while any(rows_in(data).get(name, 0) < n for name, n in wanted.items()):
                assert time.monotonic() < until, f"history has {rows_in(data)}, not {wanted}"
                await asyncio.sleep(0.2)
            await asyncio.sleep(2)  # nothing more may come

    with Reader(data / "history") as live:
        for name, columns in TABLES.items():
            view = f"{name}_all" if name in ("stats", "alerts") else name
            mine = live.query(f"select {columns} from {view} order by all").to_pylist()
            file = tmp_path / "replay" / f"{name}.parquet"
            sql = f"select {columns} from read_parquet('{file}') order by all"
            theirs = live.query(sql).to_pylist()
            assert len(mine) == len(theirs), name
            assert mine == theirs, name
