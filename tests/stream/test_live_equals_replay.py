"""A live engine on a recording (broker, worker, historian, fitter) has the rows of a replay."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer

from citybrain import batch, fits, pack, recording, topics
from citybrain.batch import Batch, Heartbeat
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.contents import latest
from citybrain.errors import SetupError
from citybrain.history.journal import Journal
from citybrain.history.read import Reader
from citybrain.kafka import producer_arguments
from citybrain.kinds import DAY, HOUR, MINUTE, SECOND
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
def processes(city: Path, data: Path, broker: str, *more: list[str]) -> Iterator[None]:
    commands = [["worker"], ["historian", "--flush-seconds", "0.5"], *more]
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


async def send(
    producer: AIOKafkaProducer, city: City, entries: Iterable[Batch | Heartbeat]
) -> None:
    for entry in entries:
        batched = isinstance(entry, Batch)
        shard = entry.head.shard if isinstance(entry, Batch) else entry.shard
        value = batch.encode(entry) if isinstance(entry, Batch) else batch.encode_control(entry)
        headers = [("n", str(len(entry) if batched else 0).encode())]  # type: ignore[arg-type]
        await producer.send(
            topics.full_name(city.id, "readings"), value, partition=city.shards[shard],
            headers=headers,
        )  # fmt: skip
    await producer.flush()


async def all_rows(data: Path, wanted: dict[str, int]) -> None:
    until = time.monotonic() + 150
    while any(rows_in(data).get(name, 0) < n for name, n in wanted.items()):
        assert time.monotonic() < until, f"history has {rows_in(data)}, not {wanted}"
        await asyncio.sleep(0.2)
    await asyncio.sleep(2)  # nothing more may come


def compare(data: Path, replay: Path, tables: dict[str, str]) -> None:
    with Reader(data / "history") as live:
        for name, columns in tables.items():
            view = f"{name}_all" if name in ("stats", "alerts") else name
            mine = live.query(f"select {columns} from {view} order by all").to_pylist()
            sql = f"select {columns} from read_parquet('{replay / name}.parquet') order by all"
            theirs = live.query(sql).to_pylist()
            assert len(mine) == len(theirs), name
            assert mine == theirs, name


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
        await send(producer, city, recording.cut(path, city))
        with processes(folder, data, broker.settings.bootstrap):
            await all_rows(data, {name: replayed["files"][name]["rows"] for name in TABLES})
    compare(data, tmp_path / "replay", TABLES)


ANOMALY = """
[odd]
detector = "anomaly"
kinds = ["vehicle_count"]
cause = "odd"
group = "sensor"
severity = 3
raise_at = 1.5
advice = "x"
zh = "异"
en = "Odd"
"""
MIDNIGHT = 1_767_542_400_000  # 2026-01-05T00:00 in Shanghai
FORECASTS = "issued_at, target, horizon, window_ms, sensor, kind, value, lower, upper, model"


def make_days(path: Path, city: City) -> None:
    """Four days and ten hours of counts with a daily wave; on the last day d1's road is shut."""
    chance = np.random.default_rng(3)
    with recording.RecordingWriter(path, city) as writer:
        names = list(city.sensors)
        for at in range(MIDNIGHT, MIDNIGHT + 4 * DAY + 10 * HOUR, 15 * MINUTE):
            rate = 40 + 30 * np.sin(2 * np.pi * (at - MIDNIGHT) / DAY)
            value = chance.poisson(rate * np.array([1.0, 0.5, 2.0, 1.5])).astype(float)
            if 4 * DAY + 5 * HOUR <= at - MIDNIGHT < 4 * DAY + 7 * HOUR:
                value[0] = 0.0
            writer.write(np.full(4, at), names, ["vehicle_count"] * 4, value)


async def models(broker: LocalBroker, city: City, until_ms: int) -> None:
    """Wait until the fitter has told the models of a midnight, one for each shard."""
    deadline = time.monotonic() + 120
    while True:
        found = (await latest(broker.settings, city.id, "models")).values()
        records = [fits.decoder.decode(value) for value in found]
        done = {r.shard for r in records if isinstance(r, fits.Fit) and r.until_ms == until_ms}
        if done == set(city.shards):
            return
        assert time.monotonic() < deadline, f"models of {until_ms}: only of {done}"
        await asyncio.sleep(0.2)


async def test_a_live_engine_with_its_fitter_has_the_rows_of_a_replay_over_days(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    """Readings come as fast as they can; only at a midnight they wait for its models, which
    have an hour to come in a city."""
    text = CITY.replace('"small"', f'"{city_id}"') + "[kinds.vehicle_count]\ncadence_s = 900\n"
    sensors = [f"d{i},vehicle_count,{z},{z},g{z}" for i, z in enumerate(["north", "south"] * 2)]
    folder = write_pack(tmp_path / "pack", sensors, text)
    (folder / "rules.toml").write_text(ANOMALY)
    city = pack.load(str(folder))
    path, data = tmp_path / "recording.parquet", tmp_path / "data"
    make_days(path, city)
    replayed = run(city, path, tmp_path / "replay")
    tables = TABLES | {"forecasts": FORECASTS}
    for name in ("forecasts", "findings", "alerts"):
        assert replayed["files"][name]["rows"] > 0

    await topics.ensure(broker.settings, city.id, city.partitions)
    fitter = ["fitter", "--every-seconds", "0.5"]
    entries = list(recording.cut(path, city))
    async with AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
        with processes(folder, data, broker.settings.bootstrap, fitter):
            since = 0
            for days in (3, 4):
                midnight = MIDNIGHT + days * DAY
                # Up to the first window of the day: it closes two steps later.
                known = [
                    i for i, e in enumerate(entries)
                    if (e.head.sent_ms if isinstance(e, Batch) else e.sent_ms)
                    <= midnight + 30 * MINUTE
                ]  # fmt: skip
                await send(producer, city, entries[since : known[-1] + 1])
                since = known[-1] + 1
                await models(broker, city, midnight)
            await send(producer, city, entries[since:])
            await all_rows(data, {name: replayed["files"][name]["rows"] for name in tables})
    compare(data, tmp_path / "replay", tables)
