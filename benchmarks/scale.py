"""More sensors, more workers, more readings: what stays the same and what grows.

Rows of one group hold the readings per sensor and window constant. `--full` takes a million
sensors over two workers and a billion readings; without it the rows say from how many the
figure is extrapolated.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from benchmarks.frame import Row, Size, of
from benchmarks.prepared import (
    STEP_MS,
    T0,
    Shape,
    Worker,
    forget,
    messages,
    pack,
    prepare,
    total,
    world,
)
from citybrain import batch as readings
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.stage import Record
from citybrain.streams import memory
from citybrain.streams.rollup import Rollup

MILLION, BILLION = 1_000_000, 1_000_000_000


def sensors(size: Size) -> Iterable[Row]:
    """Cost of a reading in the rollup stage, bytes to outputs, by number of sensors."""
    memory.keep()
    counts = (10_000, 100_000, MILLION)
    costs = {count: _cost(count) for count in counts}
    for count, nanoseconds in costs.items():
        yield Row(f"rollup stage, {count:,} sensors", "ns a reading", of(nanoseconds))
    middles = [of(each).median for each in costs.values()]
    spread = 100 * (max(middles) / min(middles) - 1)
    yield Row("spread over 10 k, 100 k, 1 M sensors", "%", of([spread]), {}, 15, at_most=True)


def _cost(count: int) -> list[float]:
    """Nanoseconds of CPU time a reading, for each of five minutes of event time, by messages
    of 5,000: what is read is made before, the clock runs in the stage alone."""
    shape = Shape(count, 5_000)
    per_minute = 60_000 // STEP_MS * count // shape.a_message
    with pack(shape) as (city, _):
        stage = Rollup(city, 0)
        results = []
        source = messages(city, STEP_MS)
        number = 0
        # The shorter minutes of few sensors are repeated, so that each figure has its second.
        for run in range(6):
            spent = 0.0
            for _ in range(max(1, 200_000 // count)):
                for _, batch in islice(source, per_minute):
                    record = Record("readings", 0, number, T0 + number, readings.encode(batch))
                    number += 1
                    begin = time.process_time()
                    stage.apply(record)
                    spent += time.process_time() - begin
                stage.changed()
            if run:
                done = max(1, 200_000 // count) * per_minute * shape.a_message
                results.append(1e9 * spent / done)
        return results


def workers(size: Size) -> Iterable[Row]:
    """Two workers against one; memory a sensor; a billion readings through windows and rules."""
    shape = Shape(100_000, 5_000, shards=2)
    sweeps = 200 if size == "small" else 400
    with world(shape) as (broker, city, folder):
        count = asyncio.run(prepare(broker, city, shape, sweeps))
        one, two = [], []
        for run in range(4):
            slow = _rate(broker, city, folder, f"one{run}", 1, count)
            fast = _rate(broker, city, folder, f"two{run}", 2, count)
            if run:
                one.append(slow * shape.a_message)
                two.append(fast * shape.a_message)
    yield Row("one worker, two shards", "readings/s", of(one))
    yield Row("two workers, two shards", "readings/s", of(two))
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    yield Row("two workers / one, on two cores with the broker", "", of(ratios), {}, 1.7)
    yield from _memory(size)
    yield from _billion(BILLION if size == "full" else BILLION // 50)


def _start(broker: LocalBroker, folder: Path, name: str, number: int, stages: str) -> list[Worker]:
    return [Worker(broker.settings, folder, f"{name}-{i}", stages) for i in range(number)]


def _rate(
    broker: LocalBroker, city: City, folder: Path, name: str, number: int, count: int
) -> float:
    """Messages a second of wall-clock time, while all workers have some."""
    team = _start(broker, folder, name, number, "rollup")
    try:
        while min(_by_partition(team)) < count // 2 // 10:
            time.sleep(0.05)
        begin, first = time.monotonic(), sum(_by_partition(team))
        while True:
            now, done = time.monotonic(), _by_partition(team)
            over = max(done) >= count // 2 if number > 1 else sum(done) >= count
            if over:
                return (sum(done) - first) / (now - begin)
            time.sleep(0.05)
    finally:
        for worker in team:
            worker.stop()
        asyncio.run(forget(broker.settings, city))


def _by_partition(team: Sequence[Worker]) -> list[int]:
    done = [0, 0]
    for worker in team:
        for (_, partition), number in worker.taken().items():
            done[int(partition)] += number
    return done


def _memory(size: Size) -> Iterable[Row]:
    """Resident bytes of two workers with a million sensors, or the line through two sizes."""
    facts: dict[str, float | int | str] = {}
    if size == "full":
        whole = float(_resident(MILLION))
    else:
        few, many = 20_000, 200_000
        base, used = _resident(few), _resident(many)
        each = (used - base) / (many - few)
        whole = base + each * (MILLION - few)
        facts = {"extrapolated": f"from {few:,} and {many:,} sensors", "bytes a sensor": each,
                 "bytes with few sensors": base}  # fmt: skip
    yield Row("memory, 1 M sensors over two workers", "bytes", of([whole]), facts, 2 * 2**30,
              at_most=True)  # fmt: skip


def _resident(count: int) -> int:
    """Of two workers with rollup and analysis, health rules on, a full ring."""
    rule = (
        '[silent]\ndetector = "health"\ncause = "silent"\ngroup = "sensor"\nseverity = 4\n'
        'raise_at = 1.0\nadvice = "check-device"\nzh = "无"\nen = "Silent"\n'
        'settings = { condition = "silent" }\n'
    )
    shape = Shape(count, 5_000, shards=2, step_ms=60_000, rules=rule)
    with world(shape) as (broker, city, folder):
        sent = asyncio.run(prepare(broker, city, shape, 40))
        team = _start(broker, folder, "memory", 2, "rollup,analyse")
        try:
            while total(team) < sent:
                time.sleep(0.2)
            time.sleep(3)
            return sum(worker.watched.memory_info().rss for worker in team)
        finally:
            for worker in team:
                worker.stop()


def _billion(count: int) -> Iterable[Row]:
    """Wall-clock time of so many readings through windows and rules on two workers."""
    rule = (
        '[high]\ndetector = "threshold"\ncause = "high"\ngroup = "sensor"\nseverity = 3\n'
        'window_s = 60\nraise_at = 499.5\nadvice = "check-device"\nzh = "高"\nen = "High"\n'
    )
    shape = Shape(100_000, 25_000, shards=2, rules=rule)
    at_once = min(count, 100_000_000) // shape.sensors
    seconds, done = 0.0, 0
    while done < count:
        with world(shape) as (broker, city, folder):
            sent = asyncio.run(prepare(broker, city, shape, at_once))
            team = _start(broker, folder, "all", 2, "rollup,analyse")
            try:
                while not total(team):
                    time.sleep(0.02)
                begin, first = time.monotonic(), total(team)
                while total(team) < sent:
                    time.sleep(0.05)
                seconds += (time.monotonic() - begin) * sent / (sent - first)
            finally:
                for worker in team:
                    worker.stop()
        done += sent * shape.a_message
    facts: dict[str, float | int | str] = {"readings": done, "readings a second": done / seconds}
    if done < BILLION:
        facts["extrapolated"] = f"{BILLION / done:.0f} times"
    yield Row("a billion readings, windows + rules", "s", of([seconds * BILLION / done]), facts,
              180, at_most=True)  # fmt: skip
