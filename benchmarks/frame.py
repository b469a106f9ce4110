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
    """One line of the result. unit: what the figure counts. facts: what it was measured on.

    goal: what the median should reach, or stay below where `at_most`.
    """

    name: str
    unit: str
    value: Spread
    facts: dict[str, float | int | str] = field(default_factory=dict)
    goal: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.value.median <= self.goal if self.at_most else self.value.median >= self.goal


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
        told = [asdict(row) | {"met": row.met} for row in rows]
        json.dump({"machine": machine(), "rows": told}, sys.stdout)
        print()
        return
    print(" ".join(f"{key}={value}" for key, value in machine().items()))
    print(f"{'':<44} {'median':>9} {'unit':<22} {'goal':>9}")
    for row in rows:
        value = row.value
        wanted = "" if row.goal is None else ("<= " if row.at_most else ">= ") + _short(row.goal)
        met = {None: "", True: "met", False: "NOT MET"}[row.met]
        print(
            f"{row.name:<44} {_short(value.median):>9} {row.unit:<22} {wanted:>9} {met:<7}"
            f" ({_short(value.low)} to {_short(value.high)}, {value.runs} runs)"
        )
        if row.facts:
            print("    " + ", ".join(f"{key} {_short(fact)}" for key, fact in row.facts.items()))


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.2f} {suffix}"
    return f"{value:.3g}"
