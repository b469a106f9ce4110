"""What the page shows of emergencies: incidents, who is on the way, where responders are."""

from typing import TypeVar

import msgspec

from citybrain.emergency import Incident, Order, ResponderState

_Told = TypeVar("_Told", Incident, Order)


class EmergencyView(msgspec.Struct, frozen=True, kw_only=True):
    """What is new of emergencies; gone: ids of incidents that are forgotten."""

    incidents: list[Incident] = []
    orders: list[Order] = []
    responders: list[ResponderState] = []
    gone: list[str] = []


class EmergencyState:
    """The latest of every incident, order and responder: as much as the tables hold."""

    def __init__(self) -> None:
        self._incidents: dict[str, Incident] = {}
        self._orders: dict[str, Order] = {}
        self._responders: dict[str, ResponderState] = {}
        self._new: dict[tuple[str, str], Incident | Order | ResponderState] = {}
        self._gone: list[str] = []

    def take_incident(self, incident: Incident) -> None:
        """The highest revision holds."""
        if _newer(self._incidents, incident):
            self._new["incident", incident.id] = incident

    def take_order(self, order: Order) -> None:
        """The highest revision holds."""
        if _newer(self._orders, order):
            self._new["order", order.id] = order

    def take_responder(self, responder: ResponderState) -> None:
        """The latest holds."""
        before = self._responders.get(responder.id)
        if before is None or responder.at_ms >= before.at_ms:
            self._responders[responder.id] = responder
            self._new["responder", responder.id] = responder

    def drop_incident(self, incident_id: str) -> None:
        """An incident that ended long ago is forgotten."""
        if self._incidents.pop(incident_id, None) is not None:
            self._new.pop(("incident", incident_id), None)
            self._gone.append(incident_id)

    def drop_order(self, order_id: str) -> None:
        """An order of such an incident."""
        self._orders.pop(order_id, None)
        self._new.pop(("order", order_id), None)

    def changes(self) -> EmergencyView | None:
        """What is new since the last call, None for nothing."""
        if not self._new and not self._gone:
            return None
        new, self._new = list(self._new.values()), {}
        gone, self._gone = self._gone, []
        return EmergencyView(
            incidents=[one for one in new if isinstance(one, Incident)],
            orders=[one for one in new if isinstance(one, Order)],
            responders=[one for one in new if isinstance(one, ResponderState)],
            gone=gone,
        )

    def snapshot(self) -> EmergencyView | None:
        """All of it, for a page that begins; None for a city without responders."""
        if not (self._responders or self._incidents):
            return None
        return EmergencyView(
            incidents=list(self._incidents.values()),
            orders=list(self._orders.values()),
            responders=list(self._responders.values()),
        )


def _newer(known: dict[str, _Told], record: _Told) -> bool:
    before = known.get(record.id)
    if before is not None and before.revision >= record.revision:
        return False
    known[record.id] = record
    return True
