"""Commands of people, through the real broker to the alerting stage and back."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from citybrain import stats
from citybrain.alerts import Alert
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.columns import Rosters
from citybrain.commands import Commander, command, demand
from citybrain.contents import latest
from citybrain.errors import BrokerError, NoAnswer, Refused
from citybrain.findings import Acknowledge, Progress, SetThreshold
from citybrain.kafka import KafkaSettings, consumer_arguments, started
from citybrain.topics import ensure, full_name
from tests.alerting import T0, finding, small_city
from tests.stream.alerting_log import alerting, write


@pytest.fixture
def city(tmp_path: Path, city_id: str) -> City:
    return small_city(tmp_path, city_id)


async def read_alerts(settings: KafkaSettings, city: City) -> list[Alert]:
    found = await latest(settings, city.id, "alerts")
    return [msgspec.json.decode(value, type=Alert) for value in found.values()]


async def raised(settings: KafkaSettings, city: City) -> Alert:
    """An alert that is on the alerts topic."""
    passed = [Progress(shard=shard, through_ms=T0 + 1) for shard in city.shards]
    await write(settings, city, "findings", [finding("rain"), *passed])
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = await read_alerts(settings, city)
        if found:
            return found[0]
        await asyncio.sleep(0.1)
    raise AssertionError("no alert within 30 s")


async def test_an_acknowledgement_is_answered_and_stands_in_the_alert(
    broker: LocalBroker, city: City
) -> None:
    settings = broker.settings
    async with alerting(settings, city), Commander(settings, city.id) as commander:
        alert = await raised(settings, city)
        order = command(Acknowledge, "operator-1", wall_clock(), alert=alert.id, comment="seen")
        result = demand(await commander.send(order, 60_000))
        assert (result.outcome, result.at_ms) == ("applied", T0 + 1)
        (seen,) = await read_alerts(settings, city)
        assert (seen.acknowledged, seen.acknowledged_by, seen.comment) == (
            True, "operator-1", "seen",
        )  # fmt: skip
        again = command(Acknowledge, "operator-2", wall_clock(), alert=alert.id)
        with pytest.raises(Refused, match="acknowledged already, by operator-1"):
            demand(await commander.send(again, 60_000))


async def test_many_commands_at_once_get_each_their_own_answer(
    broker: LocalBroker, city: City
) -> None:
    settings = broker.settings
    async with alerting(settings, city), Commander(settings, city.id) as commander:
        orders = [
            command(
                SetThreshold, "operator-1", wall_clock(), rule=rule, field="raise_at", value=2.0
            )
            for rule in ["rain", "nothing"] * 20
        ]
        results = await asyncio.gather(*(commander.send(order, 60_000) for order in orders))
    assert [r.id for r in results] == [order.id for order in orders]
    assert [r.outcome for r in results] == ["applied", "refused"] * 20


async def test_a_threshold_reaches_the_statistics_log_of_every_shard(
    broker: LocalBroker, city: City
) -> None:
    settings = broker.settings
    async with alerting(settings, city), Commander(settings, city.id) as commander:
        order = command(
            SetThreshold, "operator-1", wall_clock(), rule="rain", field="levels.1", value=6.0
        )
        demand(await commander.send(order, 60_000))
    client = await started(AIOKafkaConsumer(**consumer_arguments(settings)), settings)
    try:
        places = [TopicPartition(full_name(city.id, "stats"), p) for p in city.shards.values()]
        client.assign(places)
        await client.seek_to_beginning(*places)
        told = {}
        until = time.monotonic() + 30
        while len(told) < 2 and time.monotonic() < until:
            for place, got in (await client.getmany(timeout_ms=200)).items():
                told[place.partition] = stats.decode(got[0].value, Rosters())
    finally:
        await client.stop()
    shards = {p: r.shard for p, r in told.items() if isinstance(r, stats.Rules)}
    assert shards == {partition: shard for shard, partition in city.shards.items()}


async def test_nobody_answering_is_said_and_is_not_taken_for_success(
    broker: LocalBroker, city: City
) -> None:
    await ensure(broker.settings, city.id, city.partitions)
    async with Commander(broker.settings, city.id) as commander:
        order = command(Acknowledge, "operator-1", wall_clock(), alert="rain/city/x")
        with pytest.raises(NoAnswer, match="is a worker running the stage"):
            await commander.send(order, 500)


async def test_a_city_that_is_not_on_the_cluster_is_named(broker: LocalBroker) -> None:
    with pytest.raises(BrokerError, match=r"citybrain\.nowhere\.command-results is not on"):
        async with Commander(broker.settings, "nowhere"):
            pass
