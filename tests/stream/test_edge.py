"""The edge agent on a real broker: what it said yes to arrives, once, in order."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import msgspec
import numpy as np
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from prometheus_client import CollectorRegistry

from citybrain.batch import Batch, Heartbeat
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.edge.agent import Agent
from citybrain.edge.sources.recording import incarnation_of
from citybrain.edge.tokens import Tokens
from citybrain.errors import UsageError
from citybrain.process import running
from citybrain.recording import RecordingWriter, cut
from citybrain.topics import ensure
from citybrain.trace import trace
from tests.stream import edge_rig as rig
from tests.stream.command_line import Called, citybrain


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """The port of a real MQTT broker of its own."""
    yield from rig.mosquitto(tmp_path / "mosquitto")


@pytest.fixture
async def city(broker: LocalBroker, city_id: str, tmp_path: Path) -> City:
    made = rig.make_city(tmp_path / "pack", city_id)
    await ensure(broker.settings, made.id, made.partitions)
    return made


async def test_readings_arrive_with_watermarks_and_add_up(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    now = wall_clock() // 1000 * 1000
    rows = [
        {"sensor": s, "kind": "vehicle_count", "time": now - 1000 * i, "value": float(i)}
        for i in range(50)
        for s in ("d1", "d2", "d3")
    ]
    bad = {"sensor": "ghost", "kind": "vehicle_count", "time": now, "value": 1.0}
    async with rig.agent(city, tmp_path / "data", broker.settings) as made:
        async with rig.client(made, tmp_path / "data", "g1") as web:
            first = await web.post("/readings", json=[*rows, bad])
            assert first.status_code == 202
            answer = first.json()
            assert (answer["accepted"], answer["duplicate"], answer["refused"]) == (150, 0, 1)
            assert answer["refusals"][0]["index"] == 150
            assert answer["refusals"][0]["reason"] == "sensor"
            again = await web.post("/readings", json=rows[:7])
            assert again.json()["duplicate"] == 7
        await rig.until(lambda: made.sender.backlog == 0)
        await asyncio.sleep(2.5)
    items = await rig.readings_log(broker.settings, city)
    found = rig.values(items)
    assert found == {(r["sensor"], r["kind"], r["time"]): [r["value"]] for r in rows}
    beats = [i for i in items if isinstance(i, Heartbeat)]
    assert {(b.gateway, b.shard) for b in beats} == {
        ("g1", "north"), ("g1", "south"), ("g2", "south"), ("g3", "north"), ("g3", "south"),
    }  # fmt: skip
    for _, group in itertools.groupby(sorted(items, key=_pair), key=_pair):
        marks = [i.head.watermark_ms if isinstance(i, Batch) else i.watermark_ms for i in group]
        assert marks == sorted(marks)
    (letter,) = await rig.dead_letters(broker.settings, city)
    assert letter.reason == "sensor"
    assert b"ghost" in letter.original
    assert await rig.accounts(broker.settings, city) == {
        "produced": 158, "duplicate": 7, "conflict": 0, "invalid": 1, "overflowed": 0,
        "spooled": 0, "sent": 150,
    }  # fmt: skip


async def test_the_log_of_a_recording_is_the_one_that_a_replay_reads(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    start = 1_700_000_000_000 // 60_000 * 60_000
    path = tmp_path / "r.parquet"
    times = np.arange(start, start + 600_000, 1000)
    with RecordingWriter(path, city) as writer:
        for time in times:
            writer.write(
                np.array([time] * 3), ["d1", "d4", "w2"],
                ["vehicle_count", "occupancy", "temperature"],
                np.array([float(time % 97), 12.5, 20.25]),
            )  # fmt: skip
    table = {"sources": {"recording": {"file": str(path), "speed": 0, "exit_at_end": True}}}
    for _ in range(2):  # the second time it is sent already, and says nothing new
        async with rig.agent(city, tmp_path / "data", broker.settings, **table) as made:
            await rig.until(lambda made=made: made.stopped.is_set())
    want: dict[tuple[str, str], list[object]] = {}
    for item in cut(path, city, incarnation=incarnation_of(path)):
        want.setdefault(_pair(item), []).append(_said(item))
    got: dict[tuple[str, str], list[object]] = {}
    for item in await rig.readings_log(broker.settings, city):
        got.setdefault(_pair(item), []).append(_said(item))
    assert got.keys() == want.keys()
    for pair, said in want.items():
        # The agent repeats heartbeats to show that it lives; a watermark takes no harm by it.
        assert [k for k, _ in itertools.groupby(got[pair])] == said
    assert (await rig.accounts(broker.settings, city))["sent"] == 1800


def _said(item: Batch | Heartbeat) -> object:
    if isinstance(item, Heartbeat):
        return item.watermark_ms
    head = msgspec.structs.replace(item.head, sent_ms=0)
    return head, item.time_ms.tolist(), item.value.tolist(), item.codes.tolist()


async def test_mqtt_messages_are_acknowledged_when_they_are_stored(
    broker: LocalBroker, city: City, mosquitto: int, tmp_path: Path
) -> None:
    now = wall_clock()
    table = {"sources": {"mqtt": {"port": mosquitto}}}
    async with rig.agent(city, tmp_path / "data", broker.settings, **table) as made:
        await rig.until(lambda: made.health().ok)
        async with aiomqtt.Client(
            "127.0.0.1", mosquitto, protocol=aiomqtt.ProtocolVersion.V5
        ) as device:
            for i in range(300):
                row = {"sensor": "w1", "kind": "temperature", "time": now - i * 1000, "value": 20}
                await device.publish("citybrain/g3/readings", msgspec.json.encode(row), qos=1)
            await device.publish("citybrain/g3/readings", b"{nonsense", qos=1)
            await device.publish("citybrain/g3/readings", b"[" * 100_000, qos=1)
            foreign = msgspec.json.encode([row | {"sensor": "X"}]).replace(b"X", b"\xb3\xb5")
            await device.publish("citybrain/g3/readings", foreign, qos=1)
            await device.publish("citybrain/g3/readings", msgspec.json.encode(row))  # a repeat
            lines = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
            lines.ContentType = "application/x-ndjson"
            more = [msgspec.json.encode(row | {"time": now - 500 + i}) for i in range(2)]
            await device.publish("citybrain/g3/readings", b"\n".join(more), qos=1, properties=lines)
            await device.publish("citybrain/ghost/readings", msgspec.json.encode(row), qos=1)
            row["time"] = now - 5 * 86_400_000
            await device.publish("citybrain/g3/backfill", msgspec.json.encode([row]), qos=1)
        await rig.until(lambda: _offered(made) == 308)
        await rig.until(lambda: made.sender.backlog == 0)
    items = await rig.readings_log(broker.settings, city)
    assert len(rig.values(items)) == 303
    lanes = [i.head.lane for i in items if isinstance(i, Batch) and len(i) == 1]
    assert "backfill" in lanes
    letters = await rig.dead_letters(broker.settings, city)
    assert sorted(letter.reason for letter in letters) == ["field", "gateway", "json", "json"]


async def test_a_reading_whose_time_has_come_goes_back_through_its_agent_and_counts_once(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    then = wall_clock() + 64_000
    early = {"sensor": "d1", "kind": "vehicle_count", "time": then, "value": 7}

    async def again(reason: str) -> Called:
        pack = str(city.folder)
        words = ("--city", pack, "--data", str(data), "--broker", broker.settings.bootstrap)
        return await citybrain("dead-letter", "retry", "--reason", reason, "--json", *words)

    async with rig.agent(city, data, broker.settings) as made:
        async with rig.client(made, data, "g1") as web:
            assert (await web.post("/readings", json=early)).status_code == 422
            assert (await web.post("/readings", json=early | {"time": 0})).status_code == 422
            await rig.until(lambda: wall_clock() > then - 59_000)
            with running("edge-edge", data, CollectorRegistry(), made.health):
                refused = await again("old")
                assert refused.code == 8
                assert "would be refused again: time: 0 is more than 400 days" in refused.err
                first = await again("future")
                assert first.code == 0, first.err
                assert len(first.json["retried"]) == 1
            device = await web.post("/readings", json=early)
            assert device.json()["duplicate"] == 1, "the agent knows it"
        await rig.until(lambda: made.sender.backlog == 0)
    found = rig.values(await rig.readings_log(broker.settings, city))
    assert found == {("d1", "vehicle_count", then): [7.0]}
    assert len(Tokens(data).grants()) == 1, "the token of the retry is taken back"


def _offered(made: Agent) -> int:
    return sum(books.counts["produced"] for books in made.ledger.parties.values())


def _pair(item: Batch | Heartbeat) -> tuple[str, str]:
    head = item.head if isinstance(item, Batch) else item
    return head.gateway, head.shard


async def test_trace_says_where_a_reading_is_and_what_it_does_not_know(
    broker: LocalBroker, city: City, tmp_path: Path
) -> None:
    now = wall_clock()
    row = {"sensor": "d1", "kind": "vehicle_count", "time": now, "value": 7}
    async with rig.agent(city, tmp_path / "data", broker.settings) as made:
        async with rig.client(made, tmp_path / "data", "g1") as web:
            await web.post("/readings", json=[row, row | {"time": now + 10**9}])
        await rig.until(lambda: made.sender.backlog == 0 and made.sender.sent_ms > 0)
    hops = await trace(broker.settings, city, tmp_path / "data", "d1", wall_clock())
    found = {hop.hop: hop for hop in hops}
    assert found["edge books"].facts["sent"] == 1
    assert found["edge books"].facts["invalid"] == 1
    log = found["readings log"]
    assert (log.facts["value"], log.facts["kind"]) == (7.0, "vehicle_count")
    assert 0 <= log.age_ms < 120_000
    assert found["rollup"].saw == "nothing"
    assert found["statistics"].saw == "unknown"
    assert found["dead letters"].facts["reason"] == "future"
    other = await trace(broker.settings, city, tmp_path / "data", "w1", wall_clock())
    assert {h.hop: h.saw for h in other}["readings log"] == "unknown"
    with pytest.raises(UsageError, match="'ghost' is not in"):
        await trace(broker.settings, city, tmp_path / "data", "ghost", wall_clock())
