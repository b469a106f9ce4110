"""Formats of the logs: what is written can be read, what is damaged is refused by name."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import batch, columns, findings, forecasts, stats
from citybrain.batch import Batch, BatchHead, Heartbeat, Idle, LeaveOut
from citybrain.columns import Roster, Rosters
from citybrain.errors import InvalidInput

ROSTER = Roster(("北-1", "north-2", "north-3"))


def head(**change: object) -> BatchHead:
    facts = {
        "gateway": "g", "incarnation": "i", "shard": "s", "seq": 3, "kind": "occupancy",
        "watermark_ms": 5, "sent_ms": 7,
    }  # fmt: skip
    return msgspec.convert(facts | change, BatchHead)


def some_batch(n: int = 3, **change: object) -> Batch:
    return Batch(
        head(**change),
        ROSTER,
        (np.arange(n) % 3).astype(np.int32),
        np.arange(n, dtype=np.int64),
        np.arange(n) / 8,
        np.zeros(n, np.uint8),
    )


def some_stats() -> stats.Stats:
    n = 2
    window = stats.StatsHead(
        shard="s", kind="occupancy", window_ms=60_000, step_ms=60_000, start_ms=120_000,
        revision=0, expected=6, cause_offset=9, cause_ms=10,
    )  # fmt: skip
    whole, real = np.zeros(n, np.int32), np.zeros(n)
    last = np.full(n, -1, np.int64)
    codes = np.arange(n, dtype=np.int32)
    return stats.Stats(window, ROSTER, codes, whole, whole, real, real, real, real, real, last)


def test_a_batch_arrives_as_it_was_sent() -> None:
    sent = some_batch()
    got = batch.decode(batch.encode(sent), Rosters())
    assert isinstance(got, Batch)
    assert got.head == sent.head
    assert got.roster.names == ROSTER.names
    for name in ("codes", "time_ms", "value", "quality"):
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",))), max_size=5, unique=True),
    st.data(),
)
def test_any_sensor_name_and_value_survives(names: list[str], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 8)) if names else 0
    codes = np.array(
        data.draw(st.lists(st.integers(0, max(0, len(names) - 1)), min_size=n, max_size=n)),
        dtype=np.int32,
    )
    value = np.array(data.draw(st.lists(st.floats(), min_size=n, max_size=n)), dtype=np.float64)
    time = np.arange(n, dtype=np.int64)
    sent = Batch(head(), Roster(tuple(names)), codes, time, value, np.zeros(n, np.uint8))
    got = batch.decode(batch.encode(sent), Rosters())
    assert isinstance(got, Batch)
    assert [got.roster.names[c] for c in got.codes] == [names[c] for c in codes]
    np.testing.assert_array_equal(got.value, value)


def test_equal_dictionaries_are_one_roster_and_different_ones_are_not() -> None:
    rosters = Rosters()
    first = batch.decode(batch.encode(some_batch()), rosters)
    again = batch.decode(batch.encode(some_batch(seq=4)), rosters)
    assert isinstance(first, Batch)
    assert isinstance(again, Batch)
    assert first.roster is again.roster
    # The same letters cut elsewhere are other sensors.
    one = rosters.of(pa.array(["ab", "c"]))
    two = rosters.of(pa.array(["a", "bc"]))
    assert one is not two
    assert (one.names, two.names) == (("ab", "c"), ("a", "bc"))


def test_a_roster_cache_stays_bounded() -> None:
    rosters = Rosters(limit=2)
    for name in "abc":
        rosters.of(pa.array([name]))
    assert len(rosters._known) == 2


def test_a_batch_cut_at_any_byte_is_refused_and_never_half_read() -> None:
    whole = batch.encode(some_batch())
    end = len(whole) - 8  # the end-of-stream mark, without which all is still there
    for cut in range(end):
        with pytest.raises(InvalidInput) as refused:
            batch.decode(whole[:cut], Rosters())
        assert refused.value.reason in {"format", "head"}


@settings(max_examples=1000)
@given(st.data())
def test_a_batch_with_a_flipped_byte_never_crashes_a_reader(data: st.DataObject) -> None:
    whole = bytearray(batch.encode(some_batch()))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = batch.decode(bytes(whole), Rosters())
    except InvalidInput:
        return
    if isinstance(got, Batch):
        assert all(0 <= c < len(got.roster.names) for c in got.codes)


def test_a_code_outside_the_dictionary_is_refused() -> None:
    bad = some_batch()
    codes = np.array([0, 1, 2], np.int32)
    good = columns.encode(bad.head, ROSTER, codes, {})
    hostile = good.replace(codes.tobytes(), np.array([0, 1, 99], np.int32).tobytes())
    assert hostile != good
    with pytest.raises(InvalidInput, match="format"):
        raise_reason(hostile)


def raise_reason(value: bytes) -> None:
    try:
        columns.decode(value, BatchHead, Rosters(), {})
    except InvalidInput as refused:
        raise InvalidInput(refused.reason, f"{refused.reason}: {refused}") from refused


def test_a_newer_version_is_named_so_that_it_can_be_retried_after_an_upgrade() -> None:
    with pytest.raises(InvalidInput, match="version: 2") as refused:
        batch.decode(batch.encode(some_batch(version=2)), Rosters())
    assert refused.value.reason == "version"


def test_a_missing_head_field_is_named() -> None:
    class Old(msgspec.Struct):
        version: int
        gateway: str

    value = columns.encode(Old(1, "g"), ROSTER, np.zeros(0, np.int32), {})
    with pytest.raises(InvalidInput, match="incarnation"):
        batch.decode(value, Rosters())


def test_a_column_of_another_type_is_named() -> None:
    sent = some_batch()
    data = {"time": sent.time_ms, "value": sent.value.astype(np.float32), "quality": sent.quality}
    value = columns.encode(sent.head, ROSTER, sent.codes, data)
    with pytest.raises(InvalidInput, match=r"'value' is float.* expected float64"):
        batch.decode(value, Rosters())


@pytest.mark.parametrize(
    "record",
    [
        Heartbeat(gateway="g", incarnation="i", shard="s", watermark_ms=1, sent_ms=2),
        LeaveOut(shard="s", gateway="g", reason="silent", at_ms=1),
        Idle(shard="s", watermark_ms=1, at_ms=2),
    ],
)
def test_control_records_arrive_as_they_were_sent(record: batch.Control) -> None:
    assert batch.decode(batch.encode_control(record), Rosters()) == record


def test_an_unknown_control_record_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nonsense"):
        batch.decode(b'{"type":"nonsense"}', Rosters())


def test_bottomless_nesting_is_refused() -> None:
    with pytest.raises(InvalidInput):
        batch.decode(b'{"type":"idle","x":' + b"[" * 100_000, Rosters())


def test_statistics_arrive_as_they_were_sent() -> None:
    sent = some_stats()
    got = stats.decode(stats.encode(sent), Rosters())
    assert isinstance(got, stats.Stats)
    assert got.head == sent.head
    np.testing.assert_array_equal(got.last_ms, sent.last_ms)


def test_forecasts_arrive_as_they_were_sent() -> None:
    about = forecasts.ForecastHead(
        shard="s", kind="occupancy", window_ms=60_000, issued_ms=0, target_ms=900_000,
        horizon_ms=900_000, model="ridge@1",
    )  # fmt: skip
    row = np.array([1.5])
    sent = forecasts.Forecast(about, ROSTER, np.array([1], np.int32), row, row - 1, row + 1)
    got = forecasts.decode(forecasts.encode(sent), Rosters())
    assert got.head == about
    assert (got.lower[0], got.value[0], got.upper[0]) == (0.5, 1.5, 2.5)


def test_the_findings_log_refuses_a_wrong_field_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"until_ms"):
        findings.decode(
            b'{"type":"shelve","id":"1","person":"p","issued_ms":0,"expires_ms":9,"alert":"a",'
            b'"until_ms":"tomorrow","reason":"works"}'
        )
