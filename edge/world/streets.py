"""The streets: the only module that drives the simulator (libsumo, one in a process).

SUMO's clock is seconds since `EPOCH_S`, so that a moment has the same number in every run and
a saved state fits wherever it is taken up again.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from citybrain.edge.world.air import Traffic
from citybrain.edge.world.crashes import Crashes
from citybrain.edge.world.demand import Trip
from citybrain.edge.world.faults import Reading
from citybrain.edge.world.fleet import VEHICLE_TYPE
from citybrain.edge.world.memory import StreetsMemory
from citybrain.edge.world.network import network_file
from citybrain.edge.world.plan import Plan
from citybrain.signals import Area, Control, Junction

EPOCH_S = 1_767_225_600
"""2026-01-01 00:00 UTC."""

INTERVAL_S = 10
NO_JUNCTIONS: Mapping[str, Junction] = MappingProxyType({})
NEAR_M = 200.0
# The opposite of a gridlock that lasts for ever; a crash keeps its queue shorter than this.
STANDSTILL_S = 900
BUS_DWELL_S = 15.0


@dataclass(slots=True)
class Totals:
    """Vehicles now, and since the start, for metrics. no_way: trips without a route."""

    running: int = 0
    departed: int = 0
    arrived: int = 0
    teleported: int = 0
    no_way: int = 0


class Streets:
    """A running simulation. Close it before another one starts in this process."""

    def __init__(
        self,
        plan: Plan,
        seed: int,
        second: int,
        state: Path | None = None,
        junctions: Mapping[str, Junction] = NO_JUNCTIONS,
        control: Control | None = None,
    ) -> None:
        """Start at a UTC second (a multiple of 10), or take up a state saved at that second.

        junctions: those whose detectors somebody wants to read; with their control.
        """
        self._plan = plan
        self._areas = [area for junction in junctions.values() for area in junction.areas]
        self._control = control or Control()
        self._ways: dict[tuple[str, str, str], str | tuple[str, ...]] = {}
        self._loops = [(s, d) for s, d in plan.sensors.items() if d.lane]
        self._counters = [(s, d) for s, d in plan.sensors.items() if d.edge.startswith(":")]
        self._stations = [(s, d) for s, d in plan.sensors.items() if d.edge and d.edge[0] != ":"]
        self.totals = Totals()
        self.traffic = Traffic.none(len(self._stations))
        self._start(seed, second, state)
        self.crashes = Crashes(self._sumo, plan.exits)
        counters = [s for s, _ in self._counters]
        self.memory = StreetsMemory(
            self.crashes.memory, {s: set() for s in counters}, dict.fromkeys(counters, 0)
        )
        self._number = second * 1000
        self._around = self._edges_around()

    def _start(self, seed: int, second: int, state: Path | None) -> None:
        network = network_file()
        import libsumo

        self._sumo: Any = libsumo
        with tempfile.TemporaryDirectory() as folder:
            extra = Path(folder) / "loops.add.xml"
            extra.write_text(_loops_file(self._loops, self._areas, self._control), encoding="utf-8")
            options = [
                "sumo", "-n", str(network), "-a", str(extra), "--begin", str(second - EPOCH_S),
                "--seed", str(seed % 2**31), "--no-step-log", "--no-warnings",
                "--time-to-teleport", str(STANDSTILL_S),
                "--device.rerouting.probability", "0.7", "--device.rerouting.period", "120",
                "--save-state.transportables", "--save-state.rng", "--save-state.constraints",
                "--pedestrian.model", "striping",
            ]  # fmt: skip
            if state is not None:
                options += ["--load-state", str(state)]
            libsumo.start(options)
        self._prefix = f"w{second}"

    @property
    def sumo(self) -> Any:
        """The simulation itself, for those who look at it or drive its lamps."""
        return self._sumo

    @property
    def second(self) -> int:
        """The UTC second that has been reached."""
        return int(self._sumo.simulation.getTime()) + EPOCH_S

    def step(self, trips: Iterable[Trip], buses: bool = False) -> None:
        """Let these set out, and a second pass. buses: a bus sets out on every line."""
        for trip in trips:
            self._set_out(trip)
        if buses:
            self._buses()
        self.crashes.clear(self.second)
        sumo = self._sumo
        sumo.simulationStep()
        self.totals.departed += sumo.simulation.getDepartedNumber()
        self.totals.running = sumo.vehicle.getIDCount()
        self.totals.arrived += sumo.simulation.getArrivedNumber()
        self.totals.teleported += sumo.simulation.getStartingTeleportNumber()
        for sensor, device in self._counters:
            here = set(sumo.edge.getLastStepPersonIDs(device.edge))
            self.memory.walked[sensor] += len(here - self.memory.on[sensor])
            self.memory.on[sensor] = here

    def readings(self) -> list[Reading]:
        """What loops and counters report of the 10 s that have just ended.

        No speed when nothing passed. Occupancy in percent, speed in km/h.
        """
        time_ms = self.second * 1000
        loop = self._sumo.inductionloop
        out: list[Reading] = []
        for sensor, _ in self._loops:
            count = loop.getLastIntervalVehicleNumber(sensor)
            occupied = round(loop.getLastIntervalOccupancy(sensor), 2)
            out.append((sensor, "vehicle_count", time_ms, float(count)))
            out.append((sensor, "occupancy", time_ms, min(100.0, max(0.0, occupied))))
            speed = loop.getLastIntervalMeanSpeed(sensor) if count else -1.0
            if speed >= 0:
                out.append((sensor, "vehicle_speed", time_ms, round(speed * 3.6, 1)))
        for sensor in self.memory.walked:
            out.append((sensor, "pedestrian_count", time_ms, float(self.memory.walked[sensor])))
            self.memory.walked[sensor] = 0
        return out

    def smell_and_listen(self, seconds: float) -> None:
        """Add what cars near the air stations emit now, taken as lasting for `seconds`."""
        edge, traffic = self._sumo.edge, self.traffic
        for i, (near, weight) in enumerate(self._around):
            for name, share in zip(near, weight, strict=True):
                if edge.getLastStepVehicleNumber(name) == 0:
                    continue
                traffic.nox[i] += edge.getNOxEmission(name) * seconds
                traffic.pm[i] += edge.getPMxEmission(name) * seconds
                traffic.co[i] += edge.getCOEmission(name) * seconds
                traffic.energy[i] += share * 10 ** (edge.getNoiseEmission(name) / 10)
        traffic.samples += 1

    def box_lengths(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Metres of street around each air station."""
        lane = self._sumo.lane
        return np.array([sum(lane.getLength(f"{e}_0") for e in near) for near, _ in self._around])

    def recall(self, memory: StreetsMemory) -> None:
        """Take up what a saved state lacks."""
        self.memory = memory
        self.crashes.recall(memory.crashes)

    def save(self, path: Path) -> None:
        """Save everything, whole or not at all; `path` ends in .xml.gz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name("draft-" + path.name)
        self._sumo.simulation.saveState(str(draft))
        draft.replace(path)

    def close(self) -> None:
        """End the simulation."""
        self._sumo.close()

    def _set_out(self, trip: Trip) -> None:
        way = self._way(trip)
        if not way:
            self.totals.no_way += 1
            return
        self._number += 1
        name = f"{trip.mode}{self._number}"
        if trip.mode == "walk":
            self._sumo.person.add(name, trip.origin, 0.0)
            self._sumo.person.appendWalkingStage(name, list(way), -1)
        else:
            self._sumo.vehicle.add(name, way, trip.mode, departLane="best", departSpeed="max")

    def _way(self, trip: Trip) -> str | tuple[str, ...]:
        """A route's name for vehicles, edges for walkers; empty if there is no way."""
        key = ("walk" if trip.mode == "walk" else "car", trip.origin, trip.destination)
        if key not in self._ways:
            simulation = self._sumo.simulation
            if trip.mode == "walk":
                stages = simulation.findIntermodalRoute(trip.origin, trip.destination)
                self._ways[key] = tuple(e for stage in stages for e in stage.edges)
            else:
                edges = simulation.findRoute(trip.origin, trip.destination).edges
                name = f"{self._prefix}:{trip.origin}>{trip.destination}" if edges else ""
                if edges:
                    self._sumo.route.add(name, list(edges))
                self._ways[key] = name
        return self._ways[key]

    def _buses(self) -> None:
        for bus in self._plan.buses:
            route = f"{self._prefix}:{bus.name}"
            if ("bus", bus.name, "") not in self._ways:
                self._sumo.route.add(route, bus.edges)
                self._ways["bus", bus.name, ""] = route
            self._number += 1
            name = f"{bus.name}-{self._number}"
            self._sumo.vehicle.add(name, route, "bus", departLane="best", departSpeed="max")
            for edge in bus.stops:
                lane = next(
                    n
                    for n in range(self._sumo.edge.getLaneNumber(edge))
                    if "pedestrian" not in self._sumo.lane.getAllowed(f"{edge}_{n}")
                )
                end = self._sumo.lane.getLength(f"{edge}_{lane}") - 5
                self._sumo.vehicle.setStop(name, edge, end, lane, BUS_DWELL_S)

    def _edges_around(self) -> list[tuple[list[str], list[float]]]:
        """Edges near each air station, with the share of their noise that arrives there."""
        around = []
        for _, device in self._stations:
            near, weight = [], []
            for edge in self._plan_edges():
                shape = np.array(self._sumo.lane.getShape(f"{edge}_0"))
                apart = float(np.hypot(*(shape - (device.x, device.y)).T).min())
                if apart <= NEAR_M:
                    near.append(edge)
                    # The level is that at 25 m from the edge; cylinder spreading beyond.
                    weight.append(min(1.0, 25.0 / max(apart, 10.0)))
            around.append((near, weight))
        return around

    def _plan_edges(self) -> Sequence[str]:
        edges = self._sumo.edge.getIDList()
        return [e for e in edges if not e.startswith(":") and self._cars(e)]

    def _cars(self, edge: str) -> bool:
        last = self._sumo.edge.getLaneNumber(edge) - 1
        allowed = self._sumo.lane.getAllowed(f"{edge}_{last}")
        return not allowed or "passenger" in allowed


def _loops_file(loops: Sequence[tuple[str, Any]], areas: Sequence[Area], control: Control) -> str:
    """SUMO's additional file: loops, area detectors, and what kinds of vehicles there are."""
    lines = ["<additional>"]
    for name, facts in (
        ("car", 'vClass="passenger" speedDev="0.1" emissionClass="HBEFA3/PC_G_EU4"'),
        ("truck", 'vClass="truck" speedDev="0.05" emissionClass="HBEFA3/HDV_D_EU4"'),
        ("bus", 'vClass="bus" emissionClass="HBEFA3/Bus"'),
    ):
        lines.append(f'<vType id="{name}" {facts}/>')
    lines.append(VEHICLE_TYPE)
    for sensor, device in loops:
        lines.append(
            f"<inductionLoop id={quoteattr(sensor)} lane={quoteattr(device.lane)}"
            f' pos="{device.pos_m}" period="{INTERVAL_S}" file="NUL"/>'
        )
    for area in areas:
        lines.append(
            f"<laneAreaDetector id={quoteattr(area.id)} lane={quoteattr(area.lane)}"
            f' pos="{area.begin_m}" endPos="{area.end_m}" friendlyPos="true"'
            f' period="{control.detectors.interval_s}" file="NUL"/>'
        )
    return "\n".join([*lines, "</additional>"])
