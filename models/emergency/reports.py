"""From what is reported to incidents: alerts, operators, citizens; one incident for one cause."""

from msgspec.structs import replace

from citybrain.alerts import Alert
from citybrain.emergency import Incident, ReportIncident
from citybrain.errors import Refused
from citybrain.kinds import MINUTE
from citybrain.models.emergency.desk import Desk
from citybrain.models.routing import Spot

SAME_M = 150.0
SAME_MS = 30 * MINUTE
"""A report of the same kind so near and so soon after another is of the same incident."""


class Reports:
    """Opens, joins and closes incidents of a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def known(self, name: str) -> Incident:
        """An incident by its id. Raises Refused if there is none, or it is closed."""
        incident = self._desk.incidents.get(name)
        if incident is None:
            raise Refused(f"incident: {name!r} is not known, or ended long ago")
        if incident.state == "closed":
            raise Refused(f"incident: {name} is closed: {incident.why}")
        return incident

    def report(self, told: ReportIncident) -> str:
        """Take a report; says which incident it is now. Raises Refused with why not.

        A report joins an incident of the same kind nearby, unless it names its own: then it is
        sure of both, and the worse of the two severities counts.
        """
        desk = self._desk
        if told.kind not in desk.pack.needs:
            raise Refused(f"kind: {told.kind!r} is not one of {sorted(desk.pack.needs)}")
        if not 0 <= told.confidence <= 1:
            raise Refused(f"confidence: {told.confidence} is not within 0 to 1")
        if told.injured is not None and told.injured < 0:
            raise Refused(f"injured: {told.injured} is below 0")
        spot = desk.find(told.place)
        name = told.incident or told.id
        if name in desk.incidents:
            raise Refused(f"incident: {name} is there already")
        near = None if told.incident else self._near(told.kind, spot)
        if near is not None:
            injured = max((n for n in (near.injured, told.injured) if n is not None), default=None)
            desk.update(
                replace(near, severity=min(near.severity, told.severity), injured=injured,
                        confidence=max(near.confidence, told.confidence),
                        text="; ".join(t for t in (near.text, told.text) if t)[:1000])
            )  # fmt: skip
            return near.id
        desk.open(name, told.kind, told.place, spot, severity=told.severity, source=told.source,
                  confidence=told.confidence, injured=told.injured, text=told.text[:1000],
                  person=told.person)  # fmt: skip
        return name

    def alert(self, alert: Alert) -> None:
        """An alert that may mean an incident was raised, has changed, or has ended.

        Where it ends nobody is called back by it: who has left may find what detectors no
        longer see. An incident for which nobody was sent yet ends with its alert.
        """
        meant = self._desk.pack.alerts.get(alert.cause)
        if meant is None:
            return
        ours = [i for i in self._desk.incidents.values() if alert.id in (i.alert, *i.joined)]
        now = next((i for i in ours if i.state != "closed"), None)
        if not alert.active or alert.suppressed_by:
            if now is not None and now.alert == alert.id and not now.orders:
                self._desk.close(now, "its alert has ended")
            return
        if now is not None:
            if alert.severity < now.severity:
                self._desk.update(replace(now, severity=alert.severity))
            return
        if ours or alert.severity > meant.least or alert.shelved_until_ms:
            return
        try:
            spot = self._desk.find(alert.place)
        except Refused:
            return  # a whole zone or city is no place to drive to
        near = self._near(meant.kind, spot)
        if near is not None:
            surer = max(near.confidence, meant.confidence)
            self._desk.update(replace(near, confidence=surer, joined=[*near.joined, alert.id]))
            return
        self._desk.open(
            f"{meant.kind}/{alert.id}", meant.kind, alert.place, spot, severity=alert.severity,
            source="alert", confidence=meant.confidence, alert=alert.id,
        )  # fmt: skip

    def _near(self, kind: str, spot: Spot) -> Incident | None:
        """An open incident of a kind within `SAME_M` on the same or the next link."""
        desk = self._desk
        found = []
        for incident in desk.incidents.values():
            if incident.state == "closed" or incident.kind != kind:
                continue
            link = desk.roads.index[incident.link]
            other = Spot(link, incident.pos_m, 0.0)
            apart = desk.ground.apart_m(spot, other)
            if apart <= SAME_M and desk.now_ms - incident.opened_ms <= SAME_MS:
                found.append((apart, incident.id, incident))
        return min(found)[2] if found else None
