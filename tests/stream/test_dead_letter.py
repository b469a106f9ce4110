"""Refused input: seen, understood, and sent again exactly once."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from citybrain import batch, topics
from citybrain.accounts import Account
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.columns import Roster, Rosters
from citybrain.contents import records
from citybrain.dead_letters import GATEWAY, by, letters, retry
from citybrain.errors import Refused
from citybrain.findings import DeadLetter
from citybrain.kafka import KafkaSettings
from citybrain.ledger import read
from tests.alerting import T0, small_city
from tests.stream.alerting_log import write
from tests.stream.command_line import citybrain

NOW = T0 + 86_400_000


def rows(count: int, seq: int = 7) -> bytes:
    head = batch.BatchHead(
        gateway="g1", incarnation="i1", shard="south", seq=seq, kind="vehicle_count",
        watermark_ms=T0, sent_ms=T0,
    )  # fmt: skip
    codes = np.zeros(count, np.int32)
    return batch.encode(
        batch.Batch(
            head, Roster(("nobody",)), codes, T0 + np.arange(count), np.ones(count),
            np.zeros(count, np.uint8),
        )
    )  # fmt: skip


LETTERS = [
    DeadLetter(
        id="rollup/1/4/sensor", step="rollup", reason="sensor", message="not one of ours", at_ms=T0,
        original=rows(3), readings=3, gateway="g1", retry_topic="readings", retry_partition=1,
    ),
    DeadLetter(
        id="rollup/1/5/format", step="rollup", reason="format", message="not Arrow", at_ms=T0,
        original=b"\x00\xff", readings=40, retry_topic="readings", retry_partition=1,
    ),
    DeadLetter(
        id="edge/a1", step="edge", reason="range", message="value: 900 is above 100", at_ms=T0,
        original=b'{"value": 900}', readings=1, sensor="d1",
    ),
]  # fmt: skip


@pytest.fixture
async def city(broker: LocalBroker, tmp_path: Path, city_id: str) -> City:
    made = small_city(tmp_path, city_id)
    await topics.ensure(broker.settings, city_id, made.partitions)
    await write(broker.settings, made, "dead-letter", LETTERS)
    return made


async def sent(settings: KafkaSettings, city: City) -> list[tuple[int, bytes, dict[str, bytes]]]:
    return [
        (record.partition, record.value, dict(record.headers))
        async for record in records(settings, city.id, "readings")
    ]


async def test_rows_go_back_as_a_batch_of_their_own_and_only_once(
    broker: LocalBroker, city: City
) -> None:
    settings = broker.settings
    wanted = by(["rollup/1/4/sensor"])
    done = await retry(settings, city.id, city.shards, wanted, "operator-1", NOW)
    assert [letter.id for letter in done] == ["rollup/1/4/sensor"]
    assert await retry(settings, city.id, city.shards, wanted, "operator-2", NOW + 1) == []
    ((partition, value, headers),) = await sent(settings, city)
    assert (partition, headers) == (1, {"n": b"3"})
    again = batch.decode(value, Rosters())
    assert isinstance(again, batch.Batch)
    assert (again.head.gateway, again.head.incarnation) == (GATEWAY, "rollup/1/4/sensor")
    assert (again.head.seq, again.head.watermark_ms, again.head.sent_ms) == (0, 0, NOW)
    assert again.time_ms.tolist() == [T0, T0 + 1, T0 + 2]
    marks = {letter.id: letter.retried_by for letter in await letters(settings, city.id)}
    assert marks == {
        "rollup/1/4/sensor": "operator-1", "rollup/1/5/format": "", "edge/a1": "",
    }  # fmt: skip


async def test_the_sum_of_readings_still_holds_after_a_retry(
    broker: LocalBroker, city: City
) -> None:
    settings = broker.settings
    edge = Account(party="edge/g1/i1", shard="south", at_ms=1, counts={"produced": 43, "sent": 43})
    rollup = Account(party="rollup", shard="south", at_ms=1, counts={"dead_lettered": 43})
    await write_accounts(settings, city, edge, rollup)
    before = await read(settings, city.id, city.shards)
    assert (before.holds, before.dead_lettered, before.in_flight) == (True, 43, 0)
    for letter in ("rollup/1/4/sensor", "rollup/1/5/format"):
        await retry(settings, city.id, city.shards, by([letter]), "operator-1", NOW)
    after = await read(settings, city.id, city.shards)
    assert (after.holds, after.dead_lettered, after.in_flight) == (True, 0, 43)


async def write_accounts(settings: KafkaSettings, city: City, *accounts: Account) -> None:
    from aiokafka import AIOKafkaProducer

    from citybrain.findings import encode
    from citybrain.kafka import producer_arguments

    async with AIOKafkaProducer(**producer_arguments(settings)) as producer:
        for account in accounts:
            key = f"{account.party}/{account.shard}".encode()
            name = topics.full_name(city.id, "accounts")
            await producer.send_and_wait(name, encode(account), key=key)


async def test_two_people_who_retry_together_send_it_once(broker: LocalBroker, city: City) -> None:
    settings = broker.settings
    wanted = by((), "sensor")
    await asyncio.gather(
        *(retry(settings, city.id, city.shards, wanted, f"operator-{i}", NOW) for i in range(3)),
        return_exceptions=True,
    )
    await retry(settings, city.id, city.shards, wanted, "operator-9", NOW)
    assert len(await sent(settings, city)) == 1


async def test_what_came_from_no_topic_is_refused_and_nothing_is_sent(
    broker: LocalBroker, city: City
) -> None:
    with pytest.raises(Refused, match=r"edge/a1: came from no topic \(edge: range\)"):
        await retry(broker.settings, city.id, city.shards, by(()), "operator-1", NOW)
    assert await sent(broker.settings, city) == []
    assert all(not letter.retried_ms for letter in await letters(broker.settings, city.id))


async def test_the_commands_show_and_retry(broker: LocalBroker, city: City) -> None:
    at = ["--city", str(city.folder), "--broker", broker.settings.bootstrap]
    counted = await citybrain("dead-letter", "list", "--json", *at)
    assert {(c["step"], c["reason"]): c["readings"] for c in counted.json["counts"]} == {
        ("rollup", "sensor"): 3, ("rollup", "format"): 40, ("edge", "range"): 1,
    }  # fmt: skip
    each = await citybrain("dead-letter", "list", "--each", "--step", "edge", *at)
    assert "value: 900 is above 100" in each.out
    assert "not Arrow" not in each.out
    as_batch = await citybrain("dead-letter", "show", "rollup/1/4/sensor", *at)
    assert "batch of 3 readings" in as_batch.out
    assert "nobody  20270115T080000.002Z  1  quality 0" in as_batch.out
    hexadecimal = await citybrain("dead-letter", "show", "rollup/1/5/format", *at)
    assert "00 ff" in hexadecimal.out
    as_json = await citybrain("dead-letter", "show", "edge/a1", "--json", *at)
    assert json.loads(as_json.json["text"]) == {"value": 900}
    raw = await citybrain("dead-letter", "show", "edge/a1", "--raw", *at)
    assert raw.out == '{"value": 900}'

    done = await citybrain("dead-letter", "retry", "--reason", "format", "--person", "o", *at)
    assert (done.code, done.out) == (0, "retried: rollup/1/5/format (40 readings)\n")
    again = await citybrain("dead-letter", "retry", "rollup/1/5/format", "--person", "o", *at)
    assert again.code == 2
    assert "unknown or retried before: rollup/1/5/format" in again.err
    nothing = await citybrain("dead-letter", "retry", *at)
    assert nothing.code == 2
