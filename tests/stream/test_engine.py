"""The engine on a real broker with real worker processes, against an independent truth."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from citybrain import topics
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.columns import Roster
from citybrain.kafka import producer_arguments
from citybrain.kinds import MINUTE
from citybrain.pack import load
from citybrain.topics import full_name
from tests.packs import CITY, write_pack
from tests.stream.engine import (
    DEADLINE_S,
    Gateway,
    Told,
    Truth,
    WorkerProcess,
    keys,
    producer,
    read_until,
)

T0 = 1_700_000_000_000 // 900_000 * 900_000
KIND = "vehicle_count"
SHARDS = 4


def pack(folder: Path, city_id: str) -> Path:
    """Four shards with two gateways of twenty detectors each."""
    shards = "\n".join(f"s{i} = {i}" for i in range(SHARDS))
    text = CITY.replace('"small"', f'"{city_id}"').split("[shards]")[0] + f"[shards]\n{shards}\n"
    rows = [
        f"d{shard}-{gateway}-{i},{KIND},north,s{shard},g{gateway}"
        for shard in range(SHARDS)
        for gateway in range(2)
        for i in range(20)
    ]
    return write_pack(folder / "pack", rows, text)


@pytest.fixture
def folder(tmp_path: Path, city_id: str) -> Path:
    return pack(tmp_path, city_id)


@pytest.fixture
def city(folder: Path) -> City:
    return load(str(folder))


@pytest.fixture
def workers() -> Iterator[list[WorkerProcess]]:
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


class Traffic:
    """Batches of all gateways, some late, some twice, in the order in which they are sent."""

    def __init__(self, city: City, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.truth = Truth(city.kinds[KIND].windows_ms)
        self.gateways = [
            Gateway(city, f"s{shard}", f"g{g}", KIND, self.truth)
            for shard in range(SHARDS)
            for g in range(2)
        ]
        self.now = T0
        self.repeated = 0

    def step(self) -> list[tuple[int, bytes, int]]:
        """Ten seconds of everybody: (partition, record, readings)."""
        out = []
        self.now += 10_000
        for gateway in self.gateways:
            partition, count = int(gateway.shard[1:]), len(gateway.roster.names)
            at = self.now - 10_000 + int(self.rng.integers(0, 9_999))
            if self.rng.random() < 0.2:
                at -= int(self.rng.integers(1, 5)) * MINUTE
            value = gateway.batch(max(T0, at), self.rng.integers(0, 30, count), self.now)
            out.append((partition, value, count))
            if self.rng.random() < 0.1:
                self.truth.produced += count
                self.repeated += count
                out.append((partition, value, count))
        return out

    def end(self) -> list[tuple[int, bytes, int]]:
        """Heartbeats that close every window."""
        self.now += 20 * MINUTE
        return [(int(g.shard[1:]), g.beat(self.now), 0) for g in self.gateways]


async def send(broker: LocalBroker, city: City, records: list[tuple[int, bytes, int]]) -> None:
    async with producer(broker.settings) as kafka:
        name = full_name(city.id, "readings")
        for partition, value, count in records:
            headers = [("n", str(count).encode())] if count else []
            await kafka.send(name, value, partition=partition, headers=headers)


def whole(traffic: Traffic, told: Told) -> bool:
    """Whether everything that was produced has been accounted for and told."""
    fates = ("counted", "duplicate", "backfilled", "dead_lettered")
    return (
        sum(told.total(fate) for fate in fates) == traffic.truth.produced
        and told.last(KIND) == traffic.truth.rows
    )


async def test_a_worker_killed_in_the_middle_loses_and_repeats_nothing(
    broker: LocalBroker, city: City, folder: Path, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    await topics.ensure(broker.settings, city.id, city.partitions)
    traffic, bootstrap = Traffic(city), broker.settings.bootstrap
    workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker", "rollup"))
    await send(broker, city, [r for _ in range(30) for r in traffic.step()])
    await read_until(broker.settings, city.id, lambda told: told.total("counted") > 0, "begin")
    for _ in range(2):
        await send(broker, city, [r for _ in range(30) for r in traffic.step()])
        await asyncio.sleep(0.5)
        workers[-1].kill()
        workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker", "rollup"))
    await send(broker, city, [r for _ in range(30) for r in traffic.step()] + traffic.end())
    await asyncio.sleep(1.1)
    await send(broker, city, traffic.end())
    told = await read_until(
        broker.settings, city.id, lambda told: whole(traffic, told), "all is told"
    )
    assert told.total("duplicate") == traffic.repeated
    assert told.total("gaps") == 0
    assert workers[-1].stop() == 0


async def test_two_workers_share_the_shards_and_hand_them_over_without_loss(
    broker: LocalBroker, city: City, folder: Path, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    await topics.ensure(broker.settings, city.id, city.partitions)
    traffic, bootstrap = Traffic(city, seed=2), broker.settings.bootstrap
    workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker-0", "rollup"))
    await send(broker, city, [r for _ in range(20) for r in traffic.step()])
    await read_until(broker.settings, city.id, lambda told: told.total("counted") > 0, "begin")
    workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker-1", "rollup"))
    while "partition taken" not in workers[1].log.read_text():
        await send(broker, city, traffic.step())
        await asyncio.sleep(0.2)
    await send(broker, city, [r for _ in range(20) for r in traffic.step()])
    assert workers[0].stop() == 0
    await send(broker, city, [r for _ in range(20) for r in traffic.step()] + traffic.end())
    await asyncio.sleep(1.1)
    await send(broker, city, traffic.end())
    told = await read_until(
        broker.settings, city.id, lambda told: whole(traffic, told), "all is told"
    )
    assert told.total("duplicate") == traffic.repeated
    assert workers[1].stop() == 0
    assert "partition given back" in workers[0].log.read_text()


async def test_bad_input_ends_in_the_dead_letter_with_its_reason_and_the_rest_goes_on(
    broker: LocalBroker, city: City, folder: Path, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    await topics.ensure(broker.settings, city.id, city.partitions)
    truth = Truth(city.kinds[KIND].windows_ms)
    gateway = Gateway(city, "s0", "g0", KIND, truth)
    count = len(gateway.roster.names)
    ones = np.ones(count)
    good = gateway.batch(T0, ones, T0)
    stranger = Gateway(city, "s0", "g1", KIND, Truth(()))
    stranger.roster = Roster(tuple(f"nobody-{i}" for i in range(count)))
    records = [
        good,
        good[: len(good) // 2],
        gateway.batch(T0, ones, T0, seq=90, version=2),
        stranger.batch(T0, ones, T0),
        gateway.batch(T0, np.full(count, np.nan), T0, seq=1),
        gateway.batch(T0 + 24 * 60 * MINUTE, ones, T0, seq=2),
        gateway.batch(T0, ones * 1e9, T0, seq=3),
        gateway.batch(T0, ones, T0, seq=4, shard="s1"),
        b"\x00" * 50,
        b"{]",
        b"",
    ]
    workers.append(WorkerProcess(folder, tmp_path, broker.settings.bootstrap, "worker", "rollup"))
    await send(broker, city, [(0, record, count) for record in records])
    await send(broker, city, [(0, gateway.beat(T0 + 20 * MINUTE), 0)])
    produced = count * len(records)

    def done(told: Told) -> bool:
        return told.total("counted") + told.total("dead_lettered") == produced

    told = await read_until(broker.settings, city.id, done, "every record is accounted for")
    assert told.total("counted") == count
    assert told.last(KIND) == truth.rows
    reasons = [letter["reason"] for letter in told.letters]
    assert reasons == ["format", "version", "sensor", "not-a-number", "future", "range", "shard",
                       "format", "head", "format"]  # fmt: skip
    assert workers[0].stop() == 0


async def test_a_lost_snapshot_is_rebuilt_from_the_log(
    broker: LocalBroker, city: City, folder: Path, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    await topics.ensure(broker.settings, city.id, city.partitions)
    traffic, bootstrap = Traffic(city, seed=3), broker.settings.bootstrap
    workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker", "rollup"))
    await send(broker, city, [r for _ in range(20) for r in traffic.step()])
    await read_until(broker.settings, city.id, lambda told: told.total("counted") > 0, "begin")
    assert workers[0].stop() == 0
    # As if the topic had been truncated: every key of one partition is deleted.
    name = full_name(city.id, "snapshots")
    async with producer(broker.settings) as kafka:
        for place, key in await keys(broker.settings, name):
            await kafka.send(name, None, key, partition=place)
    workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker", "rollup"))
    await send(broker, city, [r for _ in range(10) for r in traffic.step()] + traffic.end())
    await asyncio.sleep(1.1)
    await send(broker, city, traffic.end())
    await read_until(broker.settings, city.id, lambda told: whole(traffic, told), "all is told")
    assert workers[1].stop() == 0


async def test_what_a_transaction_gave_up_is_not_counted_and_its_marks_are_no_gap(
    broker: LocalBroker, city: City, folder: Path, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    await topics.ensure(broker.settings, city.id, city.partitions)
    truth = Truth(city.kinds[KIND].windows_ms)
    gateway = Gateway(city, "s0", "g0", KIND, truth)
    count = len(gateway.roster.names)
    name = full_name(city.id, "readings")
    workers.append(WorkerProcess(folder, tmp_path, broker.settings.bootstrap, "worker", "rollup"))
    arguments = producer_arguments(broker.settings, transactional_id=f"{city.id}.test")
    async with AIOKafkaProducer(**arguments) as kafka:
        for keep in (True, False, True):
            value = gateway.batch(T0, np.ones(count), T0, **({} if keep else {"seq": 7}))
            await kafka.begin_transaction()
            await kafka.send_and_wait(name, value, partition=0)
            await (kafka.commit_transaction() if keep else kafka.abort_transaction())
    await send(broker, city, [(0, gateway.beat(T0 + 20 * MINUTE), 0)])

    def done(told: Told) -> bool:
        return told.last(KIND) == truth.rows and told.total("counted") == 2 * count

    told = await read_until(broker.settings, city.id, done, "both are told")
    assert told.total("gaps") == 0
    assert workers[0].stop() == 0


async def test_a_worker_that_was_frozen_and_wakes_up_spoils_nothing(
    broker: LocalBroker, city: City, folder: Path, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    await topics.ensure(broker.settings, city.id, city.partitions)
    traffic, bootstrap = Traffic(city, seed=4), broker.settings.bootstrap
    workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker-0", "rollup"))
    await send(broker, city, [r for _ in range(20) for r in traffic.step()])
    await read_until(broker.settings, city.id, lambda told: told.total("counted") > 0, "begin")
    await send(broker, city, [r for _ in range(20) for r in traffic.step()])
    workers[0].process.send_signal(signal.SIGSTOP)
    workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker-1", "rollup"))
    await send(broker, city, [r for _ in range(20) for r in traffic.step()])
    until = asyncio.get_running_loop().time() + DEADLINE_S
    while workers[1].log.read_text().count("partition taken") < SHARDS:
        assert asyncio.get_running_loop().time() < until, "the frozen worker's shards stay orphans"
        await asyncio.sleep(0.2)
    workers[0].process.send_signal(signal.SIGCONT)
    await send(broker, city, [r for _ in range(20) for r in traffic.step()] + traffic.end())
    await asyncio.sleep(1.1)
    await send(broker, city, traffic.end())
    told = await read_until(
        broker.settings, city.id, lambda told: whole(traffic, told), "all is told"
    )
    assert told.total("duplicate") == traffic.repeated


async def test_a_broker_that_is_away_ends_no_worker_and_costs_no_reading(
    city: City, folder: Path, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    away_s = 60 if os.environ.get("CITYBRAIN_TEST_SIZE") == "full" else 10
    traffic = Traffic(city, seed=5)
    with LocalBroker(tmp_path / "kafka") as broker:
        await topics.ensure(broker.settings, city.id, city.partitions)
        bootstrap = broker.settings.bootstrap
        workers.append(WorkerProcess(folder, tmp_path, bootstrap, "worker", "rollup"))
        await send(broker, city, [r for _ in range(20) for r in traffic.step()])
        await read_until(broker.settings, city.id, lambda told: told.total("counted") > 0, "begin")
    await asyncio.sleep(away_s)
    with LocalBroker(tmp_path / "kafka") as broker:
        assert broker.settings.bootstrap == bootstrap
        await send(broker, city, [r for _ in range(20) for r in traffic.step()] + traffic.end())
        await asyncio.sleep(1.1)
        await send(broker, city, traffic.end())
        await read_until(broker.settings, city.id, lambda told: whole(traffic, told), "all is told")
        assert workers[0].stop() == 0
    # The client says a thousand times a second that it cannot connect; the log need not.
    assert len(workers[0].log.read_text().splitlines()) < 1_000
