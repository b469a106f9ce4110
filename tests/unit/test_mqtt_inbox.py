"""Messages out of an MQTT stream, whatever pieces it comes in."""

import itertools
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citybrain.edge.sources.mqtt_inbox import Malformed, Published, split

PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x04\x00\x07\x00\x01"


def packet(message: Published) -> bytes:
    """A PUBLISH packet as MQTT 5.0, 3.3 lays it out."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
    if message.form:
        properties.ContentType = message.form
        properties.UserProperty = ("firmware", "1.2")
    mid = struct.pack("!H", message.mid) if message.mid else b""
    head = struct.pack("!H", len(message.topic)) + message.topic + mid
    body = head + properties.pack() + message.payload  # type: ignore[no-untyped-call]  # paho
    length, rest = b"", len(body)
    while True:
        length += bytes([rest % 128 | (0x80 if rest > 127 else 0)])
        rest //= 128
        if not rest:
            return bytes([0x32 if message.mid else 0x30]) + length + body


MESSAGES = st.builds(
    Published,
    topic=st.sampled_from([b"citybrain/g1/readings", "citybrain/路口/backfill".encode()]),
    payload=st.binary(max_size=40) | st.integers(100, 40_000).map(bytes),
    mid=st.integers(0, 65_535),
    form=st.sampled_from(["", "application/json", "x" * 300]),
)


@given(
    items=st.lists(MESSAGES | st.sampled_from([PINGRESP, SUBACK]), max_size=12),
    cuts=st.lists(st.integers(0, 100_000), max_size=12),
)
def test_every_message_is_found_once_and_in_order_wherever_the_stream_is_cut(
    items: list[Published | bytes], cuts: list[int]
) -> None:
    stream = b"".join(i if isinstance(i, bytes) else packet(i) for i in items)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    found: list[Published] = []
    others, rest, missing = b"", b"", 1
    for start, end in itertools.pairwise(edges):
        before = len(rest)
        part = split(rest + stream[start:end])
        if end - start < missing:
            assert len(part.rest) == before + end - start, "it said that more was missing"
        found += part.found
        others += part.others
        rest, missing = part.rest, part.missing
    assert found == [item for item in items if isinstance(item, Published)]
    assert others == b"".join(item for item in items if isinstance(item, bytes))
    assert rest == b""


@given(stream=st.binary(max_size=80), message=MESSAGES, at=st.integers(0, 60), put=st.binary())
def test_a_stream_that_is_no_mqtt_is_said_to_be_none(
    stream: bytes, message: Published, at: int, put: bytes
) -> None:
    good = packet(message)
    for said in (stream, good[:at] + put + good[at + len(put) :]):
        with suppress(Malformed):
            split(said)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x32\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x32\x03\x00\x09a",  # a topic longer than its message
        b"\x32\x06\x00\x01a\x00\x07\x05",  # properties longer than the message
        b"\x32\x08\x00\x01a\x00\x07\x02\x7f\x00",  # a property that there is not
    ],
)
def test_what_is_wrong_is_not_taken_for_a_message(stream: bytes) -> None:
    with pytest.raises(Malformed):
        split(stream)
