"""Readings in JSON: one, an array, or one a line; pure.

A reading is {"sensor", "kind", "time", "value", "unit"?, "quality"?}; time is RFC 3339 with an
offset, or whole milliseconds UTC; unknown further fields are passed over.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import numpy as np

from citybrain.edge import fates
from citybrain.edge.validate import FARTHEST_MS, Candidates, Row
from citybrain.errors import JSON_ERRORS, InvalidInput
from citybrain.layout import Layout, codes

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading as a device writes it."""

    sensor: str
    kind: str
    time: int | Annotated[datetime, msgspec.Meta(tz=True)]
    value: float
    unit: str = ""
    quality: int = 0


one = msgspec.json.Decoder(Reading).decode
"""A single reading out of its bytes. Raises one of JSON_ERRORS."""

_many = msgspec.json.Decoder(list[Reading])
_parts = msgspec.json.Decoder(list[msgspec.Raw])
_loose = msgspec.json.Decoder(dict[str, Any])

_NOTHING = Reading(sensor="", kind="", time=0, value=0.0)


def parse(body: bytes, layout: Layout) -> Candidates:
    """One reading or an array of them. Raises InvalidInput `json`, or one of JSON_ERRORS."""
    start = body.lstrip()[:1]
    if not start:
        raise InvalidInput("json", "body: is empty, expected a reading or an array of them")
    if start != b"[":
        return _each([body], layout)
    try:
        readings = _many.decode(body)
    except JSON_ERRORS:
        return _each([bytes(part) for part in _parts.decode(body)], layout)

    def original(index: Sequence[int]) -> bytes:
        try:
            parts = _parts.decode(body)
        except JSON_ERRORS:  # nested so deeply that it depends on who asks: what was understood
            return b"\n".join(msgspec.json.encode(readings[i]) for i in index)
        return b"\n".join(bytes(parts[i]) for i in index)

    return columns(readings, {}, original, layout)


def parse_lines(body: bytes, layout: Layout) -> Candidates:
    """One reading a line. Raises InvalidInput `json` if nothing of a single one can be read."""
    return _each([line for line in body.split(b"\n") if line.strip()], layout)


def _each(parts: list[bytes], layout: Layout) -> Candidates:
    """Readings one by one, so that a bad one does not take the others with it."""
    readings: list[Reading] = []
    bad: dict[int, Row] = {}
    for i, part in enumerate(parts):
        try:
            readings.append(one(part))
        except JSON_ERRORS as error:
            row = _salvage(part, error)
            if len(parts) == 1 and not row.sensor and not _is_reading(error):
                raise InvalidInput("json", f"body: {row.error}") from error
            bad[i] = row
            readings.append(_NOTHING)
    return columns(readings, bad, lambda index: b"\n".join(parts[i] for i in index), layout)


def _is_reading(error: Exception) -> bool:
    return isinstance(error, msgspec.ValidationError)


def _salvage(part: bytes, error: Exception) -> Row:
    """What can be said of a reading that does not have the right form."""
    why = "nested too deeply for a reading" if isinstance(error, RecursionError) else str(error)
    if "$." not in why and "field `" not in why:  # else it names the field
        why = f"reading: {why}"
    try:
        found = _loose.decode(part.decode("utf-8", "replace"))
    except JSON_ERRORS:
        return Row(error=why)
    if isinstance(error, UnicodeDecodeError):
        foreign = [name for name, said in found.items() if "\ufffd" in f"{name}{_text(said)}"]
        why = f"{', '.join(foreign) or 'reading'}: is not UTF-8: {error}"
    return Row(sensor=_text(found.get("sensor")), kind=_text(found.get("kind")), error=why)


def _text(said: object) -> str:
    return said if isinstance(said, str) else ""


def columns(
    readings: Sequence[Reading],
    bad: dict[int, Row],
    original: Callable[[Sequence[int]], bytes],
    layout: Layout,
) -> Candidates:
    """Readings as columns. bad: those that could not be read, by their place."""
    units = layout.unit_of
    wrong = np.array(
        [
            fates.UNIT if r.unit and r.unit != units.get(r.kind, r.unit) else fates.ACCEPTED
            for r in readings
        ],
        np.int8,
    )
    if bad:
        wrong[list(bad)] = fates.FIELD

    def row(i: int) -> Row:
        r = readings[i]
        time = r.time.isoformat() if isinstance(r.time, datetime) else r.time
        return bad.get(i) or Row(r.sensor, r.kind, time, r.value, r.unit, r.quality)

    return Candidates(
        sensor=codes([r.sensor for r in readings], layout.sensors),
        kind=codes([r.kind for r in readings], layout.kinds),
        time_ms=np.array([_ms(r.time) for r in readings], np.int64),
        value=np.array([r.value for r in readings], np.float64),
        quality=np.array([r.quality if 0 <= r.quality <= 2 else 255 for r in readings], np.uint8),
        wrong=wrong,
        row=row,
        original=original,
    )


def _ms(time: int | datetime) -> int:
    if isinstance(time, datetime):
        return (time - _EPOCH) // _MS
    return max(-FARTHEST_MS, min(time, FARTHEST_MS))
