"""Refused bytes, shown so that somebody can see what is wrong with them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from citybrain import batch
from citybrain.columns import Roster
from citybrain.legible import BYTES, legible


def message(count: int, time_ms: int = 0) -> bytes:
    head = batch.BatchHead(
        gateway="g1", incarnation="i1", shard="north", seq=3, kind="temperature",
        watermark_ms=0, sent_ms=0,
    )  # fmt: skip
    codes, times = np.zeros(count, np.int32), np.full(count, time_ms, np.int64)
    return batch.encode(
        batch.Batch(
            head, Roster(("w1",)), codes, times, np.full(count, 21.5), np.zeros(count, np.uint8)
        )
    )


def test_a_batch_is_shown_by_its_readings() -> None:
    form, text = legible(message(25))
    assert form == "batch of 25 readings"
    assert "kind temperature, gateway g1" in text
    assert "w1  19700101T000000Z  21.5  quality 0" in text
    assert text.endswith("... and 5 readings more")


def test_a_time_outside_of_any_calendar_is_shown_as_it_is() -> None:
    assert f"{2**62} ms" in legible(message(1, 2**62))[1]


def test_text_and_json_are_shown_as_such() -> None:
    assert legible('{"值": 1}'.encode()) == ("JSON", '{\n "值": 1\n}')
    hostile = '{"name": "\u202e\x1b[2J"}'.encode()
    assert legible(hostile.replace(b"\x1b", b"\\u001b"))[1].isascii()
    assert legible(b"temp=21.5\n") == ("text", "temp=21.5\n")


@given(st.binary(max_size=3 * BYTES))
def test_any_bytes_are_shown_as_something_printable(value: bytes) -> None:
    _, text = legible(value)
    assert all(c.isprintable() or c in "\r\n\t" for c in text)
