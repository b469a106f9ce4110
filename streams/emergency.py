"""The emergency stage: the one writer of incidents and dispatches, behind the one partition of
the emergency log.

Reports, alerts, positions, link states and closed roads take effect where they stand in the
log. The clock comes as a record that the stage's own tick asks for. So the same log gives the
same orders, and nobody is sent twice.
"""

from collections.abc import Mapping, Sequence

import msgspec

from citybrain import emergency, signal_log
from citybrain.city import City
from citybrain.emergency import (
    AlertSeen,
    CloseIncident,
    CloseRoad,
    EmergencyCommand,
    Incident,
    LinksSeen,
    Order,
    Position,
    ReportIncident,
    ResponderState,
    SendResponder,
    SetStatus,
    Tick,
)
from citybrain.errors import InvalidInput, Refused
from citybrain.findings import CommandResult, DeadLetter, LinkState
from citybrain.kinds import DAY, MINUTE, SECOND
from citybrain.models.emergency.ahead import Asker, Signals, requests
from citybrain.models.emergency.conditions import Closure
from citybrain.models.emergency.desk import Desk, Unit
from citybrain.models.emergency.missions import Event
from citybrain.models.emergency.reports import Reports
from citybrain.signal_log import PriorityRequest
from citybrain.stage import Out, Record

VERSION = 1
RESULTS = 1_000
KEEP_MS = DAY
"""An incident is remembered so long after its end."""
MAX_CLOSURE_MS = 30 * DAY
SOON_MS = 20 * SECOND
"""From the end of an alert's window to the order: what is aimed for."""
BUSY_TICK_MS, IDLE_TICK_MS = 5 * SECOND, MINUTE

_KEYED: dict[int, Event] = {1: "clear", 2: "clear", 4: "arrive", 6: "leave", 7: "load"}
"""BOS-FMS status -> what it says of a mission; the others say nothing new."""


class Head(msgspec.Struct, kw_only=True):
    """The state but for link states, written whole."""

    version: int = VERSION
    now_ms: int
    ticked_ms: int
    incidents: list[Incident]
    orders: list[Order]
    units: list[Unit]
    closures: list[Closure]
    asked: dict[str, PriorityRequest]
    results: list[CommandResult]
    counts: dict[str, int]


class Emergencies:
    """Reports and positions in, orders and priority requests out. See the top of this module."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._desk = Desk(city)
        self._reports = Reports(self._desk)
        self._signals = Signals(city.signals)
        self._asked: dict[str, PriorityRequest] = {}
        self._results: dict[str, CommandResult] = {}
        self._ticked_ms = 0
        self._new_states = True
        self._counts = dict.fromkeys(
            ("incidents", "sent", "recalled", "lost", "positions", "commands",
             "refused", "dead_lettered", "closed", "alert_orders", "alert_orders_soon",
             "alert_to_order_ms"), 0,
        )  # fmt: skip

    def apply(self, record: Record) -> Sequence[Out]:
        """Take one record of the emergency log."""
        desk = self._desk
        try:
            entry = emergency.decode(record.value)
            match entry:
                case AlertSeen(alert=alert):
                    self._pass(alert.updated_ms)
                    self._reports.alert(alert)
                    return self._in_time(record.timestamp_ms - alert.updated_ms)
                case LinksSeen(states=states):
                    for state in states:
                        self._pass(state.at_ms)
                        self._new_states |= desk.now.learn(state)
                    desk.better_ways()
                case Position():
                    self._position(entry)
                case Tick(at_ms=at_ms):
                    self._ticked_ms = at_ms
                    self._pass(at_ms)
                    desk.watch()
                    desk.better_ways()
                case _:
                    return self._command(entry, record.timestamp_ms)
            return self._decided()
        except InvalidInput as error:
            return [self._dead_letter(record, error)]

    def tick(self, now_ms: int) -> Sequence[Out]:
        """Ask for the time to be written into the log: often while something goes on."""
        busy = bool(self._desk.now.closures) or any(
            incident.state != "closed" for incident in self._desk.incidents.values()
        )
        wait = BUSY_TICK_MS if busy else IDLE_TICK_MS
        if now_ms - self._ticked_ms < wait:
            return []
        return [Out("emergency", emergency.encode(Tick(at_ms=now_ms)), partition=0)]

    def changed(self) -> Mapping[str, bytes]:
        """The head always; link states where some have come."""
        desk = self._desk
        head = Head(
            now_ms=desk.now_ms, ticked_ms=self._ticked_ms,
            incidents=list(desk.incidents.values()), orders=list(desk.orders.values()),
            units=list(desk.units.values()), closures=list(desk.now.closures.values()),
            asked=self._asked, results=list(self._results.values()), counts=self._counts,
        )  # fmt: skip
        blocks = {"head": msgspec.json.encode(head)}
        if self._new_states:
            blocks["links"] = msgspec.json.encode(list(desk.now.states.values()))
            self._new_states = False
        return blocks

    def restore(self, blocks: Mapping[str, bytes]) -> None:
        """Go on from saved blocks; responders and roads are those that the pack has now.

        Raises InvalidInput for a version that is not known.
        """
        try:
            head = msgspec.json.decode(blocks["head"], type=Head)
            states = msgspec.json.decode(blocks.get("links", b"[]"), type=list[LinkState])
        except msgspec.MsgspecError as error:
            raise InvalidInput("snapshot", f"emergency: {error}") from error
        if head.version != VERSION:
            raise InvalidInput("version", f"emergency snapshot: {head.version}, not {VERSION}")
        desk = self._desk
        desk.now_ms, self._ticked_ms = head.now_ms, head.ticked_ms
        desk.incidents = {incident.id: incident for incident in head.incidents}
        desk.orders = {order.id: order for order in head.orders}
        desk.units |= {u.state.id: u for u in head.units if u.state.id in desk.units}
        for closure in head.closures:
            if closure.link in desk.roads.index:
                desk.now.closures[closure.link] = closure
        for state in states:
            desk.now.learn(state)
        self._asked, self._counts = head.asked, self._counts | head.counts
        self._results = {result.id: result for result in head.results}
        self._new_states = False

    def counts(self) -> Mapping[str, int]:
        """No readings are counted here."""
        return {}

    def facts(self) -> dict[str, int | None]:
        """Totals since the beginning. alert_orders: sent because of an alert, so many of them
        within `SOON_MS` of the window that decided it, and how long it took in all."""
        return {"watermark_ms": self._desk.now_ms or None, **self._counts}

    def _in_time(self, late_ms: int) -> list[Out]:
        """Decide, and count what came of an alert and how late that was."""
        before = self._counts["sent"]
        outs = self._decided()
        if self._counts["sent"] > before:
            self._counts["alert_orders"] += 1
            self._counts["alert_orders_soon"] += late_ms <= SOON_MS
            self._counts["alert_to_order_ms"] += max(0, late_ms)
        return outs

    def _pass(self, to_ms: int) -> None:
        """Event time goes on; roads open again whose closure has ended."""
        self._desk.now_ms = max(self._desk.now_ms, to_ms)
        self._desk.now.expire(self._desk.now_ms)

    def _position(self, position: Position) -> None:
        desk = self._desk
        unit = desk.units.get(position.responder)
        if unit is None:
            known = sorted(desk.units)
            raise InvalidInput("unknown", f"responder: {position.responder!r} is not in {known}")
        if not (-180 <= position.lon <= 180 and -90 <= position.lat <= 90):
            raise InvalidInput("range", f"lon, lat: {position.lon}, {position.lat}: not WGS-84")
        self._counts["positions"] += 1
        if unit.state.heard_ms is not None and position.at_ms <= unit.state.heard_ms:
            return  # it has been somewhere else since
        self._pass(position.at_ms)
        before = unit.state.status
        desk.report(position.responder, position.at_ms, position.lon, position.lat)
        if position.status != unit.keyed:
            unit.keyed = position.status
            self._keyed(unit, position.status)
        if unit.state.status == "free" != before:
            desk.settle()
            desk.relieve(position.responder)

    def _keyed(self, unit: Unit, status: int) -> None:
        """A crew has keyed another status; one that does not fit its mission says nothing."""
        event = _KEYED.get(status)
        if event == "clear" and unit.state.status in ("transporting", "out"):
            event = "deliver" if unit.state.status == "transporting" else "return"
        if event is None:
            return
        try:
            self._desk.event(unit.state.id, event)
        except Refused:
            self._counts["refused"] += 1

    def _command(self, command: EmergencyCommand, received_ms: int) -> list[Out]:
        known = self._results.get(command.id)
        if known:
            return [_answer(known)]
        self._counts["commands"] += 1
        now_ms = self._desk.now_ms = max(self._desk.now_ms, command.issued_ms)
        if received_ms > command.expires_ms:
            result = CommandResult(id=command.id, outcome="expired", at_ms=now_ms)
        else:
            try:
                why = self._carry_out(command)
                result = CommandResult(id=command.id, outcome="applied", why=why, at_ms=now_ms)
            except Refused as refusal:
                result = CommandResult(
                    id=command.id, outcome="refused", why=str(refusal), at_ms=now_ms
                )
        self._results[command.id] = result
        if len(self._results) > RESULTS:
            del self._results[next(iter(self._results))]
        return [*self._decided(), _answer(result)]

    def _carry_out(self, command: EmergencyCommand) -> str:
        """What came of it, in words. Raises Refused with why not."""
        desk = self._desk
        if not command.person.strip():
            raise Refused("person: is empty; a command says whose it is")
        match command:
            case ReportIncident():
                return self._reports.report(command)
            case CloseIncident(incident=name, reason=reason):
                incident = self._reports.known(name)
                if not reason.strip():
                    raise Refused("reason: is empty; closing needs one")
                desk.close(incident, f"{command.person}: {reason}")
            case CloseRoad():
                self._close_road(command)
            case SendResponder(incident=name, responder=responder, route=route):
                if responder not in desk.units:
                    raise Refused(f"responder: {responder!r} is not one of {sorted(desk.units)}")
                desk.send(self._reports.known(name), responder, route, command.person)
            case SetStatus(responder=responder, status=status):
                if responder not in desk.units:
                    raise Refused(f"responder: {responder!r} is not one of {sorted(desk.units)}")
                self._set_status(responder, status)
        return ""

    def _set_status(self, responder: str, status: str) -> None:
        desk = self._desk
        now = desk.units[responder].state.status
        back: Event = {"transporting": "deliver", "out": "return"}.get(now, "clear")  # type: ignore[assignment]  # events of the table
        events: dict[str, Event] = {
            "on-scene": "arrive", "transporting": "load", "out": "leave", "free": back,
        }  # fmt: skip
        desk.event(responder, events[status])
        desk.settle()
        desk.relieve(responder)

    def _close_road(self, command: CloseRoad) -> None:
        desk, link = self._desk, command.link
        if link not in desk.roads.index:
            raise Refused(f"link: {link!r} is not in the pack of {self._city.id}")
        if command.until_ms == 0:
            if link not in desk.now.closures:
                raise Refused(f"link: {link!r} is not closed")
            del desk.now.closures[link]
            return
        if not desk.now_ms < command.until_ms <= desk.now_ms + MAX_CLOSURE_MS:
            raise Refused(
                f"until_ms: {command.until_ms} is not within {MAX_CLOSURE_MS // DAY} days after"
                f" the city's time, {desk.now_ms}"
            )
        desk.now.closures[link] = Closure(
            link=link, until_ms=command.until_ms, reason=command.reason,
            responders_pass=command.responders_pass,
        )  # fmt: skip

    def _decided(self) -> list[Out]:
        """Settle what is open, then everything that has changed, in order."""
        desk = self._desk
        desk.settle()
        outs: list[Out] = []
        records, desk.changed = desk.changed, []
        moved = False
        for record in records:
            moved |= not isinstance(record, Incident)
            topic = {Incident: "incidents", Order: "dispatches"}.get(type(record), "responders")
            outs.append(Out(topic, emergency.encode(record), record.id.encode()))
            self._count(record)
        for incident in desk.forget(desk.now_ms - KEEP_MS):
            outs.append(Out("incidents", b"", incident.id.encode()))
            outs += [Out("dispatches", b"", order.encode()) for order in incident.orders]
        return outs + (self._ask() if moved else [])

    def _ask(self) -> list[Out]:
        """Requests to the signals ahead; those that are not needed any more are cancelled."""
        desk = self._desk
        wanted: dict[str, PriorityRequest] = {}
        for order in desk.orders.values():
            unit = desk.units[order.responder]
            # Who says nothing of his place gets no green: nobody could know when to end it.
            if order.state == "sent" and not order.degraded:
                severity = desk.incidents[order.incident].severity
                asker = Asker(order.id, order.responder, severity)
                wanted |= requests(
                    asker, order.route, self._signals, desk.roads, unit.pos_m, desk.now_ms
                )
        told = [
            msgspec.structs.replace(
                self._asked[name], cancelled=True, issued_ms=desk.now_ms,
                expires_ms=desk.now_ms + BUSY_TICK_MS,
            )
            for name in sorted(self._asked.keys() - wanted.keys())
        ]  # fmt: skip
        told += [
            request
            for name, request in wanted.items()
            if name not in self._asked or request.issued_ms > self._asked[name].issued_ms
        ]
        self._asked = wanted
        # The signals stage decides by its own log; the other topic is for who watches.
        return [
            Out(topic, signal_log.encode(request), request.vehicle.encode(), partition)
            for request in told
            for topic, partition in (("detector-states", 0), ("priority-requests", None))
        ]

    def _count(self, record: Incident | Order | ResponderState) -> None:
        if isinstance(record, Incident):
            self._counts["incidents"] += record.revision == 0
            self._counts["closed"] += record.closed_ms == record.at_ms
        elif isinstance(record, Order):
            self._counts["sent"] += record.revision == 0
            if record.ended_ms == record.at_ms and record.state in ("recalled", "lost"):
                self._counts[record.state] += 1

    def _dead_letter(self, record: Record, error: InvalidInput) -> Out:
        self._counts["dead_lettered"] += 1
        letter = DeadLetter(
            id=f"{record.topic}/{record.partition}/{record.offset}", step="emergency",
            reason=error.reason, message=str(error), at_ms=record.timestamp_ms,
            original=record.value, retry_topic=record.topic, retry_partition=record.partition,
        )  # fmt: skip
        return Out("dead-letter", msgspec.json.encode(letter), letter.id.encode())


def _answer(result: CommandResult) -> Out:
    return Out("command-results", msgspec.json.encode(result), result.id.encode())
