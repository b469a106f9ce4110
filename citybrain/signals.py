"""Signals: what a junction is, what its detectors say, what a plan asks for.

Terms as in NTCIP 1202 and the German RiLSA: a *signal group* is a set of lamps that always
show the same; a *stage* is a set of groups that are green together; a *movement* is what a
vehicle or pedestrian does through the junction. The commissioned safety table of a junction
(`Table`) belongs to its interlock alone and shares no code with the controllers.
"""

import hashlib
import hmac
from typing import Annotated, Literal

import msgspec

VERSION = 1
READABLE = (1,)

Lamp = Literal["red", "yellow", "green"]


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signal group. Durations in ms.

    clear_ms: how long it must have been red before a conflicting group may go green
    (all-red for vehicles; for pedestrians the time to walk across at 1.2 m/s).
    max_red_ms: no longer red than this while somebody may be waiting. links: indices of the
    lamps of this group at the controller (in SUMO: positions in the state string).
    """

    id: str
    kind: Literal["vehicle", "pedestrian"]
    min_green_ms: int
    yellow_ms: int
    clear_ms: int
    max_red_ms: int
    links: list[int]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The commissioned safety table of one junction: groups, and which exclude each other."""

    version: int = VERSION
    junction: str
    groups: list[Group]
    conflicts: list[tuple[str, str]]


class StageDef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named set of groups that are green together."""

    name: str
    green: list[str]


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a local plan: a stage and its green time, in ms; the time that the change to
    it takes (yellow, clearance) comes before."""

    stage: str
    green_ms: int


class LocalPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fixed-time plan that runs when nobody says better. offset_ms: start of the change to
    its first step within the cycle, counted from 1970 so that junctions agree without talking."""

    steps: list[Step]
    offset_ms: int = 0


class Area(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An area detector: a stretch of one lane, in metres from the lane's beginning."""

    id: str
    lane: str
    begin_m: float
    end_m: float


class Movement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One lane in to its lanes out under one group.

    detectors: ids of the area detectors that see the way to the stop line, the one at it first;
    shares: how much of each one's vehicles come here; near_m: from the stop line to each one's
    near end. exits: area detectors just beyond the junction. links: the lamps of the group that
    are for this lane.
    """

    group: str
    lanes_in: list[str]
    lanes_out: list[str]
    detectors: list[str] = []
    shares: list[float] = []
    near_m: list[float] = []
    exits: list[str] = []
    links: list[int] = []
    speed_m_s: float = 13.9
    saturation_veh_h: float = 1800.0


class Junction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the city knows of a signalled junction (`signals.toml` of a pack).

    yields: link -> links that it gives way to when both are green (a permitted left turn).
    """

    id: str
    table: Table
    stages: list[StageDef]
    plan: LocalPlan
    movements: list[Movement]
    areas: list[Area] = []
    yields: dict[str, list[int]] = {}
    zone: str = ""


class Degraded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How detectors fall short: interval, delay, share of lost states and missed vehicles."""

    interval_s: Annotated[int, msgspec.Meta(ge=1, le=60)] = 5
    delay_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 5
    lost: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    missed: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05


class Response(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an alert of one cause changes at the junctions around its place.

    out_of, into: factors on how much waiting counts for movements that come from, or lead to,
    the alert's link. hold: movements that lead nowhere else are not opened (but for the longest
    red). walkers: the factor for people on foot, where the alert is of a zone or the city.
    zh, en: the reason, as the plan states it.
    """

    cause: str
    zh: str
    en: str
    out_of: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    into: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    hold: bool = False
    walkers: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0


RESPONSES = (
    Response(
        cause="incident", out_of=2.0, into=0.3,
        zh="前方疑似交通事件:疏散其排队,减少驶入",
        en="possible incident: its queue is cleared, fewer are let in",
    ),
    Response(
        cause="congestion", out_of=1.5, into=0.7,
        zh="道路拥堵:优先放行驶出,减少驶入",
        en="congestion: leaving it counts more, entering it less",
    ),
    Response(
        cause="traffic-anomaly", out_of=1.5,
        zh="车流激增:该方向优先放行",
        en="a surge of traffic: its direction counts more",
    ),
    Response(
        cause="flood", out_of=2.0, into=0.2, hold=True,
        zh="道路积水:不再放行驶入",
        en="a flooded road: nobody is let in",
    ),
    Response(cause="crowd", walkers=3.0, zh="人流聚集:行人优先", en="a crowd: walkers count more"),
    Response(
        cause="cloudburst", walkers=2.0,
        zh="短时强降水:缩短行人等候", en="a cloudburst: walkers wait less",
    ),
    Response(
        cause="rainstorm", walkers=2.0,
        zh="暴雨:缩短行人等候", en="a rainstorm: walkers wait less",
    ),
)  # fmt: skip
"""What a pack's alerts change if its signals.toml says nothing else."""


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a city's signals are controlled. controller: a name of the controllers' registry.
    detectors: how far a simulated city's detectors are from the truth. responses: what alerts
    change, by cause."""

    controller: str = "horizon"
    detectors: Degraded = Degraded()
    responses: tuple[Response, ...] = RESPONSES


class Because(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that a plan reacts to, and how, for people."""

    alert: str
    cause: str
    zh: str
    en: str


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag="plan", tag_field="type"):
    """What the signals agent asks of a junction's arbiter: go to this stage, hold it until.

    sequence grows with each plan of a source for a junction, so that a replayed one is known.
    source: who asks; the arbiter ranks operator > emergency > priority > adaptive > local.
    why, why_zh: what the decision rests on, for people. because: alerts that changed it.
    mac: HMAC-SHA256 over the record without it.
    """

    version: int = VERSION
    junction: str
    sequence: int
    issued_ms: int
    expires_ms: int
    source: Literal["operator", "emergency", "priority", "adaptive"]
    stage: str
    why: str
    why_zh: str = ""
    because: list[Because] = []
    mac: str = ""


def signature(key: bytes, plan: Plan) -> str:
    """HMAC-SHA256 (RFC 2104) over the plan's JSON without its signature, in hex."""
    bare = msgspec.json.encode(msgspec.structs.replace(plan, mac=""))
    return hmac.new(key, bare, hashlib.sha256).hexdigest()


def signed(key: bytes, plan: Plan) -> Plan:
    """The plan with its signature."""
    return msgspec.structs.replace(plan, mac=signature(key, plan))


class DetectorState(msgspec.Struct, frozen=True, kw_only=True, tag="detector", tag_field="type"):
    """What one detector measured in the last interval (5 s): vehicles that passed, share of
    time occupied (0..1); of an area detector: vehicles present at the end of the interval, and
    how many of them stand. Latest wins, no revisions."""

    version: int = VERSION
    detector: str
    at_ms: int
    expires_ms: int
    passed: int
    occupancy: float
    present: int = 0
    waiting: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """Why a plan or a change of lamps was turned down, in words that name field and value."""

    junction: str
    at_ms: int
    rule: str
    why: str
