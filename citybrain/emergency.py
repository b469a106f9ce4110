"""Emergency response: incidents, responders, orders, and the log in which they are decided.

The emergency log is the one log of the emergency stage. People write commands into it, the
alerting stage alerts that may mean an incident, analysers how links flow, the rollup where
responders are; so a report, a closed road and a responder that becomes free have one order
for everybody, and none is sent twice.
"""

from typing import Literal

import msgspec

from citybrain.alerts import Alert
from citybrain.errors import JSON_ERRORS, InvalidInput
from citybrain.findings import CommandBase, LinkState, Place

VERSION = 1
READABLE = (1,)

Source = Literal["alert", "operator", "api", "citizen"]
MissionState = Literal["sent", "on-scene", "transporting", "done", "recalled", "lost"]
Status = Literal["free", "sent", "on-scene", "transporting", "out"]


class ReportIncident(
    CommandBase, frozen=True, kw_only=True, tag="report-incident", tag_field="type"
):
    """Somebody reports an incident. The incident's id is `incident`, or the command's own.

    place: a link of the pack, or coordinates; text: where and what, as it was said. injured:
    how many, None if it is not known. confidence: 0 to 1, how sure the source is.
    """

    kind: str
    place: Place
    source: Source = "operator"
    text: str = ""
    injured: int | None = None
    confidence: float = 1.0
    severity: Literal[1, 2, 3, 4] = 2
    incident: str = ""


class CloseIncident(CommandBase, frozen=True, kw_only=True, tag="close-incident", tag_field="type"):
    """An incident is over, or was none; who is on the way to it is recalled."""

    incident: str
    reason: str


class CloseRoad(CommandBase, frozen=True, kw_only=True, tag="close-road", tag_field="type"):
    """Nobody may drive on a link until an event time; until_ms = 0 opens it again.

    responders_pass: the road is closed to traffic, not to who is called there.
    """

    link: str
    until_ms: int
    reason: str = ""
    responders_pass: bool = False


class SendResponder(CommandBase, frozen=True, kw_only=True, tag="send-responder", tag_field="type"):
    """An operator sends a responder of his choice; route: links, () for the fastest."""

    incident: str
    responder: str
    route: tuple[str, ...] = ()


class SetStatus(CommandBase, frozen=True, kw_only=True, tag="set-status", tag_field="type"):
    """A crew, or somebody for it, says how a responder is; `out` takes it out of service."""

    responder: str
    status: Literal["free", "on-scene", "transporting", "out"]


class AlertSeen(msgspec.Struct, frozen=True, kw_only=True, tag="alert", tag_field="type"):
    """An alert of a cause that the pack names as a possible incident. By alerting."""

    version: int = VERSION
    alert: Alert


class LinksSeen(msgspec.Struct, frozen=True, kw_only=True, tag="links", tag_field="type"):
    """How links flow, where that has changed. By analysers."""

    version: int = VERSION
    states: list[LinkState]


class Position(msgspec.Struct, frozen=True, kw_only=True, tag="position", tag_field="type"):
    """Where a responder was at an event time, WGS-84. status: BOS-FMS 1 to 8 as its crew keyed
    it (3 on the way, 4 on scene, 7 with a patient, 8 at the hospital, 1 and 2 free, 6 out of
    service), 0 if nothing is said."""

    version: int = VERSION
    responder: str
    at_ms: int
    lon: float
    lat: float
    status: int = 0


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick", tag_field="type"):
    """The wall clock has come to here. By the stage's own tick."""

    version: int = VERSION
    at_ms: int


EmergencyCommand = ReportIncident | CloseIncident | CloseRoad | SendResponder | SetStatus
Entry = EmergencyCommand | AlertSeen | LinksSeen | Position | Tick

_entry = msgspec.json.Decoder(Entry)


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident, whole, at each change; readers keep the highest revision.

    state: `queued` with `why` while a need is not met, `under-way` once somebody is sent for
    each, `closed`. alert: the one that opened it, joined: others that tell of the same. needs:
    kinds of responders that it needs. orders: ids, oldest first. link, pos_m: where on
    the road network responders have to get to. at_ms: event time of this record, by then
    opened_ms, closed_ms.
    """

    version: int = VERSION
    id: str
    revision: int
    kind: str
    place: Place
    link: str
    pos_m: float
    severity: int
    source: Source
    confidence: float
    state: Literal["queued", "under-way", "closed"]
    why: str
    needs: list[str]
    opened_ms: int
    at_ms: int
    closed_ms: int | None = None
    injured: int | None = None
    text: str = ""
    person: str = ""
    alert: str = ""
    orders: list[str] = []
    generated: bool = False
    joined: list[str] = []


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A responder sent to an incident: one record a change; readers keep the highest revision.

    id: `<incident>/<responder>/<number>`. need: which of the incident's needs it meets. route:
    links from where it is to the incident, goal_m along the last one. eta_ms: event time at
    which it should arrive; first_eta_ms: what was expected when it was sent. live: share of the
    route's free travel time on links whose speed is known; times_age_ms: age of the oldest
    speed used, None without any. degraded: why its data cannot be trusted, "" if they can.
    """

    version: int = VERSION
    id: str
    revision: int
    incident: str
    responder: str
    need: str
    state: MissionState
    why: str
    route: list[str]
    goal_m: float
    eta_ms: int
    first_eta_ms: int
    sent_ms: int
    at_ms: int
    live: float
    times_age_ms: int | None
    on_scene_ms: int | None = None
    ended_ms: int | None = None
    reroutes: int = 0
    degraded: str = ""
    generated: bool = False


class ResponderState(msgspec.Struct, frozen=True, kw_only=True):
    """A responder as it is: the latest by id. heard_ms: event time of its last position."""

    version: int = VERSION
    id: str
    kind: str
    status: Status
    lon: float
    lat: float
    link: str
    at_ms: int
    heard_ms: int | None = None
    order: str = ""
    degraded: str = ""
    generated: bool = False


def encode(record: msgspec.Struct) -> bytes:
    """JSON bytes of any record of this module."""
    return msgspec.json.encode(record)


def decode(value: bytes) -> Entry:
    """A record of the emergency log. Raises InvalidInput `head` or `version`."""
    try:
        entry: Entry = _entry.decode(value)
    except JSON_ERRORS as error:
        raise InvalidInput("head", f"emergency log: {error}") from error
    if entry.version not in READABLE:
        raise InvalidInput("version", f"version: {entry.version} is not one of {READABLE}")
    return entry
