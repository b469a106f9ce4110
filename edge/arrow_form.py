"""Readings as an Arrow IPC stream, judged column by column as JSON is; pure.

Columns sensor, kind (text, also dictionary-encoded), time (int64 ms UTC, or a timestamp with a
zone), value (numbers); unit (text) and quality (whole numbers) if wanted; others are passed over.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from citybrain import arrow_size
from citybrain.edge import fates
from citybrain.edge.validate import FARTHEST_MS, NO_TIME, Candidates, Row
from citybrain.errors import InvalidInput
from citybrain.layout import Layout, codes

_NEEDED = ("sensor", "kind", "time", "value")
_MS_IN = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}


def parse(body: bytes, layout: Layout) -> Candidates:
    """The rows of a stream. Raises InvalidInput `arrow` naming a column, `size` for one that
    would unpack to more than a body may, or what Arrow raises."""
    arrow_size.check(body)
    with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
        table = pa.Table.from_batches(list(reader), reader.schema)
    table.validate(full=True)
    table = table.combine_chunks()
    names = table.schema.names
    for name in _NEEDED:
        if name not in names:
            raise InvalidInput("arrow", f"body: column {name!r} is missing, have {names}")
    for name in (*_NEEDED, "unit", "quality"):
        if names.count(name) > 1:
            raise InvalidInput("arrow", f"body: column {name!r} is there {names.count(name)} times")
    sensor, kind = _text(table, "sensor"), _text(table, "kind")
    time_ms = _time_ms(_flat(table, "time"))
    value = _numbers(table, "value")
    unit = _text(table, "unit") if "unit" in names else None
    quality = _whole(table, "quality") if "quality" in names else None
    kind_codes = codes(kind, layout.kinds)
    wrong = np.zeros(len(table), np.int8)
    if unit is not None:
        stated = codes(unit, {"": -2} | {u: i for i, u in enumerate(dict.fromkeys(layout.units))})
        own = codes([*layout.units, ""], {u: i for i, u in enumerate(dict.fromkeys(layout.units))})
        wrong[(stated != -2) & (kind_codes >= 0) & (stated != own[kind_codes])] = fates.UNIT
        wrong[unit.is_null().to_numpy(zero_copy_only=False)] = fates.ACCEPTED

    def row(i: int) -> Row:
        return Row(
            sensor=sensor[i].as_py() or "",
            kind=kind[i].as_py() or "",
            time=None if time_ms[i] == NO_TIME else int(time_ms[i]),
            value=value[i].as_py(),
            unit=(unit[i].as_py() or "") if unit is not None else "",
            quality=0 if quality is None else quality[i].as_py(),
        )

    def original(index: Sequence[int]) -> bytes:
        return b"\n".join(
            msgspec.json.encode(
                {"sensor": r.sensor, "kind": r.kind, "time": r.time, "value": r.value}
                | ({"unit": r.unit} if r.unit else {})
                | {"quality": r.quality}
            )
            for r in map(row, index)
        )

    return Candidates(
        sensor=codes(sensor, layout.sensors),
        kind=kind_codes,
        time_ms=time_ms,
        value=value.fill_null(np.nan).to_numpy(zero_copy_only=False),
        quality=_known_quality(quality, len(table)),
        wrong=wrong,
        row=row,
        original=original,
    )


def _flat(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    flat = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if not pa.types.is_dictionary(flat.type):
        return flat
    values = flat.dictionary
    texts = (pa.types.is_string, pa.types.is_large_string)
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_timestamp, *texts)
    if not any(known(values.type) for known in plain):
        raise InvalidInput("arrow", f"body: {name} is {flat.type}, expected text or numbers")
    if any(known(values.type) for known in texts) and len(values):
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if longest * len(flat) > arrow_size.UNPACKED_BYTES:
            raise InvalidInput(
                "size",
                f"body: {name}: {len(flat)} rows of up to {longest} bytes, expected at most"
                f" {arrow_size.UNPACKED_BYTES} bytes of text",
            )
    return flat.dictionary_decode()


def _text(table: pa.Table, name: str) -> pa.Array:
    column = _flat(table, name)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InvalidInput("arrow", f"body: {name} is {column.type}, expected text")
    return column.cast(pa.utf8())


def _numbers(table: pa.Table, name: str) -> pa.Array:
    """As float64; what does not fit exactly is judged by its range like any other."""
    column = _flat(table, name)
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if not any(is_one(column.type) for is_one in kinds):
        raise InvalidInput("arrow", f"body: {name} is {column.type}, expected numbers")
    return column.cast(pa.float64(), safe=False)


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = _flat(table, name)
    if not pa.types.is_integer(column.type):
        raise InvalidInput("arrow", f"body: {name} is {column.type}, expected whole numbers")
    return column


def _known_quality(quality: pa.Array | None, rows: int) -> npt.NDArray[np.uint8]:
    """0 to 2 as they are; 255, which the door refuses, for every other number and none."""
    if quality is None:
        return np.zeros(rows, np.uint8)
    numbers = quality.fill_null(3).to_numpy(zero_copy_only=False)
    known: npt.NDArray[np.uint8] = np.where(
        (numbers >= 0) & (numbers <= 2), numbers, 255
    ).astype(np.uint8)  # fmt: skip
    return known


def _time_ms(time: pa.Array) -> npt.NDArray[np.int64]:
    """Milliseconds UTC, NO_TIME for none; the far future and past are cut, as with JSON."""
    zoned = pa.types.is_timestamp(time.type) and bool(time.type.tz)
    if not zoned and time.type != pa.int64():
        raise InvalidInput(
            "arrow", f"body: time is {time.type}, expected int64 ms or a timestamp with zone"
        )
    per_ms = _MS_IN[time.type.unit] if zoned else 1
    stated = time.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if per_ms < 1:
        seconds = FARTHEST_MS // 1000
        ms = np.clip(stated, -seconds, seconds) * 1000
    else:
        ms = np.clip(stated // int(per_ms), -FARTHEST_MS, FARTHEST_MS)
    ms[time.is_null().to_numpy(zero_copy_only=False)] = NO_TIME
    found: npt.NDArray[np.int64] = ms
    return found
