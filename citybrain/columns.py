"""Columnar messages: one Arrow record batch and a typed head, the form of all bulk data.

The head travels as JSON in the schema's metadata under `citybrain`; the columns are plain
arrays beside a dictionary column of sensor names. Names are decoded once per distinct
dictionary: a `Rosters` cache hands out the same `Roster` object for the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from citybrain import arrow_size
from citybrain.errors import JSON_ERRORS, InvalidInput

Array = npt.NDArray[Any]
_HEAD = b"citybrain"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """An ordered list of sensor names. Compared by identity, so it can key a cache."""

    names: tuple[str, ...]
    _arrow: list[pa.StringArray] = field(default_factory=list, repr=False)

    def to_arrow(self) -> pa.StringArray:
        """The names as an Arrow array, always the same one."""
        if not self._arrow:
            self._arrow.append(pa.array(self.names, type=pa.utf8()))
        return self._arrow[0]


class Rosters:
    """Distinct dictionaries seen lately. Exact: told apart by their bytes, not by a hash."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._known: dict[tuple[int, int, bytes], list[Roster]] = {}
        self._count = 0

    def of(self, names: pa.StringArray) -> Roster:
        """The roster of an Arrow string array without nulls.

        Raises ArrowInvalid if the array is damaged; one that is known cannot be.
        """
        data = names.buffers()[2]
        size = data.size if data is not None else 0
        tail = data.slice(max(0, size - 32)).to_pybytes() if data is not None else b""
        alike = self._known.setdefault((len(names), size, tail), [])
        for roster in alike:
            if _same(roster.to_arrow(), names):
                return roster
        names.validate(full=True)
        if self._count >= self._limit:
            oldest = next(key for key, rosters in self._known.items() if rosters)
            self._count -= len(self._known.pop(oldest))
            alike = self._known.setdefault((len(names), size, tail), [])
        alike.append(Roster(tuple(names.to_pylist())))
        self._count += 1
        return alike[-1]


def _same(known: pa.StringArray, names: pa.StringArray) -> bool:
    """Whether two arrays have the same bytes: their offsets and their text."""
    mine, theirs = known.buffers(), names.buffers()
    if names.offset or mine[2] is None or theirs[2] is None:
        names.validate(full=True)
        return bool(known.equals(names))
    return bool(mine[1].equals(theirs[1]) and mine[2].equals(theirs[2]))


@dataclass(frozen=True, slots=True)
class Columns:
    """A decoded message: `codes` index into `roster.names`; `data` by column name."""

    roster: Roster
    codes: npt.NDArray[np.int32]
    data: dict[str, Array]


def encode(head: msgspec.Struct, roster: Roster, codes: Array, data: Mapping[str, Array]) -> bytes:
    """One Arrow IPC stream with one batch. All arrays have the length of `codes`."""
    sensor = pa.DictionaryArray.from_arrays(pa.array(codes, type=pa.int32()), roster.to_arrow())
    arrays = [sensor, *(pa.array(column) for column in data.values())]
    batch = pa.RecordBatch.from_arrays(arrays, names=["sensor", *data])
    batch = batch.replace_schema_metadata({_HEAD: msgspec.json.encode(head)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def decode(
    value: bytes,
    head_type: type[_T],
    rosters: Rosters,
    types: Mapping[str, Any],
    readable: tuple[int, ...] = (),
) -> tuple[_T, Columns]:
    """Head and columns of a message; arrays are views of `value` where Arrow allows it.

    types: column name -> numpy dtype that it must have. Unknown extra columns are kept.
    readable: versions that the head may state; any if empty.
    Raises InvalidInput: `format` (not Arrow, truncated), `version`, `head` (a field is missing
    or wrong; the message names it), `columns` (one is missing, of another type, or holds nulls),
    `size` (it would unpack to more than `arrow_size.UNPACKED_BYTES`).
    """
    arrow_size.check(value)
    with _refusing():
        reader = pa.ipc.open_stream(pa.py_buffer(value))
        schema = reader.schema
    head = _head(schema, head_type, readable)
    with _refusing():
        batch = reader.read_next_batch()
        batch.validate()
    place = _places(schema, tuple(types.items()))
    data: dict[str, Array] = {}
    for name in types:
        column = batch.column(place[name])
        if column.null_count:
            raise InvalidInput("columns", f"column {name!r} has {column.null_count} nulls")
        data[name] = column.to_numpy(zero_copy_only=False)
    sensor = batch.column(place["sensor"])
    names = sensor.dictionary
    if sensor.null_count or names.null_count:
        raise InvalidInput("columns", "column 'sensor' must name sensors, without nulls")
    with _refusing():
        roster = rosters.of(names)
    codes = sensor.indices.to_numpy(zero_copy_only=False)
    # As unsigned numbers, negative codes are beyond every dictionary.
    if len(codes) and np.maximum.reduce(codes.view(np.uint32)) >= len(roster.names):
        raise InvalidInput("format", "column 'sensor' has codes beyond its dictionary")
    return head, Columns(roster, codes, data)


_Types = tuple[tuple[str, Any], ...]
_SENSOR = pa.dictionary(pa.int32(), pa.utf8())


@cache
def _plain(types: _Types) -> tuple[pa.Schema, dict[str, int]]:
    """What `encode` writes, and where its columns are."""
    columns = [("sensor", _SENSOR), *((name, pa.from_numpy_dtype(dtype)) for name, dtype in types)]
    return pa.schema(columns), {name: i for i, (name, _) in enumerate(columns)}


def _places(schema: pa.Schema, types: _Types) -> dict[str, int]:
    """Where the wanted columns are. Raises InvalidInput `columns`."""
    plain, place = _plain(types)
    if schema.equals(plain):
        return place
    with _refusing():
        names = schema.names
    if len(set(names)) != len(names):
        raise InvalidInput("columns", f"a column stands twice in {names}")
    place = {name: i for i, name in enumerate(names)}
    for name, dtype in types:
        if name not in place:
            raise InvalidInput("columns", f"column {name!r} is missing, have {names}")
        if schema.types[place[name]] != pa.from_numpy_dtype(dtype):
            raise InvalidInput(
                "columns",
                f"column {name!r} is {schema.types[place[name]]}, expected {np.dtype(dtype)}",
            )
    kind = schema.types[place["sensor"]] if "sensor" in place else None
    if kind is None or not pa.types.is_dictionary(kind):
        raise InvalidInput("columns", f"column 'sensor' must be a dictionary, have {names}")
    if kind.index_type != pa.int32() or kind.value_type != pa.utf8():
        raise InvalidInput("columns", f"column 'sensor' is {kind}, expected {_SENSOR}")
    return place


class _refusing:
    """Turns whatever Arrow raises on damaged bytes into InvalidInput."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(
            error, (pa.ArrowInvalid, OSError, StopIteration, ValueError, pa.ArrowException)
        ):
            raise InvalidInput("format", f"not a readable Arrow stream: {error}") from error


def _head(schema: pa.Schema, head_type: type[_T], readable: tuple[int, ...]) -> _T:
    raw = (schema.metadata or {}).get(_HEAD)
    if raw is None:
        raise InvalidInput("head", "schema metadata has no 'citybrain' entry")
    try:
        head = msgspec.json.decode(raw, type=head_type)
    except JSON_ERRORS as error:
        # A newer format may have another head: what matters then is that it is newer.
        _check_version(raw, readable)
        raise InvalidInput("head", f"head: {error}") from error
    if readable and getattr(head, "version", None) not in readable:
        _check_version(raw, readable)
    return head


class _Version(msgspec.Struct):
    version: int


def _check_version(raw: bytes, readable: tuple[int, ...]) -> None:
    try:
        version = msgspec.json.decode(raw, type=_Version).version
    except JSON_ERRORS as error:
        raise InvalidInput("head", f"head: {error}") from error
    if readable and version not in readable:
        raise InvalidInput("version", f"version: {version} is not one of {readable}")
