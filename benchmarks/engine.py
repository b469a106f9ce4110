"""The engine on a real broker: Kafka in to Kafka out, by size of a message, and where it goes.

Per core means: readings divided by CPU seconds of the whole process, all its threads, with
decoding, emission and snapshots in it. The ratio to the raw loop (aiokafka on uvloop, the same
decoding, the same window core, nothing else) holds on any machine; absolute figures do not.
Nothing merges messages inside the engine: what devices send singly is merged by their edge
agent (a second or 5,000 readings a batch), and so a small gateway's messages are small.
"""

import asyncio
import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.frame import Row, Size, of
from benchmarks.prepared import KIND, Shape, Worker, forget, prepare, reach, world
from citybrain import batch as readings
from citybrain.batch import Batch
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.columns import Roster, Rosters
from citybrain.kafka import consumer_arguments
from citybrain.models.windows import Windows
from citybrain.streams import memory
from citybrain.topics import full_name

SHAPES: tuple[tuple[Shape, int, float], ...] = (
    (Shape(100_000, 25_000), 100, 16e6),
    (Shape(100_000, 500), 24, 3e6),
    (Shape(50_000, 50, step_ms=1_000), 12, 400e3),
)
"""Shape, sweeps and goal in readings a second per core."""


def throughput(size: Size) -> Iterable[Row]:
    """5,000 a message beside a raw loop and by parts, then larger and smaller messages."""
    runs, longer = (5, 1) if size == "small" else (7, 3)
    yield from _main(runs, 100 * longer)
    runs = 3 if size == "small" else 7
    for shape, sweeps, goal in SHAPES:
        with world(shape) as (broker, city, folder):
            count = asyncio.run(prepare(broker, city, shape, sweeps * longer))
            results = [
                _worker(broker, city, folder, f"run{run}", shape, count) for run in range(runs + 1)
            ]
            yield Row(
                f"Faust worker, {shape.a_message:,} a message", "readings/s per core",
                of(results[1:]), _facts(shape, count), goal,
            )  # fmt: skip


def _main(runs: int, sweeps: int) -> Iterable[Row]:
    shape = Shape(100_000, 5_000)
    with world(shape) as (broker, city, folder):
        count = asyncio.run(prepare(broker, city, shape, sweeps))
        facts = _facts(shape, count)
        raw, worker = [], []
        # Both in turn, so that a change of the machine's speed meets both.
        for run in range(runs + 1):
            one = uvloop.run(_raw(broker, city, shape, count))
            two = _worker(broker, city, folder, f"run{run}", shape, count)
            if run:
                raw.append(one)
                worker.append(two)
        yield Row("raw aiokafka + window core, 5,000 a message", "readings/s per core", of(raw),
                  facts)  # fmt: skip
        yield Row("Faust worker, 5,000 a message", "readings/s per core", of(worker), facts, 10e6)
        ratios = [b / a for a, b in zip(raw, worker, strict=True)]
        yield Row("Faust worker / raw loop", "", of(ratios), {}, 0.7)
        yield from _parts(broker, city, folder, shape, count)


def _facts(shape: Shape, count: int) -> dict[str, float | int | str]:
    return {"sensors": shape.sensors, "messages": count, "windows": "1, 5, 30 min"}


def _parts(
    broker: LocalBroker, city: City, folder: Path, shape: Shape, count: int
) -> Iterable[Row]:
    """CPU microseconds a message by part of one run, and what the hardware would take."""
    out = folder / "parts.json"
    worker = Worker(broker.settings, folder, "timed", timed=out)
    try:
        reach([worker], count)
    finally:
        worker.stop()
    asyncio.run(forget(broker.settings, city))
    told = json.loads(out.read_text())
    whole = sum(told["seconds"].values())
    floors = _floors(shape)
    for part, seconds in sorted(told["seconds"].items(), key=lambda item: -item[1]):
        facts: dict[str, float | int | str] = {"share": f"{100 * seconds / whole:.1f} %"}
        if part in floors:
            facts["a copy of the bytes it moves"] = f"{floors[part]:.0f} us"
        yield Row(f"  part: {part}", "us a message", of([1e6 * seconds / told["records"]]), facts)


def _floors(shape: Shape) -> dict[str, float]:
    """Microseconds for copying once, by plain memcpy, the bytes that each part has to move."""
    message, pane, window = 32 * shape.a_message, 57 * shape.a_message, 71 * shape.sensors
    each = 60_000 // shape.step_ms * shape.sensors // shape.a_message / (1 + 1 / 5 + 1 / 30)
    return {
        "fetch": _copy_us(message),
        "window add": _copy_us(pane),
        "close": _copy_us(window) / each,
        "encode": _copy_us(window) / each,
        "produce": _copy_us(window) / each,
    }


def _copy_us(size: int) -> float:
    source, target = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    np.copyto(target, source)
    begin = time.process_time()
    for _ in range(100):
        np.copyto(target, source)
    return (time.process_time() - begin) * 1e4


async def _raw(broker: LocalBroker, city: City, shape: Shape, messages: int) -> float:
    kind = city.kinds[KIND]
    memory.keep()
    windows = Windows(shape.sensors, kind.windows_ms, (), kind.delay_ms, kind.ring_ms)
    number = {name: i for i, name in enumerate(city.roster("s0", KIND))}
    places: dict[Roster, slice] = {}
    rosters = Rosters()
    consumer = AIOKafkaConsumer(**consumer_arguments(broker.settings))
    left, first = messages, messages * 9 // 10
    async with consumer:
        place = TopicPartition(full_name(city.id, "readings"), 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        begin = time.process_time()
        while left:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                for record in records:
                    batch = readings.decode(record.value, rosters)
                    if not isinstance(batch, Batch):
                        continue  # a worker has left out gateways that were silent
                    if batch.roster not in places:
                        start = number[batch.roster.names[0]]
                        places[batch.roster] = slice(start, start + len(batch))
                    windows.add(places[batch.roster], batch.time_ms, batch.value, batch.head.seq)
                    windows.advance(batch.head.watermark_ms)
                    left -= 1
                    if left == first:
                        begin = time.process_time()
        return first * shape.a_message / (time.process_time() - begin)


def _worker(
    broker: LocalBroker, city: City, folder: Path, name: str, shape: Shape, count: int
) -> float:
    """CPU between a tenth and all of the messages; its state is deleted afterwards."""
    worker = Worker(broker.settings, folder, name)
    try:
        marks = [(reach([worker], wanted), worker.cpu_s()) for wanted in (count // 10, count)]
    finally:
        worker.stop()
    asyncio.run(forget(broker.settings, city))
    (first, began), (last, ended) = marks
    return (last - first) * shape.a_message / (ended - began)
