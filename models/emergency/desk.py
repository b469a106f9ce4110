"""The dispatcher's desk: incidents, responders, orders. One thing after the other, in the order
of the log, so that nobody is in two places.

* Sent is who arrives first over the live link times and open roads; whoever reports goes before
  whoever is silent; ties go by id. Incidents are served by severity, then by age, then by id.
* A responder on the way takes another way when its road is closed, when it has left its route,
  or when another way saves `BETTER_WAY_S`.
* One that becomes free takes over from one on the way if it is there `BENEFIT_S` and
  `BENEFIT_SHARE` of the rest sooner. Nobody is taken away from a scene.
* An incident is closed, or somebody is sent for each of its needs, or it is queued and says why.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from citybrain.city import City
from citybrain.emergency import Incident, MissionState, Order, ResponderState, Source
from citybrain.errors import Refused
from citybrain.findings import Place
from citybrain.models.emergency.conditions import Conditions
from citybrain.models.emergency.missions import Event, after
from citybrain.models.routing import Ground, Route, Spot, roads_of

SILENT_MS = 30_000
"""A responder that has not reported for so long is not relied on."""
LOST_MS = 180_000
"""One on the way that is silent for so long is replaced."""
BENEFIT_S, BENEFIT_SHARE = 60.0, 0.2
BETTER_WAY_S = 30.0
ARRIVED_M = 30.0
OFF_ROUTE_M = 60.0
SURE = 0.5
"""From this confidence on a responder is sent without somebody's confirmation."""


class Unit(msgspec.Struct, kw_only=True):
    """What is known of a responder. keyed: the last status that its crew has keyed."""

    state: ResponderState
    pos_m: float = 0.0
    keyed: int = 0


class Desk:
    """All of a city's emergencies. `changed` collects the records to publish, in order."""

    def __init__(self, city: City) -> None:
        self.pack = city.emergency
        self.generated = city.generated
        self.roads = roads_of(city.links)
        self.ground = Ground(self.roads, city.links)
        self.now = Conditions(self.roads)
        self.now_ms = 0
        self.incidents: dict[str, Incident] = {}
        self.orders: dict[str, Order] = {}
        self.units: dict[str, Unit] = {}
        self.changed: list[Incident | Order | ResponderState] = []
        for one in self.pack.responders.values():
            base = self.pack.stations[one.station]
            state = ResponderState(
                id=one.id, kind=one.kind, status="free", lon=base.lon, lat=base.lat,
                link=base.link, at_ms=0, generated=one.generated,
            )  # fmt: skip
            self.units[one.id] = Unit(state=state, pos_m=base.pos_m)

    # Incidents

    def open(
        self, incident: str, kind: str, place: Place, spot: Spot, *, severity: int,
        source: Source, confidence: float, injured: int | None = None, text: str = "",
        person: str = "", alert: str = "",
    ) -> None:  # fmt: skip
        """A new incident; somebody is sent at the next `settle`."""
        self._note(
            Incident(
                id=incident, revision=-1, kind=kind, place=place,
                link=self.roads.names[spot.link], pos_m=round(spot.pos_m, 1), severity=severity,
                source=source, confidence=confidence, state="queued", why="just reported",
                needs=list(self.pack.needs[kind]), opened_ms=self.now_ms, at_ms=self.now_ms,
                injured=injured, text=text, person=person, alert=alert, generated=self.generated,
            )
        )  # fmt: skip

    def update(self, incident: Incident) -> None:
        """Other facts of an incident."""
        self._note(incident)

    def close(self, incident: Incident, why: str) -> None:
        """An incident is over. Raises Refused while somebody transports a patient of it."""
        for order in self._open_orders(incident):
            if order.state == "transporting":
                raise Refused(f"{incident.id}: {order.responder} is transporting a patient")
        for order in self._open_orders(incident):
            event: Event = "recall" if order.state == "sent" else "clear"
            self._end(order, event, "recalled" if order.state == "sent" else "done", why)
        self._note(replace(self.incidents[incident.id], state="closed", why=why,
                           closed_ms=self.now_ms))  # fmt: skip

    def forget(self, before_ms: int) -> list[Incident]:
        """Drop incidents that closed before a time, with their orders; they are returned."""
        old = [i for i in self.incidents.values() if (i.closed_ms or before_ms) < before_ms]
        for incident in old:
            del self.incidents[incident.id]
            for order in incident.orders:
                self.orders.pop(order, None)
        return old

    # Responders

    def event(self, responder: str, event: Event) -> None:
        """A responder's mission goes on by an event. Raises Refused if it cannot."""
        unit = self.units[responder]
        order = self.orders.get(unit.state.order)
        status = after(responder, unit.state.status, event)
        if order is None:
            self._unit(unit, status=status, degraded="")
        elif event == "arrive":
            self._note(replace(order, state="on-scene", on_scene_ms=self.now_ms,
                               eta_ms=self.now_ms, why="arrived"))  # fmt: skip
            self._unit(unit, status=status)
        elif event == "load":
            self._note(replace(order, state="transporting", why="with a patient",
                               on_scene_ms=order.on_scene_ms or self.now_ms))  # fmt: skip
            self._unit(unit, status=status)
        elif event == "leave":
            self._end(order, event, "lost", "out of service")
        else:
            self._end(order, event, "done", "finished")

    def report(self, responder: str, at_ms: int, lon: float, lat: float) -> None:
        """A responder is here. It may have arrived, or have left its route."""
        unit = self.units[responder]
        was = unit.state
        moved = self.ground.metres((was.lon, was.lat), (lon, lat)) if was.heard_ms else None
        order = self.orders.get(was.order)
        spot = None
        if order is not None and order.state == "sent":
            ahead = [self.roads.index[name] for name in order.route]
            spot = self.ground.nearest(lon, lat, ahead[:6])
            if spot is not None and spot.apart_m > OFF_ROUTE_M:
                spot = None
        left = order is not None and order.state == "sent" and spot is None
        spot = spot or self.ground.nearest(lon, lat, moved=moved)
        assert spot is not None
        unit.pos_m = spot.pos_m
        self._unit(unit, lon=lon, lat=lat, link=self.roads.names[spot.link], heard_ms=at_ms,
                   degraded="")  # fmt: skip
        if was.status == "out" and was.degraded:
            self._unit(unit, status="free")
        if order is None or order.state != "sent":
            return
        if left:
            self._take_way(order, "left its route", must=True)
        else:
            first = order.route.index(self.roads.names[spot.link])
            self._progress(replace(order, route=order.route[first:], degraded=""))
        incident = self.incidents[order.incident]
        here = self.orders[order.id]
        last = here.state == "sent" and unit.state.link == incident.link and len(here.route) == 1
        if last and unit.pos_m >= incident.pos_m - ARRIVED_M:
            self.event(responder, "arrive")

    def watch(self) -> None:
        """Time has passed: who is silent is degraded, and replaced at last."""
        for unit in self.units.values():
            state = unit.state
            if state.heard_ms is None or state.status == "out":
                continue
            silent_ms = self.now_ms - state.heard_ms
            order = self.orders.get(state.order)
            if silent_ms < SILENT_MS:
                continue
            why = f"no position since {silent_ms // 1000} s"
            # Who was silent before may have got the order: it has as long as anybody to say so.
            told_ms = self.now_ms - order.sent_ms if order is not None else 0
            lost = min(silent_ms, told_ms) >= LOST_MS
            if order is not None and order.state == "sent" and lost:
                self._end(order, "lose", "lost", why)
                self._unit(unit, degraded=why)
            elif not state.degraded:
                self._unit(unit, degraded=why)
                if order is not None:
                    told = f"{why}; the arrival is reckoned from its last place"
                    self._note(replace(order, degraded=told))

    # Decisions

    def settle(self) -> None:
        """Send whoever is needed and free, close what is done, say why others wait."""
        for order in [o for o in self.orders.values() if o.state == "sent"]:
            problem = self.roads.broken(order.route, self.now.closed())
            if problem:
                why = self.now.why_closed(order.route[1:]) or problem
                self._take_way(order, why, must=True)
        for incident in self._by_rank():
            self._serve(incident)

    def better_ways(self) -> None:
        """Link times have changed: who is on the way may have a better one."""
        for order in [o for o in self.orders.values() if o.state == "sent"]:
            self._take_way(order, "another way is faster now", must=False)

    def relieve(self, responder: str) -> None:
        """A responder is free: it takes over from one on the way that would be much later."""
        unit = self.units[responder]
        if unit.state.status != "free" or unit.state.degraded:
            return
        for incident in self._by_rank():
            for order in self._open_orders(incident):
                if order.state != "sent" or order.need != unit.state.kind:
                    continue
                left_s = (order.eta_ms - self.now_ms) / 1000
                route = self._way(unit, incident)
                if route is None:
                    continue
                saved = left_s - route.seconds
                if saved >= BENEFIT_S and saved >= BENEFIT_SHARE * left_s:
                    why = f"{responder} is there {saved:.0f} s sooner"
                    self._end(order, "recall", "recalled", why)
                    self._send(self.incidents[incident.id], unit, route, order.need, why)
                    return

    def send(self, incident: Incident, responder: str, route: Sequence[str], who: str) -> None:
        """An operator's choice. Raises Refused with why it cannot be."""
        unit = self.units[responder]
        after(responder, unit.state.status, "send")
        if incident.state == "closed":
            raise Refused(f"incident: {incident.id} is closed")
        chosen = self._way(unit, incident)
        if route:
            problem = self.roads.broken(route, self.now.closed())
            if problem:
                raise Refused(f"{problem}{self._closed_among(route)}")
            if route[0] != unit.state.link or route[-1] != incident.link:
                raise Refused(
                    f"route: goes from {route[0]!r} to {route[-1]!r}; {responder} is on"
                    f" {unit.state.link!r}, the incident on {incident.link!r}"
                )
            seconds = self.now.seconds(self.now_ms)
            chosen = Route(
                tuple(route), self.roads.along(route, unit.pos_m, incident.pos_m, seconds)
            )
        if chosen is None:
            raise Refused(f"{responder}: no open way to {incident.link}")
        needs = self._unmet(incident)
        need = unit.state.kind if unit.state.kind in needs else (needs or [unit.state.kind])[0]
        self._send(incident, unit, chosen, need, f"sent by {who}")

    def find(self, place: Place) -> Spot:
        """The place on the network. Raises Refused if there is none near."""
        if place.link and place.link not in self.roads.index:
            raise Refused(f"place: {place.link!r} is not a link of the pack")
        among = [self.roads.index[place.link]] if place.link else None
        if place.lon is not None and place.lat is not None:
            if not (-180 <= place.lon <= 180 and -90 <= place.lat <= 90):
                raise Refused(f"place: lon, lat: {place.lon}, {place.lat}: not WGS-84")
            spot = self.ground.nearest(place.lon, place.lat, among)
            if spot is None or not spot.apart_m <= 500:  # nor if it is not a number
                apart = f"{spot.apart_m:.0f} m" if spot else "nowhere near"
                raise Refused(f"place: {place.lon}, {place.lat} is {apart} from any road")
            return spot
        if not among:
            raise Refused("place: says neither a link nor lon and lat")
        return Spot(among[0], float(self.roads.length_m[among[0]]) / 2, 0.0)

    # Within

    def _by_rank(self) -> list[Incident]:
        found = [i for i in self.incidents.values() if i.state != "closed"]
        return sorted(found, key=lambda i: (i.severity, i.opened_ms, i.id))

    def _open_orders(self, incident: Incident) -> list[Order]:
        found = [self.orders[name] for name in self.incidents[incident.id].orders]
        return [order for order in found if order.ended_ms is None]

    def _unmet(self, incident: Incident) -> list[str]:
        """Needs for which nobody is on the way, was there, or is."""
        met = [
            self.orders[name].need
            for name in self.incidents[incident.id].orders
            if self.orders[name].ended_ms is None or self.orders[name].state == "done"
        ]
        unmet = []
        for need in incident.needs:
            if need in met:
                met.remove(need)
            else:
                unmet.append(need)
        return unmet

    def _serve(self, incident: Incident) -> None:
        waiting = []
        for need in self._unmet(incident):
            if incident.confidence < SURE:
                waiting.append(
                    f"confidence {incident.confidence:g} is below {SURE:g}: to be confirmed"
                )
                break
            unit, route, why = self._first(need, self.incidents[incident.id])
            if unit is None or route is None:
                waiting.append(why)
            else:
                self._send(self.incidents[incident.id], unit, route, need, why)
        now = self.incidents[incident.id]
        if waiting:
            self._say(now, "queued", "; ".join(dict.fromkeys(waiting)))
        elif now.orders and not self._open_orders(now):
            self.close(now, "all responders have finished")
        elif now.state == "queued":
            self._say(now, "under-way", "")

    def _say(self, incident: Incident, state: str, why: str) -> None:
        if (incident.state, incident.why) != (state, why):
            self._note(msgspec.structs.replace(incident, state=state, why=why))

    def _first(self, need: str, incident: Incident) -> tuple[Unit | None, Route | None, str]:
        """Who arrives first; or why nobody can."""
        kin = [u for u in self.units.values() if u.state.kind == need]
        free = [u for u in kin if u.state.status == "free"]
        if not free:
            return None, None, f"no {need} is free: all {len(kin)} are busy or out of service"
        ways = [(unit, self._way(unit, incident)) for unit in free]
        open_ = [
            (bool(u.state.degraded), route.seconds, u.state.id, u, route)
            for u, route in ways
            if route is not None
        ]
        if not open_:
            closed = self.now.why_closed(self.roads.names) or "the network has no such way"
            return None, None, f"no open way for any {need}: {closed}"
        silent, seconds, _, unit, route = min(open_, key=lambda entry: entry[:3])
        why = f"arrives first of {len(open_)} free, in {seconds:.0f} s"
        return unit, route, why + (", though it is silent" if silent else "")

    def _way(self, unit: Unit, incident: Incident) -> Route | None:
        seconds = self.now.seconds(self.now_ms)
        goal = self.roads.goal(
            self.roads.index[incident.link], incident.pos_m, seconds, self.now.closed()
        )
        return self.roads.route(goal, self.roads.index[unit.state.link], unit.pos_m, seconds)

    def _send(self, incident: Incident, unit: Unit, route: Route, need: str, why: str) -> None:
        state = unit.state
        number = len(incident.orders) + 1
        live, age_ms = self.now.basis(route.links, self.now_ms)
        eta_ms = self.now_ms + round(route.seconds * 1000)
        degraded = state.degraded or (
            ""
            if state.heard_ms is not None
            else "it has never reported: taken to be at its station"
        )
        order = Order(
            id=f"{incident.id}/{state.id}/{number}", revision=-1, incident=incident.id,
            responder=state.id, need=need, state="sent", why=why, route=list(route.links),
            goal_m=incident.pos_m, eta_ms=eta_ms, first_eta_ms=eta_ms, sent_ms=self.now_ms,
            at_ms=self.now_ms,
            live=live, times_age_ms=age_ms, degraded=degraded, generated=self.generated,
        )  # fmt: skip
        self._unit(unit, status=after(state.id, state.status, "send"), order=order.id)
        self._note(order)
        self._note(replace(incident, orders=[*incident.orders, order.id]))

    def _take_way(self, order: Order, why: str, must: bool) -> None:
        """Another way for somebody on the way; without one he is called back."""
        unit, incident = self.units[order.responder], self.incidents[order.incident]
        route = self._way(unit, incident)
        if route is None:
            if must:
                self._end(order, "recall", "recalled", f"{why}; there is no other way")
            return
        seconds = self.now.seconds(self.now_ms)
        left_s = self.roads.along(order.route, unit.pos_m, incident.pos_m, seconds)
        if not must and left_s - route.seconds < BETTER_WAY_S:
            self._progress(order)
            return
        live, age_ms = self.now.basis(route.links, self.now_ms)
        self._note(
            replace(order, route=list(route.links), why=why, reroutes=order.reroutes + 1,
                    eta_ms=self.now_ms + round(route.seconds * 1000), live=live,
                    times_age_ms=age_ms)
        )  # fmt: skip

    def _progress(self, order: Order) -> None:
        """The arrival anew, from where the responder is."""
        unit, incident = self.units[order.responder], self.incidents[order.incident]
        seconds = self.now.seconds(self.now_ms)
        left_s = self.roads.along(order.route, unit.pos_m, incident.pos_m, seconds)
        live, age_ms = self.now.basis(order.route, self.now_ms)
        self._note(replace(order, eta_ms=self.now_ms + round(left_s * 1000), live=live,
                           times_age_ms=age_ms))  # fmt: skip

    def _end(self, order: Order, event: Event, state: MissionState, why: str) -> None:
        unit = self.units[order.responder]
        status = after(order.responder, unit.state.status, event)
        self._note(replace(order, state=state, why=why, ended_ms=self.now_ms))
        self._unit(unit, status=status, order="")

    def _unit(self, unit: Unit, **facts: object) -> None:
        unit.state = msgspec.structs.replace(unit.state, at_ms=self.now_ms, **facts)
        self.changed.append(unit.state)

    def _note(self, record: Incident | Order) -> None:
        record = replace(record, revision=record.revision + 1, at_ms=self.now_ms)
        if isinstance(record, Order):
            self.orders[record.id] = record
        else:
            self.incidents[record.id] = record
        self.changed.append(record)

    def _closed_among(self, route: Iterable[str]) -> str:
        why = self.now.why_closed(list(route))
        return f"; {why}" if why else ""
