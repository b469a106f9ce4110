"""Crashes: a car stands on its lane, the others creep past, until it is cleared away."""

from typing import Any

import msgspec

from citybrain.edge.world.demand import Ends
from citybrain.edge.world.schedule import Event

# Where the car stands, ahead of the event's place, so that a loop there feels the queue.
AHEAD_M = 14.0
PATIENCE_S = 8
CREEP_M_S = 3.5
BRAKE_M_S2 = 4.0


class CrashMemory(msgspec.Struct):
    """What the simulator's own state does not keep.

    crashed: event -> the car that it stopped. sent: events that a car was sent into. slowed:
    until which second the speed limits of lanes are lowered, and what they were.
    """

    crashed: dict[str, str] = {}
    sent: list[str] = []
    slowed: list[tuple[int, dict[str, float]]] = []


class Crashes:
    """The crashes of a running simulation. exits: where cars leave the city."""

    def __init__(self, sumo: Any, exits: Ends) -> None:
        self._sumo, self._exits = sumo, exits
        self.memory = CrashMemory()

    def happen(self, event: Event, second: int) -> bool:
        """Stop a car that comes along the event's lane; whether one has been caught by now."""
        if event.id in self.memory.crashed:
            return True
        lane, vehicles = self._sumo.lane, self._sumo.vehicle
        spot = min(event.pos_m + AHEAD_M, lane.getLength(event.lane) - 2.0)
        number = int(event.lane.rpartition("_")[2])
        for car in reversed(lane.getLastStepVehicleIDs(event.lane)):
            needed = vehicles.getSpeed(car) ** 2 / (2 * BRAKE_M_S2) + 1
            if spot - vehicles.getLanePosition(car) < needed or vehicles.getStops(car, 1):
                continue
            left = event.to_ms / 1000 - second
            vehicles.setStop(car, event.link, spot, number, max(1.0, left))
            self.memory.crashed[event.id] = car
            self._slow_down(event)
            return True
        if second - event.from_ms // 1000 >= PATIENCE_S and event.id not in self.memory.sent:
            self._send_into(event, number)
        return False

    def clear(self, second: int) -> None:
        """Let cars go at their usual speed again where a crash is over."""
        for over, usual in [s for s in self.memory.slowed if s[0] <= second]:
            for lane, speed in usual.items():
                self._sumo.lane.setMaxSpeed(lane, speed)
            self.memory.slowed.remove((over, usual))

    def recall(self, memory: CrashMemory) -> None:
        """Take up what a saved state lacks."""
        self.memory = memory
        for _, usual in memory.slowed:
            self._creep(usual)

    def _slow_down(self, event: Event) -> None:
        lanes = [f"{event.link}_{n}" for n in range(self._sumo.edge.getLaneNumber(event.link))]
        usual = {lane: self._sumo.lane.getMaxSpeed(lane) for lane in lanes}
        self._creep(usual)
        self.memory.slowed.append((event.to_ms // 1000, usual))

    def _creep(self, usual: dict[str, float]) -> None:
        for lane, speed in usual.items():
            self._sumo.lane.setMaxSpeed(lane, min(CREEP_M_S, speed))

    def _send_into(self, event: Event, lane: int) -> None:
        """At night nobody may come by for long: let a car set out just behind the spot."""
        ends = sorted(zip(self._exits.weights, self._exits.edges, strict=True), reverse=True)
        for _, end in ends:
            edges = self._sumo.simulation.findRoute(event.link, end).edges
            if edges:
                name = f"late-{event.id}"
                self._sumo.route.add(name, list(edges))
                self._sumo.vehicle.add(
                    name, name, "car", departLane=str(lane), departSpeed="0",
                    departPos=str(max(5.0, event.pos_m - 20.0)),
                )  # fmt: skip
                self.memory.sent.append(event.id)
                return
