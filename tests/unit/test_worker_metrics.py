"""What Prometheus and the supervisor see of a worker."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from citybrain.city import City
from citybrain.pack import load
from citybrain.streams.metrics import STALLED_MS, WorkerMetrics
from citybrain.streams.rollup import Rollup
from citybrain.streams.shell import Shell
from tests.memory_world import FENCED, MemoryStore, World
from tests.packs import write_pack
from tests.shard_log import ShardLog

T0 = 1_700_000_000_000


@pytest.fixture
def city(tmp_path: Path) -> City:
    return load(str(write_pack(tmp_path / "pack")))


class Clock:
    """A clock that the test sets."""

    now_ms = T0

    def __call__(self) -> int:
        return self.now_ms


async def worker(city: City, clock: Clock) -> tuple[CollectorRegistry, WorkerMetrics, Shell]:
    """A worker that has taken one good and one damaged record of one partition."""
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, clock)
    log = ShardLog(city, "north")
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0), ("d2", T0, 1.0)], T0)
    log.raw(b"nonsense", T0, (("n", b"3"),))
    world = World(log.records)
    shell = Shell(
        "rollup", 0, lambda: Rollup(city, 0), MemoryStore(world), world.publish,
        world.acknowledge, clock, FENCED, world.look, timer=metrics.timer("rollup"),
    )  # fmt: skip
    for record in log.records:
        await shell.take(record)
    metrics.shells["place"] = shell
    return registry, metrics, shell


async def test_readings_are_told_by_fate_and_a_partition_given_back_is_told_no_more(
    city: City,
) -> None:
    clock = Clock()
    registry, metrics, _ = await worker(city, clock)
    clock.now_ms = T0 + 5_000

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"stage": "rollup", "partition": "0", **labels})

    assert value("citybrain_stage_readings_total", fate="counted") == 2
    assert value("citybrain_stage_readings_total", fate="dead_lettered") == 3
    assert value("citybrain_stage_records_total") == 2
    assert value("citybrain_stage_outputs_total", topic="dead-letter") == 1
    assert value("citybrain_stage_unsaved_records") == 2
    assert value("citybrain_stage_watermark_age_seconds") == 5.0
    assert registry.get_sample_value(
        "citybrain_stage_seconds_total", {"stage": "rollup", "part": "apply"}
    )
    metrics.shells.clear()
    assert value("citybrain_stage_readings_total", fate="counted") is None
    assert value("citybrain_stage_watermark_age_seconds") is None


async def test_a_worker_is_unwell_only_if_records_wait_and_none_is_taken(city: City) -> None:
    clock = Clock()
    _, metrics, shell = await worker(city, clock)
    clock.now_ms += 10 * STALLED_MS
    assert metrics.health().ok, "nothing waits, so nothing is wrong"
    metrics.lags["place"] = 7
    health = metrics.health()
    assert (health.ok, health.facts["lag"]) == (False, 7)
    assert health.waiting == "no progress in rollup/0"
    shell.applied_ms = clock.now_ms
    assert metrics.health().ok


async def test_a_worker_without_partitions_is_unwell_only_if_nobody_assigns_any(
    city: City,
) -> None:
    clock = Clock()
    metrics = WorkerMetrics(CollectorRegistry(), clock)
    assert metrics.health().ok
    clock.now_ms += STALLED_MS
    assert "Kafka" in metrics.health().waiting
    assert not metrics.health().ok
    metrics.assigned = True
    assert metrics.health().ok


async def test_health_says_when_a_worker_joins_again_and_again_and_takes_nothing(
    city: City,
) -> None:
    clock = Clock()
    _, metrics, _ = await worker(city, clock)
    metrics.revoked()
    metrics.shells.clear()
    assert metrics.health().ok, "an ordinary rebalance is no illness"
    for _ in range(2):
        clock.now_ms += STALLED_MS // 2
        metrics.opening = 12
        assert "12 partitions to open" in metrics.health().waiting
        metrics.revoked()
    clock.now_ms += STALLED_MS
    ill = metrics.health()
    assert not ill.ok
    assert "given back 2 times with no record taken" in ill.waiting
