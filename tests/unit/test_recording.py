"""Recordings: what a replay reads must be whole, in order and always the same."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import recording
from citybrain.batch import Batch, Heartbeat, encode, encode_control
from citybrain.city import City
from citybrain.errors import InvalidInput
from citybrain.pack import load
from citybrain.recording import SCHEMA, RecordingWriter, cut, facts
from tests.packs import write_pack

T0 = 1_700_000_000_000 // 900_000 * 900_000


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return load(str(write_pack(tmp_path_factory.mktemp("pack"))))


def write(path: Path, city: City, rows: list[tuple[int, str, str, float]]) -> Path:
    with RecordingWriter(path, city) as writer:
        for row in sorted(rows):
            writer.write(np.array([row[0]]), [row[1]], [row[2]], np.array([row[3]]))
    return path


def as_bytes(items: list[Batch | Heartbeat]) -> list[bytes]:
    return [encode(i) if isinstance(i, Batch) else encode_control(i) for i in items]


def readings(items: list[Batch | Heartbeat]) -> list[tuple[int, str, str, float]]:
    return sorted(
        (int(t), item.roster.names[c], item.head.kind, float(v))
        for item in items
        if isinstance(item, Batch)
        for t, c, v in zip(item.time_ms, item.codes, item.value, strict=True)
    )


SERIES = [("d1", "vehicle_count"), ("d1", "vehicle_speed"), ("d3", "vehicle_count"),
          ("d4", "occupancy"), ("w1", "temperature"), ("w2", "temperature")]  # fmt: skip
ROWS = st.lists(
    st.tuples(st.integers(0, 300).map(lambda s: T0 + s * 1000), st.sampled_from(SERIES)),
    max_size=80, unique=True,
).map(lambda rows: [(t, s, k, float(i % 50)) for i, (t, (s, k)) in enumerate(rows)])  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, chunk=st.sampled_from([1, 3, 7, 1000]))
def test_every_reading_is_said_once_and_never_after_its_watermark(
    rows: list[tuple[int, str, str, float]],
    chunk: int,
    city: City,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = write(tmp_path_factory.mktemp("r") / "r.parquet", city, rows)
    whole = list(cut(path, city))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "_CHUNK", chunk)
        assert as_bytes(list(cut(path, city))) == as_bytes(whole), "chunks must not show"
    assert readings(whole) == sorted(rows)
    promised: dict[tuple[str, str], int] = {}
    seqs: dict[tuple[str, str], int] = {}
    for item in whole:
        head = item.head if isinstance(item, Batch) else item
        pair = (head.gateway, head.shard)
        if isinstance(item, Batch):
            assert item.time_ms.min() >= promised.get(pair, 0)
            assert item.head.seq == seqs.get(pair, 0)
            seqs[pair] = item.head.seq + 1
        assert head.watermark_ms >= promised.get(pair, 0)
        promised[pair] = head.watermark_ms
    if rows:
        assert len(promised) == 5, "every gateway speaks, so no window waits for one"
        last = max(row[0] for row in rows)
        hour = 3_600_000
        assert min(promised.values()) >= -(-(last + 1) // hour) * hour + 5_000


def test_a_gateway_without_readings_says_a_heartbeat_each_step(city: City, tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", city, [(T0 + i * 10_000, "d1", "vehicle_count", 1.0)
                                                for i in range(3)])  # fmt: skip
    quiet = [i for i in cut(path, city, close=False) if isinstance(i, Heartbeat)]
    assert [i.watermark_ms - T0 for i in quiet if i.gateway == "g2"] == [10_000, 20_000, 30_000]
    assert not [i for i in quiet if (i.gateway, i.shard) == ("g1", "north")]


def test_a_stray_year_costs_nothing(city: City, tmp_path: Path) -> None:
    rows = [(0, "d1", "vehicle_count", 1.0), (T0, "d1", "vehicle_count", 1.0)]
    assert len(list(cut(write(tmp_path / "r.parquet", city, rows), city))) == 20


def test_a_part_of_a_recording_is_cut_like_a_recording_of_that_part(
    city: City, tmp_path: Path
) -> None:
    rows = [(T0 + i * 1000, s, k, 5.0) for i in range(200) for s, k in SERIES]
    part = [row for row in rows if T0 + 50_000 <= row[0] < T0 + 120_000]
    got = cut(write(tmp_path / "a", city, rows), city, start_ms=T0 + 50_000, end_ms=T0 + 120_000)
    assert as_bytes(list(got)) == as_bytes(list(cut(write(tmp_path / "b", city, part), city)))


def test_the_writer_snaps_values_and_sorts_rows(city: City, tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    with RecordingWriter(path, city) as writer:
        writer.write(
            np.array([T0 + 1000, T0]), ["w1", "w1"], ["temperature"] * 2, np.array([20.1, 19.999])
        )
        writer.write(np.array([T0 + 1000]), ["d1"], ["vehicle_count"], np.array([3.0]))
        with pytest.raises(InvalidInput, match="was written already"):
            writer.write(np.array([T0]), ["d1"], ["vehicle_count"], np.array([3.0]))
    table = pq.read_table(path)
    assert table.column("sensor").to_pylist() == ["w1", "w1", "d1"]
    assert table.column("value").to_pylist() == [20.0, 20.1015625, 3.0]
    assert facts(path) == recording.Facts(3, T0, T0 + 1000)


def raw(path: Path, **columns: list[object]) -> Path:
    base: dict[str, list[object]] = {
        "time": [T0, T0 + 1000], "sensor": ["d1", "d1"], "kind": ["vehicle_count"] * 2,
        "value": [1.0, 2.0], "quality": [0, 0],
    }  # fmt: skip
    data = base | columns
    pq.write_table(
        pa.table([pa.array(data[f.name], type=f.type) for f in SCHEMA], schema=SCHEMA), path
    )
    return path


@pytest.mark.parametrize(
    ("columns", "reason", "said"),
    [
        ({"time": [T0 + 1000, T0]}, "order", "row 1: time: is before"),
        ({"time": [T0, T0]}, "repeat", "d1 has two readings of vehicle_count"),
        ({"time": [T0, None]}, "columns", "row 1: time: is null"),
        ({"sensor": ["d1", "ghost"]}, "sensor", "row 1: sensor: is not in the pack"),
        ({"kind": ["vehicle_count", "pm25"]}, "kind", "row 1: kind: is not one of"),
        ({"kind": ["vehicle_count", "occupancy"]}, "kind", "row 1: kind: is not one of"),
        ({"value": [1.0, float("nan")]}, "value", "row 1: value: is not a number"),
        ({"value": [1.0, float("inf")]}, "value", "row 1: value: is not a number"),
        ({"value": [1.0, -4.0]}, "value", "row 1: value: is outside"),
        ({"value": [1.0, 1.5]}, "value", "row 1: value: is not on the kind's grid"),
        ({"quality": [0, 7]}, "quality", "row 1: quality: is not"),
    ],
)
def test_a_bad_row_is_named(
    columns: dict[str, list[object]], reason: str, said: str, city: City, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        list(cut(raw(tmp_path / "r.parquet", **columns), city))
    assert caught.value.reason == reason


def test_a_file_that_is_no_recording_is_refused(city: City, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("time,sensor\n")
    with pytest.raises(InvalidInput, match=r"recording .*/a"):
        list(cut(tmp_path / "a", city))
    pq.write_table(pa.table({"time": [1.5]}), tmp_path / "b")
    with pytest.raises(InvalidInput, match="time: is double, expected int64"):
        list(cut(tmp_path / "b", city))


def test_an_empty_recording_says_nothing(city: City, tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", city, [])
    assert list(cut(path, city)) == []
    assert facts(path).rows == 0
