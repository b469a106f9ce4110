"""History: each reading once in a file that counts, whatever dies when; queries see no more."""

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from citybrain import batch, stats
from citybrain.alerts import Alert
from citybrain.columns import Roster
from citybrain.errors import SetupError, UsageError
from citybrain.findings import Place
from citybrain.history.intake import Intake
from citybrain.history.journal import Journal
from citybrain.history.read import VIEWS, Reader
from citybrain.history.rows import Rows
from citybrain.history.store import Store, ranges_of
from citybrain.history.tables import TABLES, TIME
from citybrain.kinds import DAY, KINDS
from citybrain.stage import Record

ROSTER = Roster(("北-1", "north-2", "north-3"))
NOON = 20_000 * DAY + DAY // 2


def readings(seq: int, time_ms: int, offset: int, n: int = 3, lane: str = "live") -> Record:
    head = batch.BatchHead(
        gateway="g", incarnation="i", shard="s", seq=seq, kind="occupancy", watermark_ms=0,
        sent_ms=0, lane=lane,
    )  # fmt: skip
    codes = np.arange(n, dtype=np.int32)
    value = np.arange(n) / 8 + seq
    time = np.full(n, time_ms, np.int64)
    got = batch.Batch(head, ROSTER, codes, time, value, np.zeros(n, np.uint8))
    return Record("readings", 1, offset, time_ms + 500, batch.encode(got))


def window(revision: int, total: float, known_ms: int) -> Record:
    head = stats.StatsHead(
        shard="s", kind="vehicle_count", window_ms=60_000, step_ms=60_000, start_ms=NOON,
        revision=revision, expected=6, cause_offset=0, cause_ms=0,
    )  # fmt: skip
    seen = np.array([2, 0], np.int32)
    nan = float("nan")
    got = stats.Stats(
        head, Roster(("a", "b")), np.arange(2, dtype=np.int32), seen, np.zeros(2, np.int32),
        np.array([total, 0.0]), np.array([total * total / 2, 0.0]), np.array([1.0, nan]),
        np.array([5.0, nan]), np.array([5.0, nan]), np.array([NOON + 1, -1]),
    )  # fmt: skip
    return Record("stats", 0, revision, known_ms, stats.encode(got))


def put(store: Store, intake: Intake, *records: Record) -> None:
    for record in records:
        rows = intake.take(record)
        if rows is not None:
            store.add(rows, (record.topic, record.partition, record.offset))
    offsets = {(r.topic, r.partition): r.offset + 1 for r in records}
    store.flush(offsets, intake.sequences, intake.stale)
    intake.flushed()


def ask(root: Path, sql: str, as_of_ms: int | None = None) -> list[dict[str, object]]:
    with Reader(root, as_of_ms) as reader:
        reader.lock()
        return reader.query(sql).to_pylist()


def test_readings_come_back_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, Intake(KINDS, {}), readings(0, NOON, 7))
    rows = ask(tmp_path, "select * from readings order by value")
    assert [row["sensor"] for row in rows] == list(ROSTER.names)
    assert [row["value"] for row in rows] == [0.0, 0.125, 0.25]
    assert {row["kind"] for row in rows} == {"occupancy"}
    assert {row["gateway"] for row in rows} == {"g"}
    assert {row["time"].timestamp() * 1000 for row in rows} == {NOON}  # type: ignore[attr-defined]
    assert {row["known_at"].timestamp() * 1000 for row in rows} == {NOON + 500}  # type: ignore[attr-defined]


def test_files_lie_by_table_kind_and_utc_day_and_say_where_they_came_from(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, Intake(KINDS, {}), readings(0, NOON, 7), readings(1, NOON + DAY, 9))
    files = sorted(tmp_path.glob("readings/kind=occupancy/date=*/*.parquet"))
    assert [f.parent.name for f in files] == ["date=2024-10-04", "date=2024-10-05"]
    assert ranges_of(files[0]) == {("readings", 1): (7, 9)}
    assert pq.read_table(files[0]).schema.field("time").type == TIME


def test_a_batch_that_was_sent_again_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, Intake(KINDS, {}), readings(0, NOON, 7), readings(0, NOON, 8))
    with Store(tmp_path) as store:
        put(
            store,
            Intake(KINDS, store.journal.sequences()),
            readings(0, NOON, 9),
            readings(1, NOON, 10),
        )
    assert ask(tmp_path, "select count(*) n from readings") == [{"n": 6}]


def test_files_of_a_writer_killed_before_its_commit_do_not_count(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, Intake(KINDS, {}), readings(0, NOON, 7))
        rows = Intake(KINDS, {}).take(readings(1, NOON, 8))
        assert isinstance(rows, Rows)
        store.write("readings", "occupancy", "2024-10-04", pa.Table.from_batches([rows.data]), {})
        (tmp_path / ".new" / "half.parquet").write_bytes(b"PAR1")
    assert ask(tmp_path, "select count(*) n from readings") == [{"n": 3}]
    with Store(tmp_path) as store:
        assert store.journal.offsets() == {("readings", 1): 8}
    assert len(list(tmp_path.glob("readings/*/*/*.parquet"))) == 1
    assert not list(tmp_path.glob(".new/*"))


def test_a_second_writer_is_kept_out(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(SetupError, match="another process"):
        Store(tmp_path)


def test_the_last_revision_of_a_window_counts_and_as_of_shows_what_was_known(
    tmp_path: Path,
) -> None:
    with Store(tmp_path) as store:
        put(
            store,
            Intake(KINDS, {}),
            window(0, 6.0, 1_000),
            window(1, 8.0, 2_000),
            window(1, 8.0, 3_000),
        )
    sql = "select value, mean, seen, completeness, revision from stats where sensor = 'a'"
    (row,) = ask(tmp_path, sql)
    assert row == {"value": 8.0, "mean": 4.0, "seen": 2, "completeness": 2 / 6, "revision": 1}
    assert ask(tmp_path, sql, as_of_ms=1_500)[0]["value"] == 6.0
    assert ask(tmp_path, "select count(*) n from stats_all") == [{"n": 4}]
    (silent,) = ask(tmp_path, "select value, mean, std, last from stats where sensor = 'b'")
    assert set(silent.values()) == {None}


def test_every_change_of_an_alert_is_kept(tmp_path: Path) -> None:
    alert = Alert(
        id="r/p/0", revision=0, transition="raised", rule="r", cause="c",
        place=Place(zone="z"), severity=4, active=True, acknowledged=False, opened_ms=NOON,
        updated_ms=NOON,
    )  # fmt: skip
    seen = msgspec.structs.replace(alert, revision=1, transition="acknowledged", acknowledged=True)
    with Store(tmp_path) as store:
        put(
            store, Intake(KINDS, {}),
            Record("alerts", 0, 0, 10, msgspec.json.encode(alert)),
            Record("alerts", 0, 1, 20, msgspec.json.encode(seen)),
        )  # fmt: skip
    assert ask(tmp_path, "select revision, acknowledged, zone from alerts") == [
        {"revision": 1, "acknowledged": True, "zone": "z"}
    ]
    assert ask(tmp_path, "select count(*) n from alerts_all") == [{"n": 2}]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/hostname')",
        "select * from '/etc/passwd'",
        "copy (select 1) to '{root}/x.csv'",
        "create table t as select 1",
        "set memory_limit = '1GB'",
        "attach '{root}/journal.sqlite'",
        "select 1; select 2",
        "select * from nothing_like_it",
        "select nothing_like_it from readings",
        "selec",
    ],
)
def test_a_query_that_may_not_or_cannot_run_is_refused_by_name(tmp_path: Path, sql: str) -> None:
    with Store(tmp_path) as store:
        put(store, Intake(KINDS, {}), readings(0, NOON, 7))
    with pytest.raises(UsageError, match="query: "):
        ask(tmp_path, sql.format(root=tmp_path))


def test_a_folder_without_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no history"):
        Reader(tmp_path)


def test_a_newer_journal_is_not_touched(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("pragma user_version=99")
    with pytest.raises(SetupError, match="version 99 is newer"):
        Journal(tmp_path)


def test_every_table_and_column_is_described_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "history.md").read_text("utf-8")
    for table in TABLES.values():
        assert f"\n### {table.name}\n" in text
        for name, (_, meaning) in table.columns.items():
            assert f"| `{name}` | " in text, name
            assert f"| {meaning} |" in text, name
    for view, meaning in VIEWS.items():
        assert f"| `{view}` | {meaning} |" in text


def test_every_column_can_be_asked_for_by_its_name(tmp_path: Path) -> None:
    Store(tmp_path).close()
    for view in VIEWS:
        columns = TABLES[view.removesuffix("_all")].columns
        with Reader(tmp_path) as reader:
            assert reader.query(f"select {', '.join(columns)} from {view}").num_rows == 0
