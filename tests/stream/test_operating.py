"""What operators do to a running city: send refused input again, park a sensor."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from citybrain import batch, topics
from citybrain.broker import LocalBroker
from citybrain.clock import wall_clock
from citybrain.columns import Roster
from citybrain.contents import records
from citybrain.findings import Finding, Progress, decode
from citybrain.kafka import KafkaSettings
from citybrain.kinds import MINUTE
from citybrain.ledger import Book, read
from citybrain.pack import load
from tests.packs import CITY, write_pack
from tests.stream.alerting_log import write
from tests.stream.command_line import citybrain
from tests.stream.engine import DEADLINE_S, WorkerProcess

HOT = """
[hot]
detector = "threshold"
kinds = ["temperature"]
cause = "heat"
severity = 3
advice = "heat"
zh = "高温"
en = "Hot"
raise_at = 30.0
clear_at = 28.0
"""
QUARTER = 15 * MINUTE


@dataclass
class Running:
    """One gateway's words to a city with one worker; `quarter` counts its steps of time."""

    settings: KafkaSettings
    folder: Path
    worker: WorkerProcess
    begin_ms: int
    quarter: int = 0
    seq: int = 0
    shards: dict[str, int] = field(default_factory=lambda: {"north": 0})

    @property
    def city(self) -> str:
        return self.folder.name

    @property
    def at(self) -> list[str]:
        return ["--city", str(self.folder), "--broker", self.settings.bootstrap]

    async def say(self, **values: float) -> None:
        """A reading of each sensor, and the word that a quarter of an hour has passed."""
        time_ms = self.begin_ms + self.quarter * QUARTER
        self.quarter += 1
        names = tuple(values)
        head = batch.BatchHead(
            gateway="g3", incarnation="a", shard="north", seq=self.seq, kind="temperature",
            watermark_ms=time_ms, sent_ms=time_ms,
        )  # fmt: skip
        self.seq += 1
        told = batch.Batch(
            head, Roster(names), np.arange(len(names), dtype=np.int32),
            np.full(len(names), time_ms, np.int64), np.array(list(values.values())),
            np.zeros(len(names), np.uint8),
        )  # fmt: skip
        passed = time_ms + QUARTER - 1
        beat = batch.Heartbeat(
            gateway="g3", incarnation="a", shard="north", watermark_ms=passed, sent_ms=passed,
            interval_ms=3_600_000,
        )  # fmt: skip
        city = load(str(self.folder))
        await write(
            self.settings, city, "readings", [batch.encode(told), batch.encode_control(beat)]
        )

    async def book(self, done: Callable[[Book], bool]) -> Book:
        """The sum of readings once it is as wanted."""
        until = time.monotonic() + DEADLINE_S
        while not done(book := await read(self.settings, self.city, self.shards)):
            assert time.monotonic() < until, book
            await asyncio.sleep(0.3)
        return book

    async def found(self) -> list[Finding]:
        """All findings, once the city's time has come to the last quarter."""
        until = time.monotonic() + DEADLINE_S
        through = self.begin_ms + self.quarter * QUARTER - 5 * MINUTE
        while True:
            got = [decode(r.value) async for r in records(self.settings, self.city, "findings")]
            if any(isinstance(e, Progress) and e.through_ms >= through for e in got):
                return [entry for entry in got if isinstance(entry, Finding)]
            assert time.monotonic() < until, got[-3:]
            await asyncio.sleep(0.3)


@pytest.fixture(scope="module")
def city(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A worker that met a sensor which its pack did not know; then the pack was mended."""
    root = tmp_path_factory.mktemp("operating")
    text = CITY.replace('"small"', '"operating"').replace("south = 1\n", "")
    folder = write_pack(root / "operating", ["w1,temperature,north,north,g3"], text)
    (folder / "rules.toml").write_text(HOT, "utf-8")
    start = (folder, root / "data", broker.settings.bootstrap)
    stages = "rollup,analyse,alerting"
    begin_ms = wall_clock() // QUARTER * QUARTER - 8 * QUARTER
    first = WorkerProcess(*start, "worker-1", stages)
    running = Running(broker.settings, folder, first, begin_ms)
    try:
        asyncio.run(_refused(running))
        assert first.stop() == 0, first.log.read_text()
        write_pack(folder, ["w1,temperature,north,north,g3", "w9,temperature,north,north,g3"], text)
        (folder / "rules.toml").write_text(HOT, "utf-8")
        running.worker = WorkerProcess(*start, "worker-2", stages)
        yield running
        assert running.worker.stop() == 0, running.worker.log.read_text()
    finally:
        for worker in (first, running.worker):
            if worker.process.poll() is None:
                worker.kill()


async def _refused(running: Running) -> None:
    await topics.ensure(running.settings, running.city, 4)
    await running.say(w1=20.0, w9=21.0)
    await running.book(lambda book: book.dead_lettered == 1 and book.counted == 1)


async def test_a_reading_of_a_sensor_that_the_pack_lacked_counts_after_a_retry(
    city: Running,
) -> None:
    listed = await citybrain("dead-letter", "list", "--json", *city.at)
    assert [(c["step"], c["reason"], c["readings"]) for c in listed.json["counts"]] == [
        ("rollup", "sensor", 1)
    ]
    done = await citybrain("dead-letter", "retry", "--reason", "sensor", "--person", "o", *city.at)
    assert done.code == 0, done.err
    book = await city.book(lambda book: book.counted == 2)
    assert book.dead_lettered == 0
    again = await citybrain("dead-letter", "retry", "--reason", "sensor", "--person", "o", *city.at)
    assert again.out == ""  # nothing of that reason is left


async def test_a_parked_sensor_raises_nothing_until_it_is_back(city: Running) -> None:
    words = ["sensor", "maintenance", "w1", "--person", "operator-1", *city.at]
    await city.say(w1=20.0)
    before = len(await city.found())
    parked = await citybrain(*words, "--until", "8h")
    assert parked.code == 0, parked.err
    await city.say(w1=35.0)
    assert len(await city.found()) == before
    back = await citybrain(*words, "--end")
    assert back.code == 0, back.err
    await city.say(w1=36.0)
    new = (await city.found())[before:]
    assert [(f.rule, f.state, f.place.sensor, f.observed) for f in new] == [
        ("hot", "raised", "w1", 36.0)
    ]
    assert "+" in new[0].pack  # what was changed of the pack is part of the version
