"""Signal controllers compared on one scenario: several seeds, paired differences.

Each run is a process of its own (the simulator is a library with one state a process).
"""

import math
import multiprocessing
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from citybrain.edge import junctions
from citybrain.edge.closed_loop import NATIVE, Scenario, run
from citybrain.edge.outcome import Outcome
from citybrain.errors import UsageError
from citybrain.models.signals import CONTROLLERS, webster
from citybrain.signals import Degraded, Junction

RETIMED = "retimed"

# Two-sided 95 % points of Student's t by degrees of freedom; 1.96 beyond.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


def names() -> list[str]:
    """All controllers that can be compared."""
    return [*NATIVE, RETIMED, *CONTROLLERS]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean delay of one controller less another's over the same seeds, in s, and in per cent
    of the other's; `half_s` is half the 95 % interval (NaN with one seed)."""

    one: str
    other: str
    mean_s: float
    half_s: float
    percent: float


def compare(
    scenario: Scenario,
    controllers: Sequence[str],
    seeds: Sequence[int],
    degraded: Degraded | None = None,
    jobs: int = 1,
    progress: Callable[[Outcome], None] | None = None,
) -> dict[str, list[Outcome]]:
    """Controller -> its outcomes, in the order of the seeds.

    Raises UsageError for a controller that is not known, PackError for a network or a file
    that cannot be read, FatalTraCIError of the simulator as UsageError.
    """
    for name in controllers:
        if name not in names():
            raise UsageError(f"--controller: {name!r} is not one of {names()}")
    present(scenario.net, *scenario.routes, *scenario.additional)
    found = junctions.read(scenario.net, scenario.additional)
    if not found:
        raise UsageError(f"{scenario.net}: no road signal with something to decide")
    plans = dict.fromkeys(controllers, found)
    if RETIMED in controllers:
        plans[RETIMED] = _retimed(scenario, found, degraded)
    work = [(scenario, name, seed, degraded, plans[name]) for seed in seeds for name in controllers]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in controllers}
    for outcome in _processes(work, jobs):
        outcomes[outcome.controller].append(outcome)
        if progress is not None:
            progress(outcome)
    return outcomes


def differences(outcomes: dict[str, list[Outcome]]) -> list[Difference]:
    """Every controller against every other that stands before it."""
    found = []
    order = list(outcomes)
    for i, one in enumerate(order):
        for other in order[:i]:
            mine = np.array([o.mean_delay_s for o in outcomes[one]])
            theirs = np.array([o.mean_delay_s for o in outcomes[other]])
            apart = mine - theirs
            n = len(apart)
            half = math.nan
            if n > 1:
                t = _T95[n - 2] if n - 2 < len(_T95) else 1.96
                half = t * float(apart.std(ddof=1)) / math.sqrt(n)
            base = float(theirs.mean())
            found.append(
                Difference(
                    one, other, float(apart.mean()), half,
                    100.0 * float(apart.mean()) / base if base else math.nan,
                )
            )  # fmt: skip
    return found


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means over the seeds of one controller, as `signals bench --json` shows them."""
    return {
        "mean_delay_s": _mean(o.mean_delay_s for o in outcomes),
        "p95_delay_s": _mean(o.p95_delay_s for o in outcomes),
        "arrived": _mean(o.arrived for o in outcomes),
        "scheduled": _mean(o.vehicles for o in outcomes),
        "never_inserted": _mean(o.never_inserted for o in outcomes),
        "stops": _mean(o.stops for o in outcomes),
        "side_p95_s": _mean(o.side_p95_s for o in outcomes),
        "pedestrian_p95_s": _mean(o.pedestrian_p95_s for o in outcomes),
        "gridlocked": sum(o.gridlocked for o in outcomes),
        "refusals": sum(len(o.refusals) for o in outcomes),
        "runs": [
            {"seed": o.seed, "mean_delay_s": round(o.mean_delay_s, 2), "arrived": o.arrived}
            for o in outcomes
        ],
    }


def _mean(values: Iterator[float]) -> float:
    return round(float(np.mean(list(values))), 2)


def _retimed(
    scenario: Scenario, found: Sequence[Junction], degraded: Degraded | None
) -> list[Junction]:
    """Local plans timed for the flows of one run of the shipped ones, with a seed of its own."""
    work = [(replace(scenario), "shipped", 1_000, degraded, found)]
    measured = next(_processes(work, 1))
    hours = (scenario.end_s - scenario.begin_s) / 3600
    flows = {turn: count / hours for turn, count in measured.turns.items()}
    return webster.retimed(found, flows)


def _processes(work: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of the work; each run has a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        yield from pool.map(_one, work)


def _one(task: tuple[Scenario, str, int, Degraded | None, Sequence[Junction]]) -> Outcome:
    scenario, controller, seed, degraded, found = task
    return run(scenario, controller, seed, degraded, found)


def named(
    net: str | None,
    routes: str | None,
    additional: str,
    config: Path | None,
    demand: int,
    folder: Path,
) -> Scenario:
    """The scenario that a command line names; an hour from its first departure on, unless a
    configuration says otherwise. folder: where the built-in city's demand is written.

    Raises UsageError for options that do not go together.
    """
    if config is not None:
        if net is not None or routes is not None:
            raise UsageError("--sumocfg: give this, or --net and --routes, not both")
        return sumocfg(config)
    if net == "adlershof":
        from citybrain.edge.world.bench_demand import adlershof

        return adlershof(demand, folder)
    if net is None or routes is None:
        raise UsageError("--net: give a network with --routes, adlershof, or --sumocfg")
    files = _files(Path(), routes)
    present(Path(net), *files)
    begin = _first_departure(files)
    return Scenario(
        net=Path(net), routes=files, additional=_files(Path(), additional),
        begin_s=begin, end_s=begin + 3600,
    )  # fmt: skip


def lasting(scenario: Scenario, begin: int | None, end: int | None, scale: float) -> Scenario:
    """The scenario from and to other simulated seconds (None: as long as it is), with `scale`
    times its demand. Raises UsageError for an end that is not after the beginning."""
    first = scenario.begin_s if begin is None else begin
    last = end if end is not None else first + scenario.end_s - scenario.begin_s
    if last <= first:
        raise UsageError(f"--end: {last} is not after --begin {first}")
    return replace(scenario, begin_s=first, end_s=last, scale=scale)


def present(*files: Path) -> None:
    """Raises UsageError naming the first of these files that is not there."""
    for path in files:
        if not path.is_file():
            raise UsageError(f"{path}: no such file")


def _first_departure(files: Sequence[Path]) -> int:
    """Second of the first vehicle or flow of route files; 0 if none says."""
    found = []
    for path in files:
        try:
            for _, element in ET.iterparse(path):
                told = element.get("depart") or element.get("begin")
                if element.tag in ("vehicle", "trip", "flow") and told:
                    found.append(_second(told))
                element.clear()
        except (ET.ParseError, OSError) as error:
            raise UsageError(f"--routes: {path}: {error}") from error
    return int(min(found, default=0.0))


def _second(told: str) -> float:
    """SUMO's time: seconds, or [days:]hours:minutes:seconds; words ("triggered") count as 0."""
    try:
        parts = [float(part) for part in told.split(":")]
    except ValueError:
        return 0.0
    weights = (1.0, 60.0, 3_600.0, 86_400.0)
    return sum(part * weight for part, weight in zip(reversed(parts), weights, strict=False))


def sumocfg(path: Path) -> Scenario:
    """The scenario that a SUMO configuration names, with its times (an hour if it has none).

    Raises UsageError if the file is not one or lacks a network or routes.
    """
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, OSError) as error:
        raise UsageError(f"--sumocfg: {path}: {error}") from error
    told = {element.tag: element.get("value", "") for element in root.iter()}
    for needed in ("net-file", "route-files"):
        if not told.get(needed):
            raise UsageError(f"--sumocfg: {path}: no {needed} in it")
    begin = int(float(told.get("begin", "0")))
    return Scenario(
        net=path.parent / told["net-file"],
        routes=_files(path.parent, told["route-files"]),
        additional=_files(path.parent, told.get("additional-files", "")),
        begin_s=begin,
        end_s=int(float(told.get("end", begin + 3600))),
    )


def _files(folder: Path, told: str) -> tuple[Path, ...]:
    return tuple(folder / name.strip() for name in told.replace(" ", ",").split(",") if name)
