"""How the spool's segment files look, version 1; pure, no I/O.

    segment = "citybrain-spool" + version byte + salt (8), then entries
    entry   = mark (4) | length u32 | crc32 u32 | index u64 | readings u32 | payload

The checksum covers the salt, all after itself and the length. The mark lets a reader find
the next whole entry behind damaged bytes; indices rise, so nothing is found twice. The salt
is a spool's own random bytes: a payload that looks like an entry is never taken for one.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from citybrain.errors import InvalidInput

VERSION = 1
MAGIC = b"citybrain-spool"
SALT = 8
HEADER = len(MAGIC) + 1 + SALT
MARK = b"\xc1\x1b\xe7\x9d"
_HEAD = struct.Struct("<4sIIQI")
_REST = struct.Struct("<IQI")
OVERHEAD = _HEAD.size


@dataclass(frozen=True, slots=True)
class Entry:
    """One whole entry: where its bytes end, its number, how many readings it holds."""

    end: int
    index: int
    readings: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [start, end) of a segment that hold no whole entry."""

    start: int
    end: int


def header(salt: bytes) -> bytes:
    """How a segment begins."""
    return MAGIC + bytes([VERSION]) + salt


def salt_of(data: bytes) -> bytes | None:
    """The salt that a segment's beginning states, if it is whole.

    Raises InvalidInput `version` for a segment of a newer format.
    """
    if len(data) <= len(MAGIC) or data[: len(MAGIC)] != MAGIC:
        return None
    if data[len(MAGIC)] > VERSION:
        raise InvalidInput("version", f"spool: version {data[len(MAGIC)]} is not {VERSION}")
    return data[HEADER - SALT : HEADER] if len(data) >= HEADER else None


def pack(salt: bytes, index: int, readings: int, payload: bytes) -> bytes:
    """The bytes of an entry."""
    crc = _crc(salt, index, readings, payload)
    return _HEAD.pack(MARK, len(payload), crc, index, readings) + payload


def scan(data: bytes, salt: bytes, start: int = 0, after: int = -1) -> Iterator[Entry | Damage]:
    """Entries from byte `start` on, and the damage between them.

    after: only entries with a higher index count; others are damage (stale bytes).
    """
    position = damaged = start
    while position < len(data):
        entry = _entry(data, salt, position)
        if entry is None or entry.index <= after:
            found = data.find(MARK, position + 1)
            position = len(data) if found < 0 else found
            continue
        if damaged < position:
            yield Damage(damaged, position)
        yield entry
        after = entry.index
        position = damaged = entry.end
    if damaged < len(data):
        yield Damage(damaged, len(data))


def scan_segment(data: bytes, salt: bytes, after: int = -1) -> Iterator[Entry | Damage]:
    """The same over a whole segment, its header included."""
    start = HEADER if data[:HEADER] == header(salt) else 0
    return scan(data, salt, start, after)


def _crc(salt: bytes, index: int, readings: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(salt + _REST.pack(len(payload), index, readings)))


def _entry(data: bytes, salt: bytes, position: int) -> Entry | None:
    if len(data) - position < OVERHEAD:
        return None
    mark, length, crc, index, readings = _HEAD.unpack_from(data, position)
    end = position + OVERHEAD + length
    if mark != MARK or end > len(data):
        return None
    payload = data[position + OVERHEAD : end]
    if _crc(salt, index, readings, payload) != crc:
        return None
    return Entry(end, index, readings, payload)
