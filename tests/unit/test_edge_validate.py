"""The door of the edge: what is let in, and what is told to those who are not."""

import json
import math
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain.city import City
from citybrain.edge import fates, forms, repeats
from citybrain.edge.fates import FATES
from citybrain.edge.repeats import Repeats
from citybrain.edge.validate import Tolerance, Validator
from citybrain.errors import InvalidInput, PackError
from citybrain.pack import load
from tests.packs import write_pack

NOW = 1_700_000_000_000
GOOD: dict[str, Any] = {"sensor": "d1", "kind": "vehicle_count", "time": NOW, "value": 7}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return load(str(write_pack(tmp_path_factory.mktemp("pack"))))


def judge(city: City, body: bytes, form: str = forms.JSON, gateway: str = "g1") -> list[str]:
    """Fates, and for a single refused reading its explanation behind."""
    validator = Validator(city, Tolerance())
    rows = forms.parse(body, form, validator.layout)
    code = validator.layout.gateways.get(gateway, -1)
    fate, _ = validator.judge(rows, np.full(len(rows), code, np.int32), NOW)
    words = [FATES[f] for f in fate]
    if len(words) == 1 and words != ["accepted"]:
        words.append(validator.explain(rows.row(0), int(fate[0]), gateway, NOW))
    return words


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"sensor": "ghost"}, "sensor", "sensor: 'ghost' is not in the pack"),
        ({"sensor": "w1", "kind": "temperature"}, "gateway", "'w1' does not belong to gateway"),
        ({"kind": "pm25"}, "kind", "kind: 'pm25' is not one of this sensor's (vehicle_count, "),
        ({"kind": "nonsense"}, "kind", "kind: 'nonsense' is not one of"),
        ({"unit": "km/h"}, "unit", "unit: 'km/h', expected '{vehicles}'"),
        ({"time": NOW + 61_000}, "future", "more than 60 s after the clock"),
        ({"time": "2033-05-18T03:33:20Z"}, "future", "2033-05-18T03:33:20+00:00 is more than"),
        ({"time": NOW // 1000}, "old", "1700000000 is more than 400 days before the clock"),
        ({"time": -(10**30)}, "old", "is more than 400 days before"),
        ({"time": "2023-11-14T22:13:20"}, "field", "timezone component - at `$.time`"),
        ({"time": "yesterday"}, "field", "Invalid RFC3339 encoded datetime - at `$.time`"),
        ({"time": 1.5}, "field", "$.time"),
        ({"time": None}, "field", "$.time"),
        ({"value": -1}, "range", "value: -1.0 is outside 0 to 1000 {vehicles}"),
        ({"value": "7"}, "field", "Expected `float`, got `str` - at `$.value`"),
        ({"value": None}, "field", "$.value"),
        ({"quality": 3}, "quality", "quality: 3, expected 0, 1 or 2"),
        ({"quality": -1}, "quality", "quality: -1, expected"),
        ({"quality": 10**20}, "quality", "expected 0, 1 or 2"),
        ({"sensor": 5}, "field", "Expected `str`, got `int` - at `$.sensor`"),
    ],
)
def test_a_bad_reading_is_refused_by_the_name_of_its_field(
    change: dict[str, Any], reason: str, said: str, city: City
) -> None:
    word, message = judge(city, json.dumps(GOOD | change).encode())
    assert word == reason
    assert said in message


@pytest.mark.parametrize("field", ["sensor", "kind", "time", "value"])
def test_a_missing_field_is_named(field: str, city: City) -> None:
    word, message = judge(city, json.dumps({k: v for k, v in GOOD.items() if k != field}).encode())
    assert word == "field"
    assert f"missing required field `{field}`" in message


@pytest.mark.parametrize(
    "change",
    [
        {"time": "2023-11-14T22:13:20Z"},
        {"time": "2023-11-15T06:13:20.000+08:00"},
        {"unit": "{vehicles}", "quality": 2},
        {"firmware": "1.2", "battery": {"volts": 3}},
        {"time": NOW + 60_000},
    ],
)
def test_what_a_device_may_write_is_accepted(change: dict[str, Any], city: City) -> None:
    assert judge(city, json.dumps(GOOD | change).encode()) == ["accepted"]


def test_one_bad_reading_does_not_take_the_others_with_it(city: City) -> None:
    rows = [GOOD, GOOD | {"value": "x"}, GOOD | {"time": NOW - 1000}, 17, GOOD | {"sensor": "?"}]
    want = ["accepted", "field", "accepted", "field", "sensor"]
    assert judge(city, json.dumps(rows).encode()) == want
    lines = b"\n".join(json.dumps(row).encode() for row in rows) + b"\n\n{broken\n\xff\xfe\n"
    assert judge(city, lines, forms.NDJSON) == [*want, "field", "field"]


def test_the_original_bytes_of_a_refused_reading_are_kept(city: City) -> None:
    layout = Validator(city, Tolerance()).layout
    odd = b'{"sensor":"d1",  "kind":"vehicle_count","time":1,"value":2e0, "x":[]}'
    body = b"[" + json.dumps(GOOD).encode() + b", " + odd + b"]"
    assert forms.parse(body, forms.JSON, layout).original([1]) == odd
    assert forms.parse(odd, forms.JSON, layout).original([0]) == odd


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"", forms.JSON), (b"   ", forms.JSON), (b"{", forms.JSON), (b"[1,", forms.JSON),
        (b'{"value": NaN}', forms.JSON), (b"[{]", forms.JSON), (b"\xff\xfe", forms.JSON),
        (b"", forms.ARROW), (b"not arrow", forms.ARROW),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_refused_as_a_whole(
    body: bytes, form: str, city: City
) -> None:
    layout = Validator(city, Tolerance()).layout
    with pytest.raises(InvalidInput, match="body"):
        forms.parse(body, form, layout)


def arrow(**columns: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue())


def test_arrow_bodies_are_judged_like_json(city: City) -> None:
    body = arrow(
        sensor=pa.array(["d1", "d1", "ghost", None, "d2", "d1", "d1"]).dictionary_encode(),
        kind=pa.array(["vehicle_count"] * 7),
        time=pa.array([NOW, None, NOW, NOW, NOW, NOW - 1, NOW - 2], pa.int64()),
        value=pa.array([1.0, 1.0, 1.0, 1.0, math.nan, math.inf, 1.0]),
        unit=pa.array(["{vehicles}", None, "", None, None, None, "km/h"]),
        quality=pa.array([0, 0, 0, 0, 0, 0, 0], pa.int32()),
    )
    want = ["accepted", "time", "sensor", "sensor", "value", "value", "unit"]
    assert judge(city, body, forms.ARROW) == want
    layout = Validator(city, Tolerance()).layout
    assert json.loads(forms.parse(body, forms.ARROW, layout).original([2])) == {
        "sensor": "ghost", "kind": "vehicle_count", "time": NOW, "value": 1.0, "quality": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time": pa.array([1.5])}, "time is double"),
        ({"time": pa.array([NOW], pa.timestamp("ms"))}, "time is timestamp"),
        ({"sensor": pa.array([5])}, "sensor is int64, expected text"),
        ({"value": pa.array(["1"])}, "value is string, expected numbers"),
        ({"value": pa.array([True])}, "value is bool, expected numbers"),
        ({"quality": pa.array([0.0])}, "quality is double, expected whole numbers"),
    ],
)
def test_arrow_columns_of_a_wrong_type_are_named(
    change: dict[str, Any], said: str, city: City
) -> None:
    columns = {"sensor": pa.array(["d1"]), "kind": pa.array(["vehicle_count"]),
               "time": pa.array([NOW]), "value": pa.array([1.0])}  # fmt: skip
    assert judge(city, arrow(**columns), forms.ARROW) == ["accepted"]
    layout = Validator(city, Tolerance()).layout
    with pytest.raises(InvalidInput, match=said):
        forms.parse(arrow(**(columns | change)), forms.ARROW, layout)
    del columns["value"]
    with pytest.raises(InvalidInput, match="column 'value' is missing"):
        forms.parse(arrow(**columns), forms.ARROW, layout)


@settings(deadline=None)
@given(cut=st.integers(0, 900), flip=st.integers(0, 255))
def test_damaged_arrow_never_does_worse_than_a_refusal(cut: int, flip: int, city: City) -> None:
    body = bytearray(arrow(sensor=pa.array(["d1"] * 5), kind=pa.array(["vehicle_count"] * 5),
                           time=pa.array([NOW] * 5), value=pa.array([1.0] * 5)))  # fmt: skip
    layout = Validator(city, Tolerance()).layout
    body[cut % len(body)] ^= flip
    for damaged in (bytes(body), bytes(body[: cut % len(body)])):
        with suppress(InvalidInput):
            forms.parse(damaged, forms.ARROW, layout)


def test_values_enter_on_the_grid_of_their_kind(city: City) -> None:
    validator = Validator(city, Tolerance())
    row = GOOD | {"sensor": "d1", "kind": "vehicle_speed", "value": 33.3}
    rows = forms.parse(json.dumps(row).encode(), forms.JSON, validator.layout)
    _, value = validator.judge(rows, np.array([validator.layout.gateways["g1"]], np.int32), NOW)
    assert value[0] == 33.296875
    assert value[0] * 128 % 1 == 0


OFFERS = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 2)), max_size=8),
    max_size=25,
)


@given(offers=OFFERS)
def test_repeats_are_told_from_conflicts_like_a_dictionary_would(
    offers: list[list[tuple[int, int, int]]],
) -> None:
    memory, known = Repeats(limit=10_000), dict[tuple[int, int], int]()
    for offer in offers:
        columns = np.array(offer, np.int64).reshape(-1, 3).T
        keys, value = repeats.keys(columns[0], columns[1]), columns[2].astype(float)
        want = []
        for series, time, said in offer:
            if (series, time) not in known:
                want.append(fates.ACCEPTED)
                known[series, time] = said
            else:
                same = known[series, time] == said
                want.append(fates.DUPLICATE if same else fates.CONFLICT)
        fate = memory.judge(keys, value)
        assert fate.tolist() == want
        accepted = fate == fates.ACCEPTED
        memory.remember(keys[accepted], value[accepted])
        assert len(memory) == len(known)


def test_memory_of_repeats_is_bounded_and_keeps_the_newest(city: City) -> None:
    memory = Repeats(limit=1000)
    for start in range(0, 10_000, 50):
        keys = np.arange(start, start + 50).astype(np.uint64)
        memory.remember(keys, keys.astype(float))
        assert len(memory) <= 1050
    newest = np.arange(9_550, 10_000).astype(np.uint64)
    assert (memory.judge(newest, newest.astype(float)) == fates.DUPLICATE).all()
    assert (memory.judge(newest, newest + 1.0) == fates.CONFLICT).all()


def test_a_city_with_too_many_series_is_refused(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "SERIES_LIMIT", 10)
    with pytest.raises(PackError, match="more than an edge agent can tell apart"):
        Validator(city, Tolerance())
