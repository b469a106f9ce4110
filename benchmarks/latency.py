"""At 100,000 readings a second: how long from a reading's receipt to its statistic and alert.

From the broker's receipt of the record that moved the watermark past a window's end, to the
broker's receipt of the statistic, and of the alert that followed from it. Two workers run
every stage, as `citybrain up` starts them; twenty gateways of 5,000 sensors in ten
shards send at every full second.
Each ten seconds, by event time, one sensor a gateway rises above its limit, or falls back.
"""

import asyncio
import time
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from msgspec import json

from benchmarks.frame import Row, Size, Spread
from benchmarks.prepared import Shape, Worker, messages, world
from citybrain import batch as readings
from citybrain import stats
from citybrain.alerts import Alert
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.columns import Rosters
from citybrain.kafka import consumer_arguments, producer_arguments
from citybrain.topics import full_name

RULE = """[high]
detector = "threshold"
cause = "high"
group = "sensor"
severity = 3
window_s = 10
raise_at = 8000.0
clear_at = 6000.0
advice = "check-device"
zh = "高"
en = "High"
"""
SHAPE = Shape(100_000, 5_000, 10, "vehicle_count", 1_000, RULE)
HIGH, LOW = 950.0, 10.0
SETTLE_S = 20
"""Until the first windows are through."""


def latency(size: Size) -> Iterable[Row]:
    """p99 to the statistic and to the alert."""
    seconds = 40 if size == "small" else 300
    with world(SHAPE) as (broker, city, folder):
        workers = [
            Worker(broker.settings, folder, name, "rollup,analyse,alerting") for name in ("a", "b")
        ]
        try:
            while not all(worker.taken() for worker in workers):
                time.sleep(0.5)  # until partitions are handed out
            told, raised = asyncio.run(_paced(broker, city, seconds))
        finally:
            for worker in workers:
                worker.stop()
    facts = {"readings a second": SHAPE.sensors, "workers": 2}
    if not (told and raised):
        raise SystemExit(f"latency: {len(told)} statistics, {len(raised)} alerts in {seconds} s")
    for name, taken, goal in (("the statistic", told, 250), ("the alert", raised, 300)):
        yield _row(f"latency to {name}, p99", sorted(taken), facts, goal)


def _row(name: str, taken: list[int], facts: dict[str, int], goal: int) -> Row:
    p50, p99 = (taken[min(len(taken) - 1, int(len(taken) * q))] for q in (0.5, 0.99))
    value = Spread(p99, taken[0], taken[-1], 1)
    return Row(name, "ms", value, {**facts, "number": len(taken), "p50": p50}, goal, at_most=True)


async def _paced(broker: LocalBroker, city: City, seconds: int) -> tuple[list[int], list[int]]:
    told: list[int] = []
    raised: list[int] = []
    rosters, loop = Rosters(), asyncio.get_running_loop()
    names = {name: full_name(city.id, name) for name in ("stats", "alerts", "readings")}
    consumer = AIOKafkaConsumer(
        names["stats"], names["alerts"], **consumer_arguments(broker.settings)
    )
    begin_ms = 0

    async def read() -> None:
        while True:
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    if place.topic == names["alerts"]:
                        alert = json.decode(record.value, type=Alert)
                        if alert.cause_ms > begin_ms > 0:
                            raised.append(record.timestamp - alert.cause_ms)
                        continue
                    entry = stats.decode(record.value, rosters)
                    if isinstance(entry, stats.Stats) and entry.head.cause_ms > begin_ms > 0:
                        told.append(record.timestamp - entry.head.cause_ms)

    async with consumer, AIOKafkaProducer(**producer_arguments(broker.settings)) as producer:
        reading = asyncio.create_task(read())
        gateways = SHAPE.sensors // SHAPE.a_message
        begin = loop.time() + 2
        for i, (partition, batch) in enumerate(messages(city, SHAPE.step_ms)):
            due = begin + i // gateways
            if due > begin + SETTLE_S + seconds:
                break
            if not begin_ms and due > begin + SETTLE_S:
                begin_ms = wall_clock()
            await asyncio.sleep(max(0, due - loop.time()))
            batch.value[0] = HIGH if i // gateways // 10 % 2 else LOW
            await producer.send(names["readings"], readings.encode(batch), partition=partition)
        await asyncio.sleep(3)
        reading.cancel()
    return told, raised
