"""Emergency vehicles in a simulated run, and the greens that are asked for them.

They keep the speed limit, and red lights, as everybody else; SUMO's blue-light device, with
which they would run red lights and others make room, is left off, so that what is measured
comes from the signals. Their positions are as old as telemetry is.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from citybrain.edge.closed_loop import Loop
from citybrain.edge.emergency_trips import Trip
from citybrain.models.emergency.ahead import Asker, Signals, requests
from citybrain.models.routing import Roads
from citybrain.models.signals.base import Decision
from citybrain.models.signals.preempt import Preempt
from citybrain.models.signals.site import Site
from citybrain.priority import PriorityStatus
from citybrain.signal_log import PriorityRequest
from citybrain.signals import Junction

POSITION_EVERY_S, POSITION_AGE_S = 2, 2
TURNOUT_S = 30
"""From the order to the first metre (NFPA 1710 allows a crew 60 to 80 s): greens are asked for
from the order on."""
TYPE = "citybrain-emergency"


class Escort:
    """The trips of one run. priority: whether greens are asked for. Times in s.

    times: trip -> from setting out to arrival; those that have not arrived count until the end.
    """

    def __init__(
        self, trips: Sequence[Trip], roads: Roads, junctions: Sequence[Junction], priority: bool
    ) -> None:
        self._trips = sorted(trips, key=lambda trip: trip.second)
        self._roads = roads
        self._signals = Signals({junction.id: junction for junction in junctions})
        self._preempts = {j.id: Preempt(j) for j in junctions} if priority else {}
        self._asked: dict[str, dict[str, PriorityRequest]] = {}
        self._due: list[tuple[int, dict[str, PriorityRequest], str]] = []
        self._sumo: Any = None
        self._loops: Mapping[str, Loop] = {}
        self._recovering: dict[str, int] = {}
        self.statuses: list[PriorityStatus] = []
        self.recoveries_s: list[float] = []
        """From the end of a priority until the junction showed its local plan's stage again."""
        self.times: dict[str, float] = {}
        self.arrived: set[str] = set()
        self.others_s: float = 0.0

    def begin(self, sumo: Any, loops: Mapping[str, Loop]) -> None:
        """Make the vehicles' type and routes known; stand before each junction's controller."""
        self._sumo, self._loops = sumo, loops
        prepare(sumo, self._trips)
        for name, preempt in self._preempts.items():
            loops[name].give_way(self._first(name, preempt))

    def step(self, now_s: int) -> None:
        """Let vehicles set out; what they say of their place arrives a little later."""
        for trip in self._trips:
            if trip.second == now_s:
                set_out(self._sumo, trip)
        if not self._preempts:
            return
        if now_s % POSITION_EVERY_S == 0:
            running = set(self._sumo.vehicle.getIDList())
            for trip in self._trips:
                waits = trip.second - TURNOUT_S <= now_s <= trip.second
                if waits or trip.name in running or trip.name in self._asked:
                    asked: dict[str, PriorityRequest] = {}
                    if waits or trip.name in running:
                        asked = self._ask(trip, now_s)
                    self._due.append((now_s + POSITION_AGE_S, asked, trip.name))
        while self._due and self._due[0][0] <= now_s:
            _, asked, name = self._due.pop(0)
            self._tell(now_s * 1000, asked, name)

    def end(self, trips: Path) -> None:
        """Read how long everybody took."""
        others = []
        for _, element in ET.iterparse(trips):
            if element.tag != "tripinfo":
                continue
            took = float(element.get("duration", 0)) + max(
                0.0, float(element.get("departDelay", 0))
            )
            name = str(element.get("id"))
            if name in {trip.name for trip in self._trips}:
                self.times[name] = took
                if float(element.get("arrival", -1)) >= 0:
                    self.arrived.add(name)
            else:
                others.append(took)
            element.clear()
        self.others_s = sum(others) / max(1, len(others))

    def _ask(self, trip: Trip, now_s: int) -> dict[str, PriorityRequest]:
        vehicle = self._sumo.vehicle
        asker = Asker(trip.name, trip.name, 1)
        if trip.second >= now_s:
            return requests(
                asker, trip.route, self._signals, self._roads, 0.0, now_s * 1000,
                trip.second * 1000,
            )  # fmt: skip
        index = vehicle.getRouteIndex(trip.name)
        if index < 0:
            return {}
        inside = vehicle.getRoadID(trip.name).startswith(":")
        # Inside a junction it has passed the stop line of the link that it comes from.
        route = trip.route[index + inside :]
        if len(route) < 2:
            return {}
        pos_m = 0.0 if inside else vehicle.getLanePosition(trip.name)
        return requests(asker, route, self._signals, self._roads, pos_m, now_s * 1000)

    def _tell(self, now_ms: int, asked: dict[str, PriorityRequest], name: str) -> None:
        from msgspec.structs import replace

        before = self._asked.get(name, {})
        gone = [
            replace(before[key], cancelled=True, issued_ms=now_ms)
            for key in before.keys() - asked.keys()
        ]
        for request in [*gone, *asked.values()]:
            told = self._preempts[request.junction].take(now_ms, request)
            self._note(told)
        if asked:
            self._asked[name] = asked
        else:
            self._asked.pop(name, None)

    def _first(self, name: str, preempt: Preempt) -> Callable[[int, Site], Decision | None]:
        def first(now_ms: int, site: Site) -> Decision | None:
            decision, told = preempt.decide(now_ms, site)
            self._note(told)
            since = self._recovering.get(name)
            if decision is None and since is not None:
                loop = self._loops[name]
                shown = site.shown
                if shown and shown.stage_ms >= 0 and shown.stage == loop.local.at(now_ms).stage:
                    self.recoveries_s.append((now_ms - self._recovering.pop(name)) / 1000)
            if decision is not None:
                self._recovering[name] = now_ms
            return decision

        return first

    def _note(self, told: list[PriorityStatus]) -> None:
        self.statuses += told


def prepare(sumo: Any, trips: Sequence[Trip]) -> None:
    """The type and routes of the vehicles. Their drivers neither dawdle nor speed."""
    sumo.vehicletype.copy("DEFAULT_VEHTYPE", TYPE)
    sumo.vehicletype.setVehicleClass(TYPE, "emergency")
    sumo.vehicletype.setImperfection(TYPE, 0.0)
    sumo.vehicletype.setSpeedFactor(TYPE, 1.0)
    sumo.vehicletype.setSpeedDeviation(TYPE, 0.0)
    sumo.vehicletype.setLength(TYPE, 6.5)
    # No navigation leads them elsewhere than where their greens are asked for.
    sumo.vehicletype.setParameter(TYPE, "has.rerouting.device", "false")
    for trip in trips:
        sumo.route.add(trip.name, list(trip.route))


def set_out(sumo: Any, trip: Trip) -> None:
    """A vehicle leaves as soon as there is room for it."""
    sumo.vehicle.add(trip.name, trip.name, TYPE, departLane="best", departSpeed="max")
