"""Late readings: history's windows equal those of an engine that had them in time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from citybrain import batch, pack
from citybrain.city import City
from citybrain.columns import Roster
from citybrain.history.intake import Intake
from citybrain.history.read import Reader
from citybrain.history.recompute import Recompute
from citybrain.history.store import Store
from citybrain.kinds import HOUR, MINUTE
from citybrain.models.windows import Windows
from citybrain.stage import Record
from tests.packs import write_pack

NAMES = ("w1", "w2")
SENSORS = tuple(f"{name},temperature;precipitation,north,north,g3" for name in NAMES)
START = 480_000 * HOUR
NOW = START + 100 * HOUR


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return pack.load(str(write_pack(tmp_path_factory.mktemp("pack"), SENSORS)))


Readings = list[tuple[int, int, float]]


def message(topic: str, seq: int, kind: str, readings: Readings) -> Record:
    head = batch.BatchHead(
        gateway="g3", incarnation="i", shard="north", seq=seq, kind=kind, watermark_ms=0,
        sent_ms=NOW, lane="backfill",
    )  # fmt: skip
    codes, times, values = (np.array(column) for column in zip(*readings, strict=True))
    got = batch.Batch(
        head, Roster(NAMES), codes.astype(np.int32), START + times.astype(np.int64),
        values.astype(np.float64), np.zeros(len(codes), np.uint8),
    )  # fmt: skip
    return Record(topic, 0, seq, NOW + seq, batch.encode(got))


def take(store: Store, city: City, *records: Record) -> None:
    intake = Intake(city.kinds, store.journal.sequences())
    for record in records:
        rows = intake.take(record)
        if rows is not None:
            store.add(rows, (record.topic, record.partition, record.offset))
    store.flush({}, intake.sequences, intake.stale)


def recompute(store: Store, city: City) -> int:
    work = Recompute(store, city, lambda: NOW + 1_000_000)
    written = 0
    while (run := work.due(NOW + 1_000_000)) is not None:
        written += work.run(run)
    return written


Told = dict[tuple[str, int, int], tuple[float, ...]]
"""(sensor, length, start) -> seen, sum, min, max, last."""


def truth(city: City, kind: str, readings: Readings) -> Told:
    """What the engine's own windows say of readings that are all in time."""
    row = city.kinds[kind]
    windows = Windows(len(NAMES), row.windows_ms, row.rolling_ms, 0, 400 * HOUR)
    windows.begin(START)
    for sensor, time, value in sorted(readings, key=lambda r: r[1]):
        windows.add(
            np.array([sensor]), np.array([START + time]), np.array([value]), 0,
        )  # fmt: skip
    told = windows.advance(START + 40 * HOUR)
    return {
        (NAMES[s], closed.window_ms, closed.start_ms): (
            int(closed.seen[i]), float(closed.sum[i]), float(closed.min[i]), float(closed.max[i]),
            float(closed.last[i]),
        )
        for closed in told
        for i, s in enumerate(closed.sensor.tolist())
        if closed.seen[i]
    }  # fmt: skip


def told(root: Path, total: bool) -> Told:
    with Reader(root) as reader:
        rows = reader.query(
            "select sensor, window_ms, epoch_ms(window_start) s, seen, value, min, max, last"
            " from stats"
        ).to_pylist()
    return {
        (r["sensor"], r["window_ms"], r["s"]): (
            r["seen"], r["value"] * (1 if total else r["seen"]), r["min"], r["max"], r["last"]
        )
        for r in rows
    }  # fmt: skip


readings_of_hours = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 30 * 60 - 1), st.integers(0, 200)),
    min_size=1, max_size=60, unique_by=lambda r: (r[0], r[1]),
).map(lambda rows: [(s, minute * MINUTE, value / 4) for s, minute, value in rows])  # fmt: skip


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(readings=readings_of_hours, parts=st.integers(1, 4))
def test_in_any_number_of_parts_the_last_revision_is_the_batch_answer(
    city: City, tmp_path_factory: pytest.TempPathFactory, readings: Readings, parts: int
) -> None:
    root = tmp_path_factory.mktemp("history")
    with Store(root) as store:
        for part in range(parts):
            mine = readings[part::parts]
            if mine:
                take(store, city, message("readings", part, "precipitation", mine),
                     message("backfill", part, "precipitation", mine))  # fmt: skip
                recompute(store, city)
    end = max(time for _, time, _ in readings) // HOUR * HOUR + HOUR
    expected = {
        key: value
        for key, value in truth(city, "precipitation", readings).items()
        if key[1] + key[2] <= START + end
    }
    assert told(root, total=True) == expected


def test_doing_it_twice_changes_nothing_and_more_readings_are_the_next_revision(
    city: City, tmp_path: Path
) -> None:
    first: Readings = [(0, 0, 1.5), (0, MINUTE, 2.5), (1, 0, 4.0)]
    with Store(tmp_path) as store:
        take(store, city, message("readings", 0, "temperature", first),
             message("backfill", 0, "temperature", first))  # fmt: skip
        assert recompute(store, city) > 0
        take(store, city, message("backfill", 0, "temperature", first))
        assert recompute(store, city) == 0
        more: Readings = [(0, 2 * MINUTE, 8.0)]
        take(store, city, message("readings", 1, "temperature", more),
             message("backfill", 1, "temperature", more))  # fmt: skip
        assert recompute(store, city) == 3  # its minute, ten minutes and hour; w2's are as before
    with Reader(tmp_path) as reader:
        hours = reader.query(
            "select sensor, revision, value, seen, late, backfill from stats_all"
            f" where window_ms = {HOUR} order by sensor, revision"
        ).to_pylist()
    assert hours == [
        {"sensor": "w1", "revision": 0, "value": 2.0, "seen": 2, "late": 0, "backfill": True},
        {"sensor": "w1", "revision": 1, "value": 4.0, "seen": 3, "late": 1, "backfill": True},
        {"sensor": "w2", "revision": 0, "value": 4.0, "seen": 1, "late": 0, "backfill": True},
    ]


def test_readings_that_the_engine_would_refuse_are_in_no_window(city: City, tmp_path: Path) -> None:
    good: Readings = [(0, 0, 20.0)]
    bad: Readings = [(0, MINUTE, float("nan")), (0, 2 * MINUTE, 500.0)]
    with Store(tmp_path) as store:
        take(store, city, message("readings", 0, "temperature", good + bad),
             message("backfill", 0, "temperature", good))  # fmt: skip
        recompute(store, city)
    with Reader(tmp_path) as reader:
        assert reader.query(
            f"select seen, value from stats where window_ms = {HOUR}"
        ).to_pylist() == [{"seen": 1, "value": 20.0}]
        assert reader.query("select count(*) n from readings").to_pylist() == [{"n": 3}]
