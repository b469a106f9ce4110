"""The signals log (`detector-states`): everything that the signals stage decides by, in one order.

Controllers at the street report what their detectors and lamps say; the alerting stage tells
of alerts, the emergency stage of vehicles that ask for a green; the log's owner writes ticks.
Reports expire: the latest counts, there are no revisions, and nobody waits for a lost one.
"""

from typing import Annotated, Literal

import msgspec

from citybrain.alerts import Alert
from citybrain.emergency import Order, Position
from citybrain.errors import JSON_ERRORS, InvalidInput
from citybrain.signals import Plan, Refusal

VERSION = 1
READABLE = (1,)

Whole = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A time or a count from outside: what floats and 64-bit arrays hold exactly, and no more."""

GATEWAY = "signals"
"""The gateway whose token the controllers of a city show."""
LATE_MS = 30_000
"""Plans that ran out so long ago are not handed on: everybody would refuse them."""


class Detections(msgspec.Struct, frozen=True, kw_only=True):
    """States of area detectors that arrived together; columns of one length.

    at_ms: end of the interval. passed: vehicles that left within it. present: vehicles there at
    its end. waiting: how many of them stand. A detector that is missing was lost on its way.
    """

    at_ms: Whole
    expires_ms: Whole
    detectors: list[str]
    passed: list[Whole]
    present: list[Whole]
    waiting: list[Whole]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a junction shows, by its own controller. Times UTC by the controller's clock.

    source: whose plan is followed (operator, emergency, priority, adaptive, local). stage: what
    is shown or being changed to; stage_ms: for how long all of it has been green, -1 while it
    is being changed to. lamps: r, y or g for each group in the order of its table. ready_ms:
    for each stage, in the order of the junction's, how long until it would be fully shown.
    calls: pedestrian groups that somebody waits at. lamp_ms: for how long each lamp has been so.
    """

    junction: str
    at_ms: Whole
    source: str
    stage: str
    stage_ms: Annotated[int, msgspec.Meta(ge=-1, le=2**53)]
    lamps: str
    ready_ms: list[Whole]
    calls: list[str] = []
    lamp_ms: list[Whole] = []


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the city's streets costs people, over the last `window_s` at most.

    run: live, or twin (the same demand and random numbers with the local plans alone). from_ms:
    since when it is measured. delay_s: time lost and waited for entry, by vehicle that arrived.
    arrived_h: vehicles an hour. stops: by vehicle that arrived. queue: vehicles that stand
    before the signals, on average. side_p95_s, walk_p95_s: 95th percentile of the time stood on
    approaches that are not their junction's busiest, and of walkers' waits; None without any.
    running, pending: vehicles on the streets, and waiting to enter. responses: of the latest
    dispatches, seconds from the order's arrival at the responder to its arrival at the scene.
    """

    run: str
    from_ms: int
    through_ms: int
    window_s: int
    delay_s: float
    arrived_h: int
    stops: float
    queue: float
    side_p95_s: float | None
    walk_p95_s: float | None
    running: int
    pending: int
    responses: dict[str, float] = {}


class PhaseMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """The traffic engineer's measures of a junction over the last quarter of an hour.

    arrivals_on_green: share of the arrivals. phases: greens that ended, split_failures: how
    many of them left people behind. phase_wait_s: mean time from call to green.
    """

    junction: str
    arrivals: int
    arrivals_on_green: float | None
    phases: int
    split_failures: int
    phase_wait_s: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report", tag_field="type"):
    """What a gateway of controllers has to say, about once a second. refusals: what arbiters
    and interlocks turned down since the last report. measured, phases: now and then, where
    somebody measures. positions: of responders, whose terminals use the same wire."""

    version: int = VERSION
    gateway: str
    at_ms: Whole
    shown: list[Shown] = []
    detections: list[Detections] = []
    refusals: list[Refusal] = []
    measured: list[Measured] = []
    phases: list[PhaseMeasures] = []
    positions: list[Position] = []
    generated: bool = False


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick", tag_field="type"):
    """The time, as the log's owner saw it: decide now."""

    version: int = VERSION
    at_ms: Whole


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice", tag_field="type"):
    """An alert as the alerting stage has just written it."""

    version: int = VERSION
    alert: Alert


class PriorityRequest(
    msgspec.Struct, frozen=True, kw_only=True, tag="priority-request", tag_field="type"
):
    """A vehicle asks a junction for its green (NTCIP 1211: a priority request).

    id: one per vehicle and junction; a later record replaces an earlier one. groups: signal
    groups that have to be green, the whole approach; own: those of them that the vehicle goes
    by itself. eta_ms: the earliest that it can be at the stop line.
    level: emergency comes before priority (public transport); within it the lower importance
    (1 to 4, as severities) comes first. cancelled: it has passed, or needs nothing any more.
    """

    version: int = VERSION
    id: str
    vehicle: str
    junction: str
    groups: list[str]
    eta_ms: Whole
    issued_ms: Whole
    expires_ms: Whole
    level: Literal["emergency", "priority"] = "emergency"
    cancelled: bool = False
    own: list[str] = []
    importance: int = 2


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge agent answers to a report: plans, and the number up to which these are all.

    dispatches: the latest order of every responder that has one.
    """

    serial: int
    plans: list[Plan]
    dispatches: list[Order] = []


Entry = Report | Tick | Notice | PriorityRequest

_entry = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """JSON bytes of a record of the signals log."""
    return msgspec.json.encode(entry)


def decode(value: bytes) -> Entry:
    """A record of the signals log. Raises InvalidInput `head` or `version`."""
    try:
        entry: Entry = _entry.decode(value)
    except JSON_ERRORS as error:
        raise InvalidInput("head", f"signals log: {error}") from error
    if entry.version not in READABLE:
        raise InvalidInput("version", f"version: {entry.version} is not one of {READABLE}")
    return entry
