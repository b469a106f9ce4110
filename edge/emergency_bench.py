"""Emergency trips on any SUMO scenario: obeying signals, with priority, on an empty road.

The decision code is the one that runs in a city: the requests of `models.emergency.ahead`, the
rules of `models.signals.preempt`, the city's signal controller, sequencer and interlock. Each
run is a process of its own.
"""

import multiprocessing
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from citybrain.edge import junctions
from citybrain.edge.bench import present
from citybrain.edge.closed_loop import Scenario, run
from citybrain.edge.emergency_trips import Trip, choose, network_roads
from citybrain.edge.escort import Escort, prepare, set_out
from citybrain.edge.outcome import percentile
from citybrain.edge.world.network import sumo_home
from citybrain.errors import UsageError
from citybrain.models.routing import Roads
from citybrain.priority import PriorityStatus
from citybrain.signals import Junction

MODES = ("obeys", "priority")
_EMPTY_S = 3_600


@dataclass(slots=True)
class Drive:
    """One run. times: trip -> s; others_s: everybody else's mean trip, with waits to set out."""

    mode: str
    seed: int
    times: dict[str, float]
    arrived: int
    others_s: float
    gridlocked: bool
    refusals: int
    statuses: list[PriorityStatus] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """All runs, and seconds of each trip on an empty road, by (seed, trip)."""

    controller: str
    drives: list[Drive]
    empty_s: dict[str, float]
    trips: list[Trip]


def bench(
    scenario: Scenario,
    controller: str,
    seeds: Sequence[int],
    count: int = 10,
    jobs: int = 1,
    progress: Callable[[Drive], None] | None = None,
) -> Result:
    """Run all of it. Raises UsageError for files that are not there or demand without signals,
    PackError for a network that cannot be read.
    """
    present(scenario.net, *scenario.routes, *scenario.additional)
    found = junctions.read(scenario.net, scenario.additional)
    if not found:
        raise UsageError(f"{scenario.net}: no road signal with something to decide")
    roads = network_roads(scenario.net)
    first = choose(scenario, roads, found, count, seeds[0])
    work = [
        (scenario, controller, seed, mode, found, roads, count) for seed in seeds for mode in MODES
    ]
    drives = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        empty = pool.submit(_empty, scenario, first)
        for drive in pool.map(_one, work):
            drives.append(drive)
            if progress is not None:
                progress(drive)
    return Result(controller, drives, empty.result(), first)


def summary(result: Result) -> dict[str, Any]:
    """What `emergency bench --json` prints; `share` is of what an empty road would save."""
    by_mode = {mode: [d for d in result.drives if d.mode == mode] for mode in MODES}
    obeys, priority = by_mode["obeys"], by_mode["priority"]
    times = {mode: [t for d in rows for t in d.times.values()] for mode, rows in by_mode.items()}
    means = {mode: _mean(values) for mode, values in times.items()}
    empty = _mean(list(result.empty_s.values()))
    could = means["obeys"] - empty
    others = [(a.others_s, b.others_s) for a, b in zip(obeys, priority, strict=True)]
    costs = [100 * (b - a) / a for a, b in others if a]
    early = [
        status.early_ms / 1000
        for drive in priority
        for status in drive.statuses
        if status.state == "active" and status.early_ms is not None
    ]
    states: dict[str, int] = {}
    for drive in priority:
        for status in drive.statuses:
            states[status.state] = states.get(status.state, 0) + 1
    recoveries = [r for drive in priority for r in drive.recoveries_s]
    return {
        "controller": result.controller,
        "trips": len(result.trips),
        "signals_per_trip": _mean([trip.signals for trip in result.trips]),
        "obeys_s": means["obeys"],
        "priority_s": means["priority"],
        "empty_s": empty,
        "share": round((means["obeys"] - means["priority"]) / could, 3) if could > 0 else None,
        "p95_s": {mode: round(percentile(values), 1) for mode, values in times.items()},
        "arrived": {mode: sum(d.arrived for d in rows) for mode, rows in by_mode.items()},
        "others_obeys_s": _mean([a for a, _ in others]),
        "others_priority_s": _mean([b for _, b in others]),
        "others_percent": _mean(costs),
        "others_half_percent": _half(costs),
        "early_s": {"median": round(percentile(early, 50), 1), "p95": round(percentile(early), 1)},
        "recovery_s": {"median": round(percentile(recoveries, 50), 1),
                       "p95": round(percentile(recoveries), 1)},
        "requests": states,
        "gridlocked": {mode: sum(d.gridlocked for d in rows) for mode, rows in by_mode.items()},
        "refusals": sum(d.refusals for d in result.drives),
        "runs": [
            {"seed": d.seed, "mode": d.mode, "trip_s": _mean(list(d.times.values())),
             "others_s": round(d.others_s, 2)}
            for d in result.drives
        ],
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 2) if len(values) else 0.0


def _half(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of a mean (normal approximation), None for one value."""
    if len(values) < 2:
        return None
    return round(float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5), 2)


def _one(
    task: tuple[Scenario, str, int, str, Sequence[Junction], Roads, int],
) -> Drive:
    scenario, controller, seed, mode, found, roads, count = task
    trips = choose(scenario, roads, found, count, seed)
    escort = Escort(trips, roads, found, priority=mode == "priority")
    outcome = run(scenario, controller, seed, found=found, guest=escort)
    return Drive(
        mode=mode, seed=seed, times=escort.times, arrived=len(escort.arrived),
        others_s=escort.others_s, gridlocked=outcome.gridlocked, refusals=len(outcome.refusals),
        statuses=escort.statuses, recoveries_s=escort.recoveries_s,
    )  # fmt: skip


def _empty(scenario: Scenario, trips: Sequence[Trip]) -> dict[str, float]:
    """Seconds of each trip alone on the network, past every light and right of way."""
    sumo_home()
    import libsumo as sumo
    import sumolib

    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "trips.xml"
        sumo.start([sumolib.checkBinary("sumo"), "-n", str(scenario.net), "--no-step-log",
                    "--no-warnings", "--xml-validation", "never",
                    "--tripinfo-output", str(told)])  # fmt: skip
        try:
            prepare(sumo, trips)
            for trip in trips:
                set_out(sumo, trip)
                sumo.vehicle.setSpeedMode(trip.name, 0b0111)
                begun = sumo.simulation.getTime()
                while trip.name not in sumo.simulation.getArrivedIDList():
                    sumo.simulationStep()
                    if sumo.simulation.getTime() - begun > _EMPTY_S:
                        raise UsageError(f"{trip.name}: does not arrive on an empty road")
        finally:
            sumo.close()
        found = ET.parse(told).iter("tripinfo")
        return {str(one.get("id")): float(one.get("duration", 0)) for one in found}
