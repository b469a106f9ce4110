"""The responders of a simulated city: vehicles that drive where they are ordered, and crews.

They keep the speed limit and wait at red lights, as the others do; what priority gains comes
from the signals. A crew works at the scene, brings a patient to the hospital, and drives back
to its station; it keys its status (BOS-FMS) and its place goes up every two seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from citybrain.city import City
from citybrain.emergency import Order, Position
from citybrain.emergency_file import Base, Responder
from citybrain.log import get

Doing = Literal["at-base", "driving", "on-scene", "to-hospital", "at-hospital", "returning"]

ON_SCENE_S, AT_HOSPITAL_S = 120, 60
EVERY_S, PARKED_EVERY_S = 2, 10
REMEMBERED = 20
TYPE = "responder"
VEHICLE_TYPE = (
    f'<vType id="{TYPE}" vClass="emergency" length="6.5" sigma="0" speedFactor="1" speedDev="0"'
    ' emissionClass="HBEFA3/LDV_D_EU6"><param key="has.rerouting.device" value="false"/></vType>'
)
_STATUS: dict[Doing, int] = {
    "at-base": 2, "driving": 3, "on-scene": 4, "to-hospital": 7, "at-hospital": 8, "returning": 1,
}  # fmt: skip
_PARKED = 1  # SUMO's flag of a stop beside the road
_NEAR_END_M = 5.0

_log = get(__name__)


@dataclass(slots=True)
class _Unit:
    """One responder. order: the id that it works for. until_s: end of a stop."""

    told: Responder
    base: Base
    doing: Doing = "at-base"
    order: str = ""
    vehicle: str = ""
    goal: tuple[str, float] = ("", 0.0)
    until_s: int = 0
    begun_s: int = 0


class Fleet:
    """All responders of a running simulation. `step` after each of its seconds."""

    def __init__(self, sumo: Any, city: City) -> None:
        self._sumo = sumo
        stations = city.emergency.stations
        self._hospitals = city.emergency.hospital
        self._units = {
            one.id: _Unit(one, stations[one.station]) for one in city.emergency.responders.values()
        }
        self._number = self._second = 0
        self.responses: dict[str, float] = {}
        """Order -> seconds from its arrival here to the responder's arrival at the scene; of
        the latest orders."""
        # A saved simulation may hold vehicles of a fleet that nobody remembers.
        for vehicle in sumo.vehicle.getIDList():
            if sumo.vehicle.getTypeID(vehicle) == TYPE:
                sumo.vehicle.remove(vehicle)

    def take(self, orders: Iterable[Order]) -> None:
        """The latest of each responder's orders, as its terminal shows them."""
        for order in orders:
            unit = self._units.get(order.responder)
            if unit is None:
                continue
            if order.state == "sent" and order.id != unit.order:
                if unit.doing in ("at-base", "returning", "driving"):
                    unit.order, unit.begun_s = order.id, self._second
                    self._drive(unit, order.route, (order.route[-1], order.goal_m), "driving")
            elif order.state == "sent" and unit.doing == "driving":
                self._follow(unit, order.route)
            elif order.id == unit.order and order.ended_ms is not None and unit.doing == "driving":
                unit.order = ""
                self._return(unit)

    def step(self, second: int) -> None:
        """Who has arrived, and who has finished."""
        self._second = second
        there = set(self._sumo.vehicle.getIDList())
        for unit in self._units.values():
            if unit.doing == "at-base":
                continue
            if unit.vehicle not in there:
                # Arrived at the end of its route, or not let in yet.
                if unit.vehicle in self._sumo.simulation.getArrivedIDList():
                    self._park(unit)
                continue
            if unit.doing in ("on-scene", "at-hospital"):
                if second >= unit.until_s:
                    self._go_on(unit)
            elif self._sumo.vehicle.isStopped(unit.vehicle):
                self._arrived(unit, second)

    def positions(self, second: int, at_ms: int) -> list[Position]:
        """What the terminals send at this second."""
        found = []
        for unit in self._units.values():
            if second % (PARKED_EVERY_S if unit.doing == "at-base" else EVERY_S):
                continue
            lon, lat = unit.base.lon, unit.base.lat
            if unit.doing != "at-base":
                try:
                    x, y = self._sumo.vehicle.getPosition(unit.vehicle)
                except self._sumo.TraCIException:
                    continue  # not let in yet: its terminal has nothing new
                if abs(x) > 1e8:  # SUMO's word for nowhere
                    continue
                lon, lat = self._sumo.simulation.convertGeo(x, y)
            found.append(
                Position(responder=unit.told.id, at_ms=at_ms, lon=round(lon, 6),
                         lat=round(lat, 6), status=_STATUS[unit.doing])
            )  # fmt: skip
        return found

    def _arrived(self, unit: _Unit, second: int) -> None:
        if unit.doing == "driving":
            unit.doing, unit.until_s = "on-scene", second + ON_SCENE_S
            self.responses[unit.order] = float(second - unit.begun_s)
            if len(self.responses) > REMEMBERED:
                del self.responses[next(iter(self.responses))]
        elif unit.doing == "to-hospital":
            unit.doing, unit.until_s = "at-hospital", second + AT_HOSPITAL_S
        else:
            self._sumo.vehicle.remove(unit.vehicle)
            self._park(unit)

    def _go_on(self, unit: _Unit) -> None:
        patient = unit.doing == "on-scene" and unit.told.kind == "ambulance" and self._hospitals
        self._sumo.vehicle.resume(unit.vehicle)
        if not patient:
            unit.order = ""
            self._return(unit)
            return
        hospital = self._hospitals[0]
        self._to(unit, hospital.link, hospital.pos_m, "to-hospital")

    def _return(self, unit: _Unit) -> None:
        self._to(unit, unit.base.link, unit.base.pos_m, "returning")

    def _to(self, unit: _Unit, link: str, pos_m: float, doing: Doing) -> None:
        here = self._sumo.vehicle.getRoadID(unit.vehicle)
        if here.startswith(":") or not here:
            here = self._edges(unit)[0]
        edges = self._sumo.simulation.findRoute(here, link, vType=TYPE).edges
        if not edges:
            _log.warning("no way for a responder", responder=unit.told.id, origin=here, goal=link)
            self._sumo.vehicle.remove(unit.vehicle)
            self._park(unit)
            return
        self._drive(unit, edges, (link, pos_m), doing)

    def _drive(
        self, unit: _Unit, route: Iterable[str], goal: tuple[str, float], doing: Doing
    ) -> None:
        vehicle = self._sumo.vehicle
        edges = list(route)
        if not unit.vehicle:
            self._number += 1
            unit.vehicle = f"{TYPE}-{unit.told.id}-{self._number}"
            self._sumo.route.add(unit.vehicle, edges)
            vehicle.add(unit.vehicle, unit.vehicle, TYPE, departLane="best",
                        departPos=str(unit.base.pos_m))  # fmt: skip
        else:
            for _ in vehicle.getStops(unit.vehicle):
                vehicle.replaceStop(unit.vehicle, 0, "")
            self._follow(unit, edges)
        unit.doing, unit.goal = doing, goal
        self._stop_at_goal(unit)

    def _follow(self, unit: _Unit, route: Iterable[str]) -> None:
        """Take this way, from wherever on it the vehicle is by now."""
        edges = list(route)
        left = self._edges(unit)
        if not left or left == edges[edges.index(left[0]) if left[0] in edges else 0 :]:
            return
        if left[0] in edges:
            edges = edges[edges.index(left[0]) :]
        else:
            found = self._sumo.simulation.findRoute(left[0], edges[-1], vType=TYPE).edges
            edges = list(found) or edges
        try:
            self._sumo.vehicle.setRoute(unit.vehicle, edges)
        except self._sumo.TraCIException as error:
            _log.warning("a responder keeps its way", responder=unit.told.id, why=str(error))

    def _stop_at_goal(self, unit: _Unit) -> None:
        link, pos_m = unit.goal
        lane = self._lane(link)
        end = min(max(pos_m, _NEAR_END_M), self._sumo.lane.getLength(f"{link}_{lane}") - 1.0)
        try:
            self._sumo.vehicle.setStop(unit.vehicle, link, end, lane, 3_600.0, _PARKED)
        except self._sumo.TraCIException as error:
            _log.warning("a responder cannot stop there", responder=unit.told.id, why=str(error))

    def _lane(self, link: str) -> int:
        """The rightmost lane that cars may use."""
        for number in range(self._sumo.edge.getLaneNumber(link)):
            allowed = self._sumo.lane.getAllowed(f"{link}_{number}")
            if not allowed or "emergency" in allowed or "passenger" in allowed:
                return number
        return 0

    def _edges(self, unit: _Unit) -> list[str]:
        """What is left of its route; [] if it has not been let in."""
        try:
            index = self._sumo.vehicle.getRouteIndex(unit.vehicle)
            return list(self._sumo.vehicle.getRoute(unit.vehicle))[max(0, index) :]
        except self._sumo.TraCIException:
            return []

    def _park(self, unit: _Unit) -> None:
        unit.doing, unit.vehicle, unit.order = "at-base", "", ""
