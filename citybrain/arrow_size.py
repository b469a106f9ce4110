"""How large an Arrow stream says it becomes, read before anything of it is unpacked.

A few kilobytes of zstd or lz4 may unpack to gigabytes. Every compressed buffer of the IPC
format begins with the length that it unpacks to, and where the buffers lie is in the metadata
in front of them (Arrow columnar format 1.5, "Encapsulated message format", "Compression"; the
metadata are FlatBuffers of Message.fbs). So the sum can be known for nothing.
"""

import struct
from collections.abc import Iterator

from citybrain.errors import InvalidInput

UNPACKED_BYTES = 64 << 20
"""What one message may unpack to: eight times the largest body that an edge agent takes."""

_CONTINUES = 0xFFFFFFFF
_DICTIONARY, _RECORDS = 2, 3
_U16, _I32, _U32, _I64 = (struct.Struct(form) for form in ("<H", "<i", "<I", "<q"))
_PAIR = struct.Struct("<qq")


def check(value: bytes, limit: int = UNPACKED_BYTES) -> None:
    """Raises InvalidInput `size` if the buffers of a stream unpack to more than `limit` bytes.

    A stream that is damaged passes as far as it can be read: Arrow finds what is wrong with it.
    """
    size = 0
    try:
        for unpacked in _unpacked(value):
            size += unpacked
            if size > limit:
                raise InvalidInput(
                    "size", f"body: unpacks to {size} bytes or more, expected at most {limit}"
                )
    except (struct.error, IndexError):
        return  # it ends in the middle, or points out of itself


def _unpacked(value: bytes) -> Iterator[int]:
    """The stated length of every compressed buffer."""
    at, end = 0, len(value)
    while at + 8 <= end:
        (size,) = _U32.unpack_from(value, at)
        at += 4
        if size == _CONTINUES:
            (size,) = _U32.unpack_from(value, at)
            at += 4
        if size == 0 or at + size > end:
            return
        message = _Table(value, at + _U32.unpack_from(value, at)[0])
        body = at + size
        length = _I64.unpack_from(value, place)[0] if (place := message.field(3)) else 0
        kind = value[place] if (place := message.field(1)) else 0
        header = message.table(2) if kind in (_DICTIONARY, _RECORDS) else None
        if header is not None and kind == _DICTIONARY:
            header = header.table(1)
        if header is not None and header.field(3):  # compression
            for offset, held in header.pairs(2):
                if held >= 8 and 0 <= offset <= length - 8:
                    yield max(0, _I64.unpack_from(value, body + offset)[0])
        if length < 0:
            return
        at = body + length


class _Table:
    """One FlatBuffers table; a field is a place in the bytes, 0 if it is not there."""

    def __init__(self, value: bytes, at: int) -> None:
        self._value, self._at = value, at
        self._fields = at - _I32.unpack_from(value, at)[0]
        if self._fields < 0:
            raise struct.error("a table before its bytes")
        self._size = _U16.unpack_from(value, self._fields)[0]

    def field(self, number: int) -> int:
        place = 4 + 2 * number
        if place + 2 > self._size:
            return 0
        offset: int = _U16.unpack_from(self._value, self._fields + place)[0]
        return self._at + offset if offset else 0

    def table(self, number: int) -> "_Table | None":
        place = self.field(number)
        return (
            _Table(self._value, place + _U32.unpack_from(self._value, place)[0]) if place else None
        )

    def pairs(self, number: int) -> Iterator[tuple[int, int]]:
        """A vector of (offset, length)."""
        place = self.field(number)
        if place:
            start = place + _U32.unpack_from(self._value, place)[0]
            (count,) = _U32.unpack_from(self._value, start)
            for i in range(min(count, len(self._value) // 16)):
                yield _PAIR.unpack_from(self._value, start + 4 + 16 * i)
