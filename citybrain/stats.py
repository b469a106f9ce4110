"""The statistics log: closed windows of a shard, and what the analyse stage is told.

A message holds one window of one kind for the sensors of one shard: at revision 0 all of
them, also those that said nothing (seen = 0); later revisions only what changed.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain import columns
from citybrain.columns import Roster, Rosters
from citybrain.errors import JSON_ERRORS, InvalidInput
from citybrain.rules import Rule

VERSION = 1
READABLE = (1,)
PART = 65_536
"""Sensors in one message at most, so that it stays well below the topic's largest record."""


Time = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""UTC milliseconds that a float holds exactly; sums with a window's length still fit int64."""
Length = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class StatsHead(msgspec.Struct, frozen=True, kw_only=True):
    """Which window, and what made it close.

    The window is [start_ms, start_ms + window_ms) of event time; step_ms is below window_ms
    for a rolling window. cause_offset, cause_ms: the record of the readings log that moved
    the watermark (or, for a revision, brought the late reading), with the time at which the
    broker received it. absent: gateways that had said that they would be away during some of
    the window, so that their sensors' silence says nothing. backfill: recomputed in bulk;
    raises no live alert.
    part, parts: a shard with more than `PART` sensors tells a window in several messages,
    each of other sensors; a window is whole when all its parts are there.
    """

    version: int = VERSION
    shard: str
    kind: str
    window_ms: Length
    step_ms: Length
    start_ms: Time
    revision: int
    expected: int
    cause_offset: int
    cause_ms: int
    generated: bool = False
    backfill: bool = False
    pack: str = ""
    absent: tuple[str, ...] = ()
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Stats:
    """Columns by sensor. mean = sum / seen. Where seen = 0: sums 0, the rest NaN, last_ms -1.

    seen: readings counted; late: those of them that came after revision 0.
    """

    head: StatsHead
    roster: Roster
    codes: npt.NDArray[np.int32]
    seen: npt.NDArray[np.int32]
    late: npt.NDArray[np.int32]
    sum: npt.NDArray[np.float64]
    sumsq: npt.NDArray[np.float64]
    min: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]
    last_ms: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.codes)


class Effective(msgspec.Struct, frozen=True, kw_only=True, tag="model", tag_field="type"):
    """From the window that starts at `from_ms` on, use this model (by content hash).

    The model travels in the record, so that the log alone says what the stage did. role: `fit`,
    baseline and forecaster of a kind, `body` as `citybrain.models.fitting` wrote it. A large
    model comes in parts, each of some sensors, `part` from 0 to `parts` - 1.
    """

    version: int = VERSION
    shard: str
    kind: str
    role: str
    digest: str
    from_ms: Time
    at_ms: Time
    body: bytes = b""
    part: int = 0
    parts: int = 1


class Rules(msgspec.Struct, frozen=True, kw_only=True, tag="rules", tag_field="type"):
    """A pack change (a threshold, a parked sensor) takes effect here in the log.

    settings: `<rule>.<field>` -> number (raise_at, clear_at, hold_s, a key of settings);
    `maintenance.<sensor>` -> true while the sensor is parked, false from then on. Always all
    that was ever changed, so that the last such record of a log says everything.
    pack: the version that findings carry from here on. rules: the rules of the pack itself,
    where it is another pack than before; else [].
    """

    version: int = VERSION
    shard: str
    pack: str
    settings: dict[str, float | str | bool]
    at_ms: int
    rules: list[Rule] = []


class Passed(msgspec.Struct, frozen=True, kw_only=True, tag="passed", tag_field="type"):
    """The shard's watermark has passed `through_ms`, whether or not a window closed there.

    Keeps the progress of a shard going whose only kinds have long windows.
    """

    version: int = VERSION
    shard: str
    through_ms: Time


Control = Effective | Rules | Passed
Decoded = Stats | Effective | Rules | Passed

_TYPES = {
    "seen": np.int32, "late": np.int32, "sum": np.float64, "sumsq": np.float64,
    "min": np.float64, "max": np.float64, "last": np.float64, "last_ms": np.int64,
}  # fmt: skip
_control = msgspec.json.Decoder(Control)


def encode(stats: Stats) -> bytes:
    """The bytes of a closed window."""
    data = {name: getattr(stats, name) for name in _TYPES}
    return columns.encode(stats.head, stats.roster, stats.codes, data)


def encode_control(record: Control) -> bytes:
    """The bytes of a control record."""
    return msgspec.json.encode(record)


def decode(value: bytes, rosters: Rosters) -> Decoded:
    """What a record of the statistics log says. Raises InvalidInput as `batch.decode`."""
    if value[:1] == b"{":
        try:
            record: Control = _control.decode(value)
            return record
        except JSON_ERRORS as error:
            raise InvalidInput("head", f"control record: {error}") from error
    head, got = columns.decode(value, StatsHead, rosters, _TYPES, READABLE)
    return Stats(head, got.roster, got.codes, **got.data)
