"""Named arrays as bytes: model bodies and state blocks. The same content gives the same bytes."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain.errors import InvalidInput

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_M = TypeVar("_M")
_MAGIC = b"CBB1"
_TYPES = frozenset({"<f8", "<f4", "<i8", "<i4", "<i2", "|u1", "|b1", "|i1"})


class _Entry(msgspec.Struct, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Head(msgspec.Struct, array_like=True):
    meta: msgspec.Raw
    entries: list[_Entry]


def pack(meta: msgspec.Struct, arrays: Mapping[str, Array]) -> bytes:
    """Bytes of a typed head and arrays (little-endian numbers and booleans)."""
    entries, parts = [], []
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if little.dtype.str not in _TYPES:
            raise TypeError(f"{name}: {array.dtype} is not among {sorted(_TYPES)}")
        entries.append(_Entry(name, little.dtype.str, little.shape))
        parts.append(little.tobytes())
    head = msgspec.msgpack.encode(_Head(msgspec.Raw(msgspec.msgpack.encode(meta)), entries))
    return b"".join([_MAGIC, len(head).to_bytes(4, "little"), head, *parts])


def unpack(value: bytes, meta_type: type[_M]) -> tuple[_M, Arrays]:
    """The head and writable arrays of `pack`.

    Raises InvalidInput `format`: cut short, of another form, or with bytes left over.
    """
    if value[:4] != _MAGIC:
        raise InvalidInput("format", f"block: begins with {value[:4]!r}, expected {_MAGIC!r}")
    at = 8 + int.from_bytes(value[4:8], "little")
    try:
        head = msgspec.msgpack.decode(value[8:at], type=_Head)
        meta = msgspec.msgpack.decode(head.meta, type=meta_type)
    except msgspec.MsgspecError as error:
        raise InvalidInput("format", f"block: head: {error}") from error
    arrays: Arrays = {}
    for entry in head.entries:
        if entry.dtype not in _TYPES or any(side < 0 for side in entry.shape):
            raise InvalidInput("format", f"block: {entry.name}: {entry.dtype} {entry.shape}")
        dtype = np.dtype(entry.dtype)
        size = dtype.itemsize * int(np.prod(entry.shape, dtype=np.int64))
        if at + size > len(value):
            raise InvalidInput("format", f"block: {entry.name}: cut short at {len(value)} bytes")
        array = np.frombuffer(value, dtype, count=size // dtype.itemsize, offset=at)
        arrays[entry.name] = array.reshape(entry.shape).copy()
        at += size
    if at != len(value):
        raise InvalidInput("format", f"block: {len(value) - at} bytes left over")
    return meta, arrays


def aligned(
    arrays: Mapping[str, Array], old: tuple[str, ...], new: tuple[str, ...], fresh: Arrays
) -> Arrays:
    """State of the sensors `old` laid out for the sensors `new`; new ones start as `fresh`.

    Every array has the sensor as its first axis. Arrays that `fresh` does not know are left
    out, those that it alone knows start fresh: a state of an older layout is still readable.
    """
    if old == new and arrays.keys() == fresh.keys():
        return dict(arrays)
    position = {name: i for i, name in enumerate(old)}
    source = np.array([position.get(name, -1) for name in new], dtype=np.int64)
    known = source >= 0
    for key in fresh.keys() & arrays.keys():
        if arrays[key].shape[1:] == fresh[key].shape[1:]:
            fresh[key][known] = arrays[key][source[known]]
    return fresh
