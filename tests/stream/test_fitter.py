"""The fitter on a real broker: history in, models in the log; a restart fits nothing twice."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from citybrain import fits, pack, stats, topics
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.columns import Roster, Rosters
from citybrain.fits import Fit
from citybrain.history.rows import closed
from citybrain.history.store import Store
from citybrain.kafka import consumer_arguments
from citybrain.kinds import DAY, HOUR, MINUTE
from citybrain.models import fit
from citybrain.models.daytime import Daytime
from citybrain.process import living
from citybrain.stats import Effective, Stats, StatsHead
from citybrain.streams import fitter
from tests.packs import CITY, write_pack

MONDAY = 1_767_571_200_000
STEP = 5 * MINUTE
NAMES = ("d1", "d2")


def window(start: int, random: np.random.Generator) -> Stats:
    rate = 40 + 30 * np.sin(2 * np.pi * (start % DAY) / DAY)
    value = random.poisson([rate, rate / 2]).astype(np.float64)
    n = len(NAMES)
    return Stats(
        StatsHead(
            shard="north", kind="vehicle_count", window_ms=STEP, step_ms=STEP, start_ms=start,
            revision=0, expected=1, cause_offset=0, cause_ms=start + STEP,
        ),
        Roster(NAMES), np.arange(n, dtype=np.int32), np.ones(n, np.int32), np.zeros(n, np.int32),
        value, value * value, value, value, value, np.full(n, start, np.int64),
    )  # fmt: skip


def history(data: Path, days: int) -> None:
    """So many days of windows before MONDAY, written as the historian writes them."""
    random = np.random.default_rng(1)
    with Store(data / "history") as store:
        starts = range(MONDAY - days * DAY, MONDAY, STEP)
        rows = closed([(window(start, random), start + STEP) for start in starts])
        store.add(rows, ("stats", 0, 0))
        store.flush({("stats", 0): 1}, {})


async def records(broker: LocalBroker, city: City, topic: str) -> list[Any]:
    consumer = AIOKafkaConsumer(**consumer_arguments(broker.settings))
    await consumer.start()
    part = TopicPartition(topics.full_name(city.id, topic), 0)
    consumer.assign([part])
    await consumer.seek_to_beginning(part)
    found: list[Any] = []
    while got := await consumer.getmany(part, timeout_ms=2_000):
        found += [record.value for record in got[part]]
    await consumer.stop()
    return found


async def until(broker: LocalBroker, city: City, data: Path, models: int) -> tuple[int, str]:
    """Run the fitter until so many models are known, plus one more look; /health and /metrics."""
    stop = asyncio.Event()
    task = asyncio.create_task(fitter.run(broker.settings, city, data, stop=stop))
    deadline = time.monotonic() + 120
    state: dict[str, Any] = {}
    text = ""
    while time.monotonic() < deadline and not task.done():
        await asyncio.sleep(0.5)
        for run in living(data):
            base = f"http://127.0.0.1:{run.port}"
            state = json.loads(await asyncio.to_thread(_get, f"{base}/health"))
            text = await asyncio.to_thread(_get, f"{base}/metrics")
        if state.get("facts", {}).get("models") == models:
            break
    await asyncio.sleep(1)
    stop.set()
    await asyncio.wait_for(task, 60)
    assert state["facts"]["models"] == models
    return models, text


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:  # 503 while it waits for the broker
        return str(error.read().decode())


async def test_history_becomes_a_model_in_the_log_once(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    text = CITY.replace('"small"', f'"{city_id}"') + "[kinds.vehicle_count]\ncadence_s = 300\n"
    city = pack.load(str(write_pack(tmp_path / "pack", city=text)))
    await topics.ensure(broker.settings, city.id, city.partitions)
    data = tmp_path / "data"
    history(data, 6)
    _, metrics = await until(broker, city, data, 1)
    assert 'citybrain_fitter_fits_total{kind="vehicle_count"} 1.0' in metrics

    sent = [stats.decode(value, Rosters()) for value in await records(broker, city, "stats")]
    parts = [record for record in sent if isinstance(record, Effective)]
    (told,) = [fits.decoder.decode(value) for value in await records(broker, city, "models")]
    assert isinstance(told, Fit)
    assert [p.digest for p in parts] == [told.digest]
    assert fit.digest([p.body for p in parts]) == told.digest
    midnight = MONDAY - 8 * HOUR  # in Shanghai
    assert (told.shard, told.kind, told.sensors, told.rows) == ("north", "vehicle_count", 2, 3264)
    assert told.until_ms == midnight
    assert told.from_ms == parts[0].from_ms == midnight + HOUR
    model = fit.read([p.body for p in parts], NAMES)
    noon = MONDAY + 6 * 60 * MINUTE
    start = np.array([noon], dtype=np.int64)
    mean, _ = model.baseline.over(start, Daytime(city.zone_info, city.calendar))
    assert np.allclose(mean[0], [70.0, 35.0], rtol=0.15)

    # A restart reads what was fitted and leaves it at that.
    await until(broker, city, data, 1)
    assert len(await records(broker, city, "models")) == 1


async def test_two_days_of_history_make_no_model(
    broker: LocalBroker, city_id: str, tmp_path: Path
) -> None:
    text = CITY.replace('"small"', f'"{city_id}"') + "[kinds.vehicle_count]\ncadence_s = 300\n"
    city = pack.load(str(write_pack(tmp_path / "pack", city=text)))
    await topics.ensure(broker.settings, city.id, city.partitions)
    history(tmp_path / "data", 2)
    await until(broker, city, tmp_path / "data", 0)
    assert await records(broker, city, "models") == []
    assert await records(broker, city, "stats") == []
