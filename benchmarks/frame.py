"""What every benchmark shares: runs with a warm-up, median and spread, the machine, a table."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

Size = Literal["small", "full"]


@dataclass(frozen=True)
class Spread:
    """Several runs of one thing."""

    median: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Row:
    """One line of the result. unit: what the figure counts. facts: what it was measured on."""

    name: str
    unit: str
    value: Spread
    facts: dict[str, float | int | str] = field(default_factory=dict)


Benchmark = Callable[[Size], Iterable[Row]]


def spread(run: Callable[[], float], runs: int = 5) -> Spread:
    """Median, lowest and highest of `runs` results, after one that does not count."""
    run()
    return of([run() for _ in range(runs)])


def of(results: list[float]) -> Spread:
    """The spread of results that are there already."""
    return Spread(statistics.median(results), min(results), max(results), len(results))


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(": ")[2] if lines else model
    packages = {name: version(name) for name in ("numpy", "pyarrow", "aiokafka", "faust-streaming")}
    return {
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **packages,
    }


def show(rows: list[Row], as_json: bool) -> None:
    """JSON, or a table, on stdout."""
    if as_json:
        json.dump({"machine": machine(), "rows": [asdict(row) for row in rows]}, sys.stdout)
        print()
        return
    print(" ".join(f"{key}={value}" for key, value in machine().items()))
    for row in rows:
        value = row.value
        line = f"{row.name:<34} {_short(value.median):>9} {row.unit:<22}"
        print(f"{line} ({_short(value.low)} to {_short(value.high)}, {value.runs} runs)")
        if row.facts:
            print("    " + ", ".join(f"{key} {_short(fact)}" for key, fact in row.facts.items()))


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.2f} {suffix}"
    return f"{value:.3g}"
