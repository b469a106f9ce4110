"""The readings log: batches of readings, heartbeats and control records, version 1.

A batch holds readings of one kind from one gateway for one shard. What is not a batch is a
small JSON record; the first byte tells them apart (`{` never begins an Arrow stream).
"""

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain import columns
from citybrain.columns import Roster, Rosters
from citybrain.errors import JSON_ERRORS, InvalidInput

VERSION = 1
READABLE = (1,)

GOOD, SUSPECT, BAD = 0, 1, 2
"""Quality of a reading as its device states it."""


class BatchHead(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a batch and what it says beside its readings.

    seq: counts a gateway's batches for one shard from 0 in each incarnation, heartbeats
    not counted. watermark_ms: this gateway will send nothing before that time any more,
    save in the backfill lane. sent_ms: wall clock of the edge agent.
    """

    version: int = VERSION
    gateway: str
    incarnation: str
    shard: str
    seq: int
    kind: str
    watermark_ms: int
    sent_ms: int
    lane: Literal["live", "backfill"] = "live"
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings: `codes` index into `roster.names`, times int64 UTC ms, values float64."""

    head: BatchHead
    roster: Roster
    codes: npt.NDArray[np.int32]
    time_ms: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    quality: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.codes)


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat", tag_field="type"):
    """A gateway is there and will send nothing before `watermark_ms` any more.

    interval_ms: when the next one may be expected at the latest. counts: the agent's totals
    for this incarnation and shard, by fate (produced, duplicate, ...). leaving: the
    agent is being stopped; until it speaks again nothing is to be expected, and nothing known.
    """

    version: int = VERSION
    gateway: str
    incarnation: str
    shard: str
    watermark_ms: int
    sent_ms: int
    interval_ms: int = 5_000
    counts: dict[str, int] = {}
    leaving: bool = False


class LeaveOut(msgspec.Struct, frozen=True, kw_only=True, tag="leave-out", tag_field="type"):
    """The partition's owner says: do not wait for this gateway until it speaks again."""

    version: int = VERSION
    shard: str
    gateway: str
    reason: Literal["silent", "lagging"]
    at_ms: int


class Idle(msgspec.Struct, frozen=True, kw_only=True, tag="idle", tag_field="type"):
    """Nobody is left to wait for: the watermark may pass to `watermark_ms`."""

    version: int = VERSION
    shard: str
    watermark_ms: int
    at_ms: int


Control = Heartbeat | LeaveOut | Idle

_COLUMNS = {"time": np.int64, "value": np.float64, "quality": np.uint8}
_control = msgspec.json.Decoder(Control)
_encoder = msgspec.json.Encoder()


def encode(batch: Batch) -> bytes:
    """The bytes of a batch on the readings log."""
    data: dict[str, columns.Array] = {
        "time": batch.time_ms,
        "value": batch.value,
        "quality": batch.quality,
    }
    return columns.encode(batch.head, batch.roster, batch.codes, data)


def encode_control(record: Control) -> bytes:
    """The bytes of a heartbeat or control record."""
    return _encoder.encode(record)


def decode(value: bytes, rosters: Rosters) -> Batch | Control:
    """What a record of the readings log says.

    Raises InvalidInput: `format`, `head`, `columns` as in `columns.decode`, or `version` for
    a format newer than this reader knows (it can be retried after an upgrade).
    """
    if value[:1] == b"{":
        try:
            record: Control = _control.decode(value)
        except JSON_ERRORS as error:
            raise InvalidInput("head", f"control record: {error}") from error
        _check_version(record.version)
        return record
    head, got = columns.decode(value, BatchHead, rosters, _COLUMNS, READABLE)
    data = got.data
    return Batch(head, got.roster, got.codes, data["time"], data["value"], data["quality"])


def _check_version(version: int) -> None:
    if version not in READABLE:
        raise InvalidInput("version", f"version: {version} is not one of {READABLE}")
