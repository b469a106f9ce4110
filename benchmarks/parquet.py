"""A recording in Parquet through the rule that cuts it and the rollup stage, beside the window
core alone on the same readings."""

import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.analysis import A_MESSAGE, KIND, SENSORS, T0, a_city
from benchmarks.frame import Row, Size, of
from citybrain import recording
from citybrain.batch import Batch, Heartbeat
from citybrain.city import City
from citybrain.kinds import SECOND
from citybrain.models.windows import Windows
from citybrain.streams.replay import reading
from citybrain.streams.rollup import Rollup


def replay(size: Size) -> Iterable[Row]:
    """Readings a second of one core: read and cut; with the rollup; the window core alone."""
    steps, runs = (40, 3) if size == "small" else (200, 5)
    folder = Path(tempfile.mkdtemp(prefix="citybrain-bench-"))
    try:
        city, path = a_city([]), folder / "recording.parquet"
        _record(path, city, steps)
        facts: dict[str, float | int | str] = {
            "sensors": SENSORS, "a gateway": A_MESSAGE, "readings": SENSORS * steps,
        }  # fmt: skip
        cut, whole, core = [], [], []
        for _ in range(runs):
            begin = time.process_time()
            entries = list(recording.cut(path, city))
            cut.append(SENSORS * steps / (time.process_time() - begin))
            whole.append(SENSORS * steps / _rolled(city, path))
            core.append(SENSORS * steps / _alone(city, entries))
        yield Row("Parquet, read and cut", "readings/s per core", of(cut), facts)
        yield Row("Parquet to windows", "readings/s per core", of(whole), facts)
        yield Row("the window core alone", "readings/s per core", of(core), facts)
        ratios = [a / b for a, b in zip(whole, core, strict=True)]
        yield Row("Parquet to windows / core", "", of(ratios), goal=0.8)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _record(path: Path, city: City, steps: int) -> None:
    random, names = np.random.default_rng(1), list(city.sensors)
    with recording.RecordingWriter(path, city) as writer:
        for step in range(steps):
            value = random.integers(90, 110, SENSORS).astype(np.float64)
            writer.write(np.full(SENSORS, T0 + step * 5 * SECOND), names, [KIND] * SENSORS, value)


def _rolled(city: City, path: Path) -> float:
    begin, rollup = time.process_time(), Rollup(city, 0)
    for offset, entry in enumerate(recording.cut(path, city)):
        rollup.apply(reading(city, entry, offset))
    return time.process_time() - begin


def _alone(city: City, entries: list[Batch | Heartbeat]) -> float:
    kind = city.kinds[KIND]
    windows = Windows(SENSORS, kind.windows_ms, kind.rolling_ms, kind.delay_ms, kind.ring_ms)
    first = {name: i for i, name in enumerate(city.roster("s", KIND))}
    batches = [e for e in entries if isinstance(e, Batch)]
    at = [b.codes.astype(np.intp) + first[b.roster.names[0]] for b in batches]
    begin = time.process_time()
    for i, (sensor, one) in enumerate(zip(at, batches, strict=True)):
        windows.add(sensor, one.time_ms, one.value, i)
        windows.advance(one.head.watermark_ms)
    return time.process_time() - begin
