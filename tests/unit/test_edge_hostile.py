"""Any bytes may come through a door: they end as readings or as a refusal, never as a crash."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from citybrain.city import City
from citybrain.edge import forms, intake
from citybrain.edge.intake import Intake
from citybrain.edge.journal import Ledger, Message, decode
from citybrain.edge.merge import Merger, Request
from citybrain.edge.metrics import EdgeMetrics
from citybrain.edge.spool import Spool
from citybrain.edge.validate import Candidates, Tolerance, Validator
from citybrain.errors import InvalidInput
from citybrain.findings import DeadLetter
from citybrain.layout import Layout
from citybrain.pack import load
from tests.packs import write_pack
from tests.unit.test_edge_validate import GOOD, NOW, arrow

NAMES = ("sensor", "kind", "time", "value", "unit", "quality", "firmware")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return load(str(write_pack(tmp_path_factory.mktemp("pack"))))


def letter_of(message: Message) -> DeadLetter:
    return msgspec.json.decode(message.value, type=DeadLetter)


def through(city: City, body: bytes, form: str) -> list[int] | str:
    """All that the door does with a body: counts of its outcome, or why it is refused."""
    validator, ledger = Validator(city, Tolerance()), Ledger()
    merger = Merger(validator, ledger, 5_000)
    try:
        rows = forms.parse(body, form, validator.layout)
    except InvalidInput as error:
        (letter,) = merger.refused("g1", error.reason, str(error), body, NOW).messages
        assert letter_of(letter).message.startswith("body: ")
        return error.reason
    merged = merger.merge([Request("g1", rows, "live", NOW)], NOW)
    (outcome,) = merged.outcomes
    letters = [letter_of(m) for m in merged.messages if m.topic == "dead-letter"]
    assert sum(letter.readings or 0 for letter in letters) == outcome.refused
    assert all(letter.original for letter in letters)
    msgspec.json.encode(outcome)
    return [outcome.accepted, outcome.duplicate, outcome.refused]


def nested(depth: int) -> bytes:
    """A good reading with an unknown field so many brackets deep."""
    return json.dumps(GOOD).encode()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["d1", "vehicle_count", NOW, "2023-11-14T22:13:20Z", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
CHANGED = st.dictionaries(st.sampled_from(NAMES), JSON_VALUES).map(lambda change: GOOD | change)
TEXTS = st.lists(CHANGED | JSON_VALUES, max_size=4).map(lambda rows: json.dumps(rows).encode())


@given(body=st.binary(max_size=60) | TEXTS, at=st.integers(0, 300), put=st.binary(max_size=3))
@example(body=b"[" * 100_000, at=0, put=b"")
@example(body=nested(1_200), at=0, put=b"")
@example(body=b"[" + nested(1_200) + b"]", at=0, put=b"")
@example(body='{"sensor": "路口1"}'.encode("gbk"), at=0, put=b"")
@example(body=b"[]", at=0, put=b"")
def test_any_json_is_readings_or_a_refusal(body: bytes, at: int, put: bytes, city: City) -> None:
    damaged = body[:at] + put + body[at + len(put) :]
    for form in (forms.JSON, forms.NDJSON):
        for said in (body, damaged):
            through(city, said, form)


COLUMNS = st.sampled_from(
    [
        pa.array(["d1", None]), pa.array(["d1", "ghost"], pa.large_utf8()),
        pa.array([b"\xb3", b""]),
        pa.array(["d1", "d1"]).dictionary_encode(), pa.array([NOW, None], pa.int64()),
        pa.array([NOW, 2**63 - 1]), pa.array([2**62, -(2**62)], pa.timestamp("s", "UTC")),
        pa.array([1, NOW * 10**6], pa.timestamp("ns", "Asia/Shanghai")), pa.array([1.5, None]),
        pa.array([2**53 + 1, -300]), pa.array([True, False]), pa.array(["1", "2"]),
        pa.array([None, None]), pa.array([[1], []]), pa.array([{"a": 1}, None]),
        pa.array([1.5, 2.0], pa.float16()), pa.array([300, -1]),
        pa.array([2**64 - 1, 0], pa.uint64()),
    ]
)  # fmt: skip


@given(
    columns=st.lists(st.tuples(st.sampled_from(NAMES), COLUMNS), max_size=7),
    at=st.integers(0, 2_000), put=st.binary(max_size=2),
)  # fmt: skip
def test_any_arrow_is_readings_or_a_refusal(
    columns: list[tuple[str, pa.Array]], at: int, put: bytes, city: City
) -> None:
    whole = {"sensor": pa.array(["d1", "d2"]), "kind": pa.array(["vehicle_count"] * 2),
             "time": pa.array([NOW, NOW]), "value": pa.array([1.0, 2.0])}  # fmt: skip
    fields = [*columns, *((n, c) for n, c in whole.items() if n not in dict(columns))]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_arrays([c for _, c in fields], names=[n for n, _ in fields])
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = bytes(sink.getvalue())
    through(city, body, forms.ARROW)
    through(city, body[:at] + put + body[at + len(put) :], forms.ARROW)
    through(city, body[:at], forms.ARROW)


@pytest.mark.parametrize(
    ("body", "form", "said"),
    [
        (b"\n" + nested(1_200), forms.NDJSON, "nested too deeply"),
        (nested(1_200), forms.JSON, "nested too deeply"),
        (b"[" + nested(1_200) + b"]", forms.JSON, "nested too deeply, expected a reading or an"),
    ],
)
def test_what_is_wrong_with_a_hostile_body_is_said(
    body: bytes, form: str, said: str, city: City
) -> None:
    with pytest.raises(InvalidInput, match=said):
        forms.parse(body, form, Layout(city))


def test_a_device_that_writes_gbk_is_told_which_field_is_not_utf8(city: City) -> None:
    foreign = json.dumps(GOOD | {"sensor": "X"}).replace("X", "路口").encode("gbk")
    body = b"[" + json.dumps(GOOD).encode() + b"," + foreign + b"]"
    rows = forms.parse(body, forms.JSON, Layout(city))
    assert rows.row(1).error.startswith("sensor: is not UTF-8")
    assert rows.original([1]) == foreign
    assert through(city, body, forms.JSON) == [1, 0, 1]
    assert through(city, foreign, forms.JSON) == [0, 0, 1]


def test_bytes_that_can_be_read_in_one_place_are_kept_in_every_other(city: City) -> None:
    """How deep one may nest depends on how deep in the program one asks."""
    for depth in range(850, 1_000, 7):
        body = b"[" + nested(depth).replace(b"7", b"7000") + b"]"
        try:
            rows = forms.parse(body, forms.JSON, Layout(city))
        except InvalidInput:
            continue
        assert b"7000" in _from_deep_below(60, lambda rows=rows: rows.original([0]))


def _from_deep_below(frames: int, call: Callable[[], bytes]) -> bytes:
    return call() if not frames else _from_deep_below(frames - 1, call)


def test_one_odd_quality_of_an_arrow_body_is_refused_alone(city: City) -> None:
    body = arrow(
        sensor=pa.array(["d1"] * 5), kind=pa.array(["vehicle_count"] * 5),
        time=pa.array([NOW - i for i in range(5)]), value=pa.array([1.0] * 5),
        quality=pa.array([0, 300, None, -1, 2]),
    )  # fmt: skip
    assert through(city, body, forms.ARROW) == [2, 0, 3]
    rows = forms.parse(body, forms.ARROW, Layout(city))
    assert [rows.row(i).quality for i in range(5)] == [0, 300, None, -1, 2]


@asynccontextmanager
async def door(city: City, folder: Path) -> AsyncIterator[Intake]:
    """A real intake on a spool of its own."""
    spool = Spool(folder, 1 << 20)
    ledger = Ledger()
    ledger.incarnation = "inc"
    metrics = EdgeMetrics(CollectorRegistry())
    made = Intake(Validator(city, Tolerance()), spool, ledger, lambda: NOW, metrics, linger_ms=1)
    running = asyncio.create_task(made.run())
    try:
        yield made
        assert not running.done(), "the agent would have ended"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        spool.close()


def kept(made: Intake) -> list[DeadLetter]:
    messages = [decode(entry.payload) for entry in made.spool.read(1 << 30)]
    return [letter_of(m) for m in messages if isinstance(m, Message) and m.topic == "dead-letter"]


async def test_a_hole_in_our_own_parser_costs_one_body_and_not_the_agent(
    city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(body: bytes, form: str, layout: Layout) -> Candidates:
        raise ZeroDivisionError("planted")

    async with door(city, tmp_path) as made:
        with monkeypatch.context() as planted:
            planted.setattr(intake.forms, "parse", broken)
            with pytest.raises(InvalidInput, match="ZeroDivisionError: planted"):
                await made.take("g1", b"odd", forms.JSON, "live")
        good = await made.take("g1", json.dumps(GOOD).encode(), forms.JSON, "live")
        assert good.accepted == 1
        assert [(k.reason, k.original) for k in kept(made)] == [("unreadable", b"odd")]


async def test_readings_that_cannot_be_judged_do_not_take_the_others_with_them(
    city: City, tmp_path: Path
) -> None:
    def poisoned(_: Any) -> Any:
        raise ZeroDivisionError("planted")

    async with door(city, tmp_path) as made:
        body = json.dumps(GOOD | {"sensor": "ghost"}).encode()
        rows = forms.parse(body, forms.JSON, made.layout)
        odd = Candidates(rows.sensor, rows.kind, rows.time_ms, rows.value, rows.quality,
                         np.zeros(1, np.int8), row=poisoned, original=poisoned)  # fmt: skip
        bad, good = await asyncio.gather(
            made.offer("g1", odd, "live", body),
            made.take("g1", json.dumps(GOOD).encode(), forms.JSON, "live"),
            return_exceptions=True,
        )
        assert isinstance(bad, InvalidInput)
        assert not isinstance(good, BaseException)
        assert good.accepted == 1
        assert [(k.reason, k.original) for k in kept(made)] == [("unreadable", body)]
        assert made.ledger.books(("inc", "g1", "-")).counts == {"produced": 1, "invalid": 1}
