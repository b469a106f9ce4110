"""The findings log: the one log of the alerting stage, in the order in which it decides.

Analysers write findings and their progress into it, people write commands into it, so that
an acknowledgement, a threshold and a new finding have one order for everybody.
"""

from typing import Literal

import msgspec

from citybrain.errors import JSON_ERRORS, InvalidInput

VERSION = 1
READABLE = (1,)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where something is. Only what is known is filled in; `zone` always is."""

    zone: str
    link: str = ""
    sensor: str = ""
    lon: float | None = None
    lat: float | None = None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one sensor, as evidence."""

    sensor: str
    kind: str
    window_ms: int
    start_ms: int
    revision: int = 0
    value: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True, tag="finding", tag_field="type"):
    """A detector's word on one place: raised, updated while it lasts, cleared.

    id: deterministic, `<rule>/<kind>/<sensor or link>/<onset_ms>`; rule names the pack's rule
    for which its detector ran. at_ms: event time of the decision: end of the window that
    decided it, or the first millisecond after what the shard's progress has already passed.
    onset_ms: start of the first window that supports it.
    observed, expected: in `unit`. score: how far apart, in the detector's own scale, with
    `threshold` the value at which it raises. cause_ms: the broker's receipt time of the
    reading that moved the watermark (for latency). params: further facts for the text.
    """

    version: int = VERSION
    id: str
    detector: str
    rule: str = ""
    state: Literal["raised", "updated", "cleared"]
    kind: str
    place: Place
    onset_ms: int
    at_ms: int
    score: float
    threshold: float
    observed: float | None
    expected: float | None
    unit: str
    evidence: list[Window] = []
    params: dict[str, str | float] = {}
    model: str = ""
    pack: str = ""
    cause_ms: int = 0
    generated: bool = False


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress", tag_field="type"):
    """All findings of this shard with at_ms <= through_ms are written."""

    version: int = VERSION
    shard: str
    through_ms: int


class LeaveOutShard(
    msgspec.Struct, frozen=True, kw_only=True, tag="leave-out-shard", tag_field="type"
):
    """The others need not wait for this shard any more, until it has caught up with them.

    Written by the alerting stage's own tick. through_ms: the shard's progress when this was
    judged; void if the shard has moved since. at_ms: the wall clock then.
    """

    version: int = VERSION
    shard: str
    through_ms: int
    at_ms: int


class CommandBase(msgspec.Struct, frozen=True, kw_only=True):
    """What every command says: who asks, when, and until when it may still be done."""

    version: int = VERSION
    id: str
    person: str
    issued_ms: int
    expires_ms: int


class Acknowledge(CommandBase, frozen=True, kw_only=True, tag="acknowledge", tag_field="type"):
    """Somebody has seen an alert and says so, for everybody."""

    alert: str
    comment: str = ""


class Assign(CommandBase, frozen=True, kw_only=True, tag="assign", tag_field="type"):
    """The alert is this person's to deal with; "" gives it back."""

    alert: str
    assignee: str


class Shelve(CommandBase, frozen=True, kw_only=True, tag="shelve", tag_field="type"):
    """Out of the way until a stated end, for a stated reason; until_ms = 0 takes it back."""

    alert: str
    until_ms: int
    reason: str


class SetThreshold(CommandBase, frozen=True, kw_only=True, tag="set-threshold", tag_field="type"):
    """Change one field of one rule of the pack: a number, or (`enabled`) true or false."""

    rule: str
    field: str
    value: float | bool


class SetMaintenance(
    CommandBase, frozen=True, kw_only=True, tag="set-maintenance", tag_field="type"
):
    """A sensor is being worked on until a stated event time; until_ms = 0 ends it."""

    sensor: str
    until_ms: int
    reason: str = ""


Command = Acknowledge | Assign | Shelve | SetThreshold | SetMaintenance
Entry = Finding | Progress | LeaveOutShard | Command

_entry = msgspec.json.Decoder(Entry)


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command. at_ms: event time of the alerting stage."""

    version: int = VERSION
    id: str
    outcome: Literal["applied", "refused", "expired"]
    why: str = ""
    at_ms: int = 0


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """How a road flows. ratio: speed over free speed. expires_ms: unknown from then on."""

    version: int = VERSION
    link: str
    state: Literal["smooth", "slow", "jam", "heavy-jam", "unknown"]
    at_ms: int
    expires_ms: int
    speed_kmh: float | None = None
    ratio: float | None = None
    occupancy: float | None = None
    generated: bool = False


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Refused input with its original bytes. readings: how many it holds, if it is known.

    retry_topic, retry_partition: where `dead-letter retry` sends the bytes again; "" where
    they came from no topic. A later record with the same id, retried_ms above 0 and no
    original says that this was done, by whom and when (wall clock).
    """

    version: int = VERSION
    id: str
    step: str
    reason: str
    message: str
    at_ms: int
    original: bytes
    readings: int | None = None
    gateway: str = ""
    sensor: str = ""
    retry_topic: str = ""
    retry_partition: int = -1
    retried_ms: int = 0
    retried_by: str = ""


def encode(entry: msgspec.Struct) -> bytes:
    """JSON bytes of any record of this module."""
    return msgspec.json.encode(entry)


def decode(value: bytes) -> Entry:
    """A record of the findings log. Raises InvalidInput `head` or `version`."""
    try:
        entry: Entry = _entry.decode(value)
    except JSON_ERRORS as error:
        raise InvalidInput("head", f"findings log: {error}") from error
    if entry.version not in READABLE:
        raise InvalidInput("version", f"version: {entry.version} is not one of {READABLE}")
    return entry
