"""The edge agent on a real broker: what it said yes to arrives, once, in order."""

import asyncio
import itertools
from pathlib import Path

import pytest

from citybrain.batch import Batch, Heartbeat
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.topics import ensure
from tests.stream import edge_rig as rig


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


def _pair(item: Batch | Heartbeat) -> tuple[str, str]:
    head = item.head if isinstance(item, Batch) else item
    return head.gateway, head.shard
