"""What an MQTT connection brings, in bulk: many messages a read, many acknowledgements a write.

paho decodes one packet a call, in some sixty microseconds, and writes each acknowledgement by
itself. Connecting, TLS, subscribing, keeping alive and every other packet stay with it; PUBLISH
packets are taken out of the stream before it (MQTT 5.0, OASIS 2019, section 3.3).
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_READ_BYTES = 64 << 10
_READS = 16
_PUBLISH, _PUBACK = 0x30, 0x40
_puback = struct.Struct("!BBH").pack


class Published(NamedTuple):
    """One message. mid: 0 if it wants no acknowledgement. form: its content type, or ""."""

    topic: bytes
    payload: bytes
    mid: int
    form: str


class Malformed(ValueError):
    """The stream is no MQTT."""


class Split(NamedTuple):
    """found: whole messages of quality 0 and 1. others: the other whole packets, as they are.
    rest: the beginning of a packet that is `missing` bytes longer, at least."""

    found: list[Published]
    others: bytes
    rest: bytes
    missing: int


def split(stream: bytes) -> Split:
    """Take the messages out of a stream of packets. Raises Malformed."""
    found: list[Published] = []
    others: list[bytes] = []
    start, end = 0, len(stream)
    missing = 1
    while end - start >= 2:
        length = stream[start + 1]
        at = start + 2
        if length & 0x80:
            length, at = _variable(stream, start + 1)
        if not at or at + length > end:
            missing = max(1, at + length - end)
            break
        command = stream[start]
        if command & 0xF0 == _PUBLISH and not command & 0x04:
            found.append(_published(stream, at, at + length, bool(command & 0x02)))
        else:
            others.append(stream[start : at + length])
        start = at + length
    return Split(found, b"".join(others), stream[start:], missing)


def _variable(stream: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends; (0, 0) if it is not all there."""
    value = 0
    for place in range(4):
        if at + place >= len(stream):
            return 0, 0
        byte = stream[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, at + place + 1
    raise Malformed("a length of more than four bytes")


def _published(stream: bytes, at: int, end: int, wants_answer: bool) -> Published:
    try:
        after = at + 2 + (stream[at] << 8 | stream[at + 1])
        topic = stream[at + 2 : after]
        mid = 0
        if wants_answer:
            mid = stream[after] << 8 | stream[after + 1]
            after += 2
        form, size = "", 1
        if stream[after]:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
            _, size = properties.unpack(stream[after:end])  # type: ignore[no-untyped-call]  # paho
            form = str(getattr(properties, "ContentType", ""))
        after += size
    except (LookupError, ValueError, AttributeError, struct.error, MQTTException) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from error
    if after > end:
        raise Malformed("a message that is shorter than it says")
    return Published(topic, stream[after:end], mid, form)


class Inbox:
    """Stands between a client's socket and paho; made before the client connects.

    unwanted: messages of quality 0 that found `limit` others waiting and were dropped; those of
    quality 1 are bounded by the session.
    """

    def __init__(self, client: paho.Client, limit: int) -> None:
        self._client = client
        self._limit = limit
        self._receive = client._sock_recv
        self._hand_on = client.loop_read
        self._parts: list[bytes] = []
        self._missing = 0
        self._others = b""
        self._lost: OSError | None = None
        self._closed = False
        self._waiting: list[Published] = []
        self.arrived = asyncio.Event()
        self.unwanted = 0
        client.loop_read = self._read  # type: ignore[method-assign]  # the event loop calls it
        client._sock_recv = self._next  # type: ignore[assignment,method-assign]  # paho reads by it

    def take(self, most: int) -> list[Published]:
        """The oldest messages that wait."""
        taken, self._waiting = self._waiting[:most], self._waiting[most:]
        if not self._waiting:
            self.arrived.clear()
        return taken

    def acknowledge(self, messages: Sequence[Published]) -> None:
        """Tell the broker, in the order of arrival, that these need not be sent again."""
        answers = b"".join(_puback(_PUBACK, 2, m.mid) for m in messages if m.mid)
        if answers:
            self._client._packet_queue(_PUBACK, answers, 0, 1)

    def _read(self, max_packets: int = 1) -> MQTTErrorCode:
        """In place of paho's `loop_read`: all that the socket has, within reason."""
        for _ in range(_READS):
            try:
                data = self._receive(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._lost = error
                break
            if not data:
                self._closed = True
                break
            # A long message is put together once, when all of it is here.
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                continue
            try:
                found, others, rest, self._missing = split(b"".join(self._parts))
            except Malformed as error:
                self._lost = OSError(f"mqtt: {error}")
                break
            self._parts = [rest]
            self._others += others
            self._keep(found)
        result = MQTTErrorCode.MQTT_ERR_SUCCESS
        while (self._others or self._lost or self._closed) and not result:
            result = self._hand_on(max_packets)
            if self._client.socket() is None:
                break
        return result

    def _keep(self, found: list[Published]) -> None:
        room = self._limit - len(self._waiting)
        if room < len(found):
            kept = [m for i, m in enumerate(found) if m.mid or i < room]
            self.unwanted += len(found) - len(kept)
            found = kept
        self._waiting += found
        if found:
            self.arrived.set()

    def _next(self, size: int) -> bytes:
        """In place of paho's own reading of the socket: what is left for it of the stream."""
        if self._others:
            data, self._others = self._others[:size], self._others[size:]
            return data
        if self._lost:
            raise self._lost
        if self._closed:
            return b""
        raise BlockingIOError
