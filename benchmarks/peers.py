"""Bytewax and Quix Streams on the same messages as the worker: `make bench-peers`.

Twice: with their own window operator on unpacked readings (one window length, where ours has
three), and with our window core, which is handed each batch whole. The windows that they tell
are compared with ours. Per core as in `benchmarks.engine`. What is slow gets fewer messages.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from benchmarks.engine import _worker as worker_run
from benchmarks.frame import Row, Size, Spread, of
from benchmarks.peer_runs import Core, digest
from benchmarks.prepared import KIND, STEP_MS, T0, Shape, messages, pack, prepare, world
from citybrain import batch as readings
from citybrain.topics import full_name

PYTHON = Path(".venv-peers/bin/python")
ENGINES = ("bytewax", "quix")


def peers(size: Size) -> Iterable[Row]:
    """Own operators, then our core in their hands."""
    if not PYTHON.exists():
        print(f"{PYTHON} is not there: make bench-peers installs it", file=sys.stderr)
        return
    runs = 5 if size == "small" else 7
    own = {
        "bytewax": _peer("bytewax", "own", Shape(5_000, 5_000), 60, runs),
        "quix": _peer("quix", "own", Shape(1_000, 1_000), 30, min(runs, 3)),
    }
    shape = Shape(100_000, 5_000)
    whole, ours = _whole(shape, 60 if size == "small" else 200, runs)
    yield from (_row(f"{name}, its own windows", each) for name, each in own.items())
    yield from (_row(f"{name}, our core on whole batches", each) for name, each in whole.items())
    yield _row("Faust worker, the same messages", ours)
    best_own, best_whole = (max(of(e).median for e in g.values()) for g in (own, whole))
    yield Row("worker / the better with its own windows", "", _over(ours, best_own), {}, 5)
    yield Row("worker / the better with our core", "", _over(ours, best_whole), {}, 0.8)


def _row(name: str, results: list[float]) -> Row:
    return Row(name, "readings/s per core", of(results), {"windows": "checked equal"})


def _over(results: list[float], other: float) -> Spread:
    return of([one / other for one in results])


def _peer(engine: str, how: str, shape: Shape, sweeps: int, runs: int) -> list[float]:
    with world(shape) as (broker, city, _):
        count = asyncio.run(prepare(broker, city, shape, sweeps))
        topic = full_name(city.id, "readings")
        wanted = _truth(shape)
        every = [
            _child(engine, how, broker.settings.bootstrap, topic, shape.sensors, wanted)
            for _ in range(runs + 1)
        ]
    return [count * shape.a_message / seconds for seconds in every[1:]]


def _whole(shape: Shape, sweeps: int, runs: int) -> tuple[dict[str, list[float]], list[float]]:
    """All three in turn on the same log."""
    wanted = _truth(shape)
    results: dict[str, list[float]] = {name: [] for name in ENGINES}
    ours: list[float] = []
    with world(shape) as (broker, city, folder):
        count = asyncio.run(prepare(broker, city, shape, sweeps))
        topic = full_name(city.id, "readings")
        for run in range(runs + 1):
            for name in ENGINES:
                bootstrap = broker.settings.bootstrap
                spent = _child(name, "core", bootstrap, topic, shape.sensors, wanted)
                results[name].append(count * shape.a_message / spent)
            ours.append(worker_run(broker, city, folder, f"run{run}", shape, count))
    return {name: each[1:] for name, each in results.items()}, ours[1:]


def _truth(shape: Shape) -> str:
    """The first minute's windows of our own core, straight from the messages."""
    with pack(shape) as (city, _):
        assert next(iter(city.kinds)) == KIND
        core = Core(shape.sensors)
        sweep = shape.sensors // shape.a_message
        for _, batch in islice(messages(city, STEP_MS), 14 * sweep):
            core.take(readings.encode(batch))
    return digest(core.rows, T0)


def _child(engine: str, how: str, bootstrap: str, topic: str, width: int, wanted: str) -> float:
    """CPU seconds of one run. Ends the benchmark if its windows are not ours."""
    command = [
        str(PYTHON), "-W", "ignore", "-m", "benchmarks.peer_runs", engine, how, bootstrap, topic,
        str(width), str(T0),
    ]  # fmt: skip
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    told = json.loads(out.splitlines()[-1])
    if told["digest"] != wanted:
        raise SystemExit(f"{engine} {how} told other windows: {told['digest']}, not {wanted}")
    return float(told["cpu_s"])
