"""`citybrain status` of a city that runs, that runs badly, and that does not run."""

from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from citybrain import topics
from citybrain.accounts import Account
from citybrain.alerts import Alert
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.findings import Place, Progress
from citybrain.kafka import KafkaSettings, producer_arguments
from citybrain.process import Health, running
from tests.alerting import T0, small_city
from tests.stream.alerting_log import write
from tests.stream.command_line import Called, citybrain


@pytest.fixture
async def city(broker: LocalBroker, tmp_path: Path, city_id: str) -> City:
    made = small_city(tmp_path, city_id)
    await topics.ensure(broker.settings, city_id, made.partitions)
    return made


async def table(settings: KafkaSettings, city: City, topic: str, **rows: msgspec.Struct) -> None:
    """Write rows of a compacted topic by key."""
    async with AIOKafkaProducer(**producer_arguments(settings)) as producer:
        for key, row in rows.items():
            name = topics.full_name(city.id, topic)
            await producer.send_and_wait(name, msgspec.json.encode(row), key=key.encode())


async def status(broker: LocalBroker, city: City, data: Path, *more: str) -> Called:
    return await citybrain(
        "status", "--city", str(city.folder), "--data", str(data),
        "--broker", broker.settings.bootstrap, *more,
    )  # fmt: skip


def alert(severity: int, active: bool = True, **more: object) -> Alert:
    facts: dict[str, object] = {
        "id": "x", "revision": 0, "transition": "raised", "rule": "rain", "cause": "rain",
        "place": Place(zone="north"), "severity": severity, "active": active,
        "acknowledged": False, "opened_ms": T0, "updated_ms": T0,
    }  # fmt: skip
    return Alert(**(facts | more))  # type: ignore[arg-type]  # fields are written out above


async def test_a_city_that_is_well_says_so(broker: LocalBroker, city: City, tmp_path: Path) -> None:
    edge = Account(
        party="edge/g1/i1", shard="north", at_ms=1,
        counts={"produced": 12, "duplicate": 2, "spooled": 3, "sent": 7},
    )  # fmt: skip
    rollup = Account(party="rollup", shard="north", at_ms=1, counts={"counted": 7})
    await table(broker.settings, city, "accounts", edge=edge, rollup=rollup)
    await table(
        broker.settings, city, "alerts",
        a=alert(1), b=alert(4, shelved_until_ms=T0, acknowledged=True), c=alert(2, active=False),
    )  # fmt: skip
    passed = [Progress(shard=shard, through_ms=T0) for shard in city.shards]
    await write(broker.settings, city, "findings", passed)
    health = Health(ok=True, facts={"lag": 0})
    with running("worker", tmp_path, CollectorRegistry(), lambda: health):
        seen = await status(broker, city, tmp_path, "--json")
        text = await status(broker, city, tmp_path)
    assert seen.code == 0, seen.err
    told = seen.json
    assert (told["healthy"], told["problems"], told["sum_holds"]) == (True, [], True)
    assert told["readings"]["produced"] == 12
    assert told["readings"]["in_flight"] == 3
    assert told["shards"] == {"north": T0, "south": T0}
    assert told["alerts"] == {
        "active": 2, "unacknowledged": 2, "shelved": 1, "suppressed": 0,
        "by_severity": {"1": 1, "2": 0, "3": 0, "4": 1},
    }  # fmt: skip
    assert [p["process"] for p in told["processes"]] == ["worker"]
    assert text.code == 0
    assert "healthy" in text.out
    assert "2026" in text.out


async def test_what_is_wrong_is_named_and_ends_with_its_code(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    health = Health(ok=False, waiting="the broker")
    late = [
        Progress(shard="north", through_ms=T0 + 3_600_000), Progress(shard="south", through_ms=T0)
    ]  # fmt: skip
    await write(broker.settings, city, "findings", late)
    with running("worker", tmp_path, CollectorRegistry(), lambda: health):
        seen = await status(broker, city, tmp_path, "--json")
    assert seen.code == 1
    assert seen.json["problems"] == [
        "worker: the broker",
        "shard south is 60 minutes behind the others",
    ]
    assert "problem: worker: the broker" in seen.err


async def test_a_lost_reading_ends_with_the_code_of_the_sum(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    edge = Account(party="edge/g1/i1", shard="north", at_ms=1, counts={"produced": 12})
    rollup = Account(party="rollup", shard="north", at_ms=1, counts={"counted": 7})
    await table(broker.settings, city, "accounts", edge=edge, rollup=rollup)
    with running("worker", tmp_path, CollectorRegistry(), lambda: Health(ok=True)):
        seen = await status(broker, city, tmp_path)
    assert seen.code == 6
    assert "readings do not add up: 5 are unexplained" in seen.err


async def test_a_broker_that_is_away_does_not_hide_the_processes(
    city: City, tmp_path: Path, unused_tcp_port: int
) -> None:
    with running("worker", tmp_path, CollectorRegistry(), lambda: Health(ok=True)):
        seen = await citybrain(
            "status", "--json", "--city", str(city.folder), "--data", str(tmp_path),
            "--broker", f"127.0.0.1:{unused_tcp_port}",
        )  # fmt: skip
    assert seen.code == 5
    assert [p["process"] for p in seen.json["processes"]] == ["worker"]
    assert f"127.0.0.1:{unused_tcp_port}" in seen.err
    assert "Traceback" not in seen.err


async def test_nothing_running_is_not_healthy(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    seen = await status(broker, city, tmp_path)
    assert seen.code == 1
    assert "nothing runs" in seen.err
