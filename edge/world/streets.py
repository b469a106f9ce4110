"""The streets: the only module that drives the simulator (libsumo, one in a process).

SUMO's clock is seconds since `EPOCH_S`, so that a moment has the same number in every run and
a saved state fits wherever it is taken up again.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import msgspec
import numpy as np

from citybrain.edge.world.air import Traffic
from citybrain.edge.world.demand import Trip
from citybrain.edge.world.faults import Reading
from citybrain.edge.world.network import network_file
from citybrain.edge.world.plan import Plan
from citybrain.edge.world.schedule import Event

EPOCH_S = 1_767_225_600
"""2026-01-01 00:00 UTC."""

INTERVAL_S = 10
NEAR_M = 200.0
# The opposite of a gridlock that lasts for ever; a crash keeps its queue shorter than this.
STANDSTILL_S = 900
BUS_DWELL_S = 15.0
# Where the second car of a crash stands, so that the loop behind them feels the queue.
CRASH_AHEAD_M = 14.0
CRASH_PATIENCE_S = 8
CREEP_M_S = 3.5


class StreetsMemory(msgspec.Struct):
    """What SUMO does not keep in its state.

    crashed: event -> the car that it stopped. sent: cars sent into a crash. slowed: until
    which second the speed limits of lanes are lowered, and what they were. on: walkers on
    each counted crossing; walked: how many came onto it since the last reading.
    """

    crashed: dict[str, str] = {}
    sent: list[str] = []
    slowed: list[tuple[int, dict[str, float]]] = []
    on: dict[str, set[str]] = {}
    walked: dict[str, int] = {}


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

    def __init__(self, plan: Plan, seed: int, second: int, state: Path | None = None) -> None:
        """Start at a UTC second (a multiple of 10), or take up a state saved at that second."""
        self._plan = plan
        self._ways: dict[tuple[str, str, str], str | tuple[str, ...]] = {}
        self._loops = [(s, d) for s, d in plan.sensors.items() if d.lane]
        self._counters = [(s, d) for s, d in plan.sensors.items() if d.edge.startswith(":")]
        self._stations = [(s, d) for s, d in plan.sensors.items() if d.edge and d.edge[0] != ":"]
        counters = [s for s, _ in self._counters]
        self.memory = StreetsMemory(
            on={s: set() for s in counters}, walked=dict.fromkeys(counters, 0)
        )
        self.totals = Totals()
        self.traffic = Traffic.none(len(self._stations))
        self._start(seed, second, state)
        self._number = second * 1000
        self._around = self._edges_around()

    def _start(self, seed: int, second: int, state: Path | None) -> None:
        network = network_file()
        import libsumo

        self._sumo: Any = libsumo
        with tempfile.TemporaryDirectory() as folder:
            extra = Path(folder) / "loops.add.xml"
            extra.write_text(_loops_file(self._loops), encoding="utf-8")
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
    def second(self) -> int:
        """The UTC second that has been reached."""
        return int(self._sumo.simulation.getTime()) + EPOCH_S

    def step(self, trips: Iterable[Trip], buses: bool = False) -> None:
        """Let these set out, and a second pass. buses: a bus sets out on every line."""
        for trip in trips:
            self._set_out(trip)
        if buses:
            self._buses()
        if self.memory.slowed:
            self._speed_up()
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

    def crash(self, event: Event) -> bool:
        """Stop a car that comes along the event's lane; whether one has been caught by now."""
        if event.id in self.memory.crashed:
            return True
        sumo = self._sumo
        spot = event.pos_m + CRASH_AHEAD_M
        length = sumo.lane.getLength(event.lane)
        spot = min(spot, length - 2.0)
        number = int(event.lane.rpartition("_")[2])
        for vehicle in reversed(sumo.lane.getLastStepVehicleIDs(event.lane)):
            speed = sumo.vehicle.getSpeed(vehicle)
            room = spot - sumo.vehicle.getLanePosition(vehicle)
            if room < speed**2 / 8 + 1 or sumo.vehicle.getStops(vehicle, 1):
                continue
            left = event.to_ms / 1000 - self.second
            sumo.vehicle.setStop(vehicle, event.link, spot, number, max(1.0, left))
            self.memory.crashed[event.id] = vehicle
            self._slow_down(event)
            return True
        if self.second - event.from_ms // 1000 >= CRASH_PATIENCE_S:
            self._send_into(event, number)
        return False

    def _slow_down(self, event: Event) -> None:
        """Past a crash everybody creeps, on the open lanes too, until it is cleared away."""
        lanes = [f"{event.link}_{n}" for n in range(self._sumo.edge.getLaneNumber(event.link))]
        usual = {lane: self._sumo.lane.getMaxSpeed(lane) for lane in lanes}
        self._creep(usual)
        self.memory.slowed.append((event.to_ms // 1000, usual))

    def _creep(self, usual: dict[str, float]) -> None:
        for lane, speed in usual.items():
            self._sumo.lane.setMaxSpeed(lane, min(CREEP_M_S, speed))

    def recall(self, memory: StreetsMemory) -> None:
        """Take up what a saved state lacks."""
        self.memory = memory
        for _, usual in memory.slowed:
            self._creep(usual)

    def _speed_up(self) -> None:
        for over, usual in [s for s in self.memory.slowed if s[0] <= self.second]:
            for lane, speed in usual.items():
                self._sumo.lane.setMaxSpeed(lane, speed)
            self.memory.slowed.remove((over, usual))

    def _send_into(self, event: Event, lane: int) -> None:
        """At night nobody may come by for long: let a car set out just behind the spot."""
        name = f"late-{event.id}"
        if name in self.memory.sent:
            return
        ends = zip(self._plan.exits.edges, self._plan.exits.weights, strict=True)
        for exit_, _ in sorted(ends, key=lambda end: -end[1]):
            edges = self._sumo.simulation.findRoute(event.link, exit_).edges
            if edges:
                self._sumo.route.add(f"{self._prefix}:{name}", list(edges))
                self._sumo.vehicle.add(
                    name, f"{self._prefix}:{name}", "car", departLane=str(lane),
                    departPos=str(max(5.0, event.pos_m - 20.0)), departSpeed="0",
                )  # fmt: skip
                self.memory.sent.append(name)
                return

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


def _loops_file(loops: Sequence[tuple[str, Any]]) -> str:
    """SUMO's additional file: the loops, and what kinds of vehicles there are."""
    lines = ["<additional>"]
    for name, facts in (
        ("car", 'vClass="passenger" speedDev="0.1" emissionClass="HBEFA3/PC_G_EU4"'),
        ("truck", 'vClass="truck" speedDev="0.05" emissionClass="HBEFA3/HDV_D_EU4"'),
        ("bus", 'vClass="bus" emissionClass="HBEFA3/Bus"'),
    ):
        lines.append(f'<vType id="{name}" {facts}/>')
    for sensor, device in loops:
        lines.append(
            f"<inductionLoop id={quoteattr(sensor)} lane={quoteattr(device.lane)}"
            f' pos="{device.pos_m}" period="{INTERVAL_S}" file="NUL"/>'
        )
    return "\n".join([*lines, "</additional>"])
