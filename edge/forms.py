"""The forms in which readings come in (JSON, NDJSON, Arrow), turned into columns; pure.

A reading in JSON: {"sensor", "kind", "time", "value", "unit"?, "quality"?}; time is RFC 3339
with an offset, or whole milliseconds UTC; unknown further fields are passed over.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from citybrain.edge import fates
from citybrain.edge.validate import NO_TIME, Candidates, Row
from citybrain.errors import InvalidInput
from citybrain.layout import Layout, codes

JSON = "application/json"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_FARTHEST_MS = 2**42


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One reading as a device writes it."""

    sensor: str
    kind: str
    time: int | Annotated[datetime, msgspec.Meta(tz=True)]
    value: float
    unit: str = ""
    quality: int = 0


_one = msgspec.json.Decoder(Reading)
_many = msgspec.json.Decoder(list[Reading])
_parts = msgspec.json.Decoder(list[msgspec.Raw])
_loose = msgspec.json.Decoder(dict[str, Any])


def parse(body: bytes, form: str, layout: Layout) -> Candidates:
    """The readings of a body in one of the three forms.

    A reading that cannot be read is a row with fate `field`, beside the good ones.
    Raises InvalidInput `json` or `arrow` if the body as a whole cannot be read.
    """
    if form == ARROW:
        return _from_arrow(body, layout)
    if form == NDJSON:
        lines = [line for line in body.split(b"\n") if line.strip()]
        return _from_parts(lines, layout)
    start = body.lstrip()[:1]
    if not start:
        raise InvalidInput("json", "body: is empty, expected a reading or an array of them")
    if start != b"[":
        return _from_parts([body], layout)
    try:
        readings = _many.decode(body)
    except msgspec.MsgspecError:
        try:
            return _from_parts([bytes(part) for part in _parts.decode(body)], layout)
        except msgspec.MsgspecError as error:
            raise InvalidInput("json", f"body: {error}") from error

    def original(index: Sequence[int]) -> bytes:
        parts = _parts.decode(body)
        return b"\n".join(bytes(parts[i]) for i in index)

    return _columns(readings, {}, original, layout)


def _from_parts(parts: list[bytes], layout: Layout) -> Candidates:
    """Readings one by one, so that a bad one does not take the others with it."""
    readings: list[Reading] = []
    bad: dict[int, Row] = {}
    for i, part in enumerate(parts):
        try:
            readings.append(_one.decode(part))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if len(parts) == 1 and not isinstance(error, msgspec.ValidationError):
                raise InvalidInput("json", f"body: {error}") from error
            bad[i] = _salvage(part, str(error))
            readings.append(_NOTHING)
    return _columns(readings, bad, lambda index: b"\n".join(parts[i] for i in index), layout)


_NOTHING = Reading(sensor="", kind="", time=0, value=0.0)


def _salvage(part: bytes, error: str) -> Row:
    """What can be said of a reading that does not have the right form."""
    try:
        found = _loose.decode(part)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Row(error=error)
    return Row(sensor=str(found.get("sensor", "")), kind=str(found.get("kind", "")), error=error)


def _columns(
    readings: list[Reading], bad: dict[int, Row], original: Any, layout: Layout
) -> Candidates:
    kinds = [r.kind for r in readings]
    kind = codes(kinds, layout.kinds)
    wrong = np.zeros(len(readings), np.int8)
    for i, reading in enumerate(readings):
        if reading.unit and kind[i] >= 0 and reading.unit != layout.units[kind[i]]:
            wrong[i] = fates.UNIT
    wrong[list(bad)] = fates.FIELD

    def row(i: int) -> Row:
        r = readings[i]
        time = r.time.isoformat() if isinstance(r.time, datetime) else r.time
        return bad.get(i) or Row(r.sensor, r.kind, time, r.value, r.unit, r.quality)

    return Candidates(
        sensor=codes([r.sensor for r in readings], layout.sensors),
        kind=kind,
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
    return max(-_FARTHEST_MS, min(time, _FARTHEST_MS))


def _from_arrow(body: bytes, layout: Layout) -> Candidates:
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            table = pa.Table.from_batches(list(reader), reader.schema)
        table.validate(full=True)
        table = table.combine_chunks()
        names = table.schema.names
        for name in ("sensor", "kind", "time", "value"):
            if name not in names:
                raise InvalidInput("arrow", f"body: column {name!r} is missing, have {names}")
        sensor, kind = _text(table, "sensor"), _text(table, "kind")
        time = _flat(table, "time")
        if pa.types.is_timestamp(time.type) and time.type.tz:
            time = time.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
        if time.type != pa.int64():
            raise InvalidInput(
                "arrow", f"body: time is {time.type}, expected int64 ms or a timestamp with zone"
            )
        value = _flat(table, "value").cast(pa.float64())
        unit = _text(table, "unit") if "unit" in names else None
        if "quality" in names:
            quality = _flat(table, "quality").fill_null(255).cast(pa.uint8())
        else:
            quality = pa.array(np.zeros(len(table), np.uint8))
    except (pa.ArrowException, OSError, ValueError, StopIteration) as error:
        raise InvalidInput("arrow", f"body: not a readable Arrow stream: {error}") from error
    kind_codes = codes(kind, layout.kinds)
    wrong = np.zeros(len(table), np.int8)
    if unit is not None:
        stated = codes(unit, {"": -2} | {u: i for i, u in enumerate(dict.fromkeys(layout.units))})
        own = codes([*layout.units, ""], {u: i for i, u in enumerate(dict.fromkeys(layout.units))})
        wrong[(stated != -2) & (kind_codes >= 0) & (stated != own[kind_codes])] = fates.UNIT
        wrong[unit.is_null().to_numpy(zero_copy_only=False)] = fates.ACCEPTED

    def row(i: int) -> Row:
        return Row(
            sensor[i].as_py() or "", kind[i].as_py() or "", time[i].as_py(), value[i].as_py(),
            (unit[i].as_py() or "") if unit is not None else "", quality[i].as_py(),
        )  # fmt: skip

    def original(index: Sequence[int]) -> bytes:
        rows = [row(i) for i in index]
        return b"\n".join(
            msgspec.json.encode(
                {"sensor": r.sensor, "kind": r.kind, "time": r.time, "value": r.value}
                | ({"unit": r.unit} if r.unit else {})
                | {"quality": r.quality}
            )
            for r in rows
        )

    return Candidates(
        sensor=codes(sensor, layout.sensors),
        kind=kind_codes,
        time_ms=_int64(time),
        value=value.fill_null(np.nan).to_numpy(zero_copy_only=False),
        quality=quality.to_numpy(zero_copy_only=False),
        wrong=wrong,
        row=row,
        original=original,
    )


def _flat(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _text(table: pa.Table, name: str) -> pa.Array:
    column = _flat(table, name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InvalidInput("arrow", f"body: {name} is {column.type}, expected text")
    return column.cast(pa.utf8())


def _int64(time: pa.Array) -> npt.NDArray[np.int64]:
    ms: npt.NDArray[np.int64] = time.fill_null(NO_TIME).to_numpy(zero_copy_only=False)
    return ms
