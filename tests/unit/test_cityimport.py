"""Importing a city: every value is in the recording or counted, clock changes by the rule."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import pack, recording
from citybrain.cityimport.localtime import changes, resolve
from citybrain.cityimport.run import Imported, run
from citybrain.errors import PackError
from citybrain.kinds import HOUR, MINUTE

COPENHAGEN = ZoneInfo("Europe/Copenhagen")


def wall(text: str) -> int:
    """Wall-clock text as milliseconds, whatever the zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def one(texts: list[str], series: list[int] | None = None) -> tuple[list[str], list[bool]]:
    rows = np.array([wall(t) for t in texts], np.int64)
    got = resolve(rows, np.array(series or [0] * len(texts)), COPENHAGEN)
    utc = [datetime.fromtimestamp(t / 1000, UTC).strftime("%H:%M") for t in got.utc_ms.tolist()]
    return utc, got.missing.tolist()


def test_times_that_the_clock_left_out_are_missing() -> None:
    utc, missing = one(["2014-03-30T01:55", "2014-03-30T02:00", "2014-03-30T02:55",
                        "2014-03-30T03:00"])  # fmt: skip
    assert missing == [False, True, True, False]
    assert (utc[0], utc[3]) == ("00:55", "01:00")


def test_doubled_times_are_the_second_pass_once_the_clock_has_gone_back() -> None:
    utc, missing = one(["2014-10-26T02:00", "2014-10-26T02:30", "2014-10-26T02:00",
                        "2014-10-26T02:30", "2014-10-26T03:00"])  # fmt: skip
    assert utc == ["00:00", "00:30", "01:00", "01:30", "02:00"]
    assert not any(missing)


def test_doubled_times_side_by_side_are_first_and_second_pass() -> None:
    utc, _ = one(["2014-10-26T02:00", "2014-10-26T02:00", "2014-10-26T02:30", "2014-10-26T02:30"])
    assert utc == ["00:00", "01:00", "00:30", "01:30"]


def test_one_series_says_nothing_of_another_s_clock() -> None:
    utc, _ = one(["2014-10-26T02:30", "2014-10-26T02:00", "2014-10-26T02:00"], [0, 1, 0])
    assert utc == ["00:30", "00:00", "01:00"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        ["Europe/Copenhagen", "Asia/Shanghai", "America/Chicago", "Australia/Lord_Howe",
         "Africa/Casablanca", "America/St_Johns", "Asia/Kathmandu", "UTC"]
    ),
    st.lists(st.integers(wall("2005-01-01") // MINUTE, wall("2030-01-01") // MINUTE), min_size=1,
             max_size=20),
)  # fmt: skip
def test_every_instant_survives_its_way_over_the_wall_clock(name: str, minutes: list[int]) -> None:
    """Sorted instants of one series, shown by the wall clock, come back: the only ones that may
    not are a second pass that nothing gives away."""
    zone = ZoneInfo(name)
    instants = sorted({m * MINUTE for m in minutes})
    shown, fold = [], []
    for t in instants:
        local = datetime.fromtimestamp(t / 1000, UTC).astimezone(zone)
        fold.append(local.fold)
        shown.append(t + round((local.utcoffset() or timedelta()).total_seconds() * 1000))
    got = resolve(np.array(shown), np.zeros(len(shown), int), zone)
    assert not got.missing.any()
    for t, back, second in zip(instants, got.utc_ms.tolist(), fold, strict=True):
        assert back == t or (second and t - 3 * HOUR < back < t)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["Europe/Copenhagen", "America/Chicago", "Australia/Lord_Howe"]),
    st.integers(wall("2000-01-01") // MINUTE, wall("2030-01-01") // MINUTE),
)
def test_missing_are_exactly_the_times_that_no_instant_shows(name: str, minute: int) -> None:
    zone = ZoneInfo(name)
    local = datetime.fromtimestamp(minute * 60, UTC).replace(tzinfo=zone)
    there = local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local.replace(
        tzinfo=None
    )
    got = resolve(np.array([minute * MINUTE]), np.zeros(1, int), zone)
    assert bool(got.missing[0]) is not there


def test_clock_changes_are_found_to_the_millisecond() -> None:
    got = changes(COPENHAGEN, wall("2014-01-01"), wall("2014-12-31"))
    assert got.at_ms.tolist() == [wall("2014-03-30T01:00"), wall("2014-10-26T01:00")]
    assert (got.after_ms - got.before_ms).tolist() == [HOUR, -HOUR]


CITY = """
[city]
id = "town"
zh = "镇"
en = "Town"
time_zone = "Asia/Shanghai"
lon = 116.4
lat = 39.9
"""


def imported(folder: Path, mapping: str, **files: str) -> Imported:
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, "utf-8")
    (folder / "town.toml").write_text(CITY + mapping, "utf-8")
    return run(folder / "town.toml", folder / "out", folder)


LONG = "sensor,kind,time,value\n"


def test_a_plain_table_needs_hardly_any_mapping(tmp_path: Path) -> None:
    got = imported(
        tmp_path, '[[tables]]\nfile = "r.csv"\n',
        r=LONG + "a,temperature,2024-01-01 08:00:00,1.3\nb,pm25,2024-01-01T08:01:00,20\n",
    )  # fmt: skip
    rows = pq.read_table(got.recording)
    assert rows.schema == recording.SCHEMA
    assert rows.column("time").to_pylist() == [wall("2024-01-01"), wall("2024-01-01T00:01")]
    assert rows.column("value").to_pylist() == [1.30078125, 20.0]
    city = pack.load(str(got.pack))
    assert city.sensors["a"].kinds == ("temperature",)
    assert "sensor-silent" in city.rules
    assert len(list(recording.cut(got.recording, city))) > 2


def test_every_value_is_kept_or_counted(tmp_path: Path) -> None:
    got = imported(
        tmp_path, '[[tables]]\nfile = "r.csv"\n',
        r=LONG
        + "a,temperature,2024-01-01 08:00:00,1\n"
        + "a,temperature,2024-01-01 08:00:00,1\n"  # duplicate
        + "a,temperature,2024-01-01 08:00:00,2\n"  # conflict
        + "a,temperature,2024-01-01 08:01:00,NaN\n"  # empty
        + "a,temperature,2024-01-01 08:02:00,\n"  # empty
        + "a,temperature,2024-01-01 08:03:00,99\n"  # out of range
        + "a,temperature,yesterday,3\n"  # bad time
        + "a,magic,2024-01-01 08:00:00,3\n"
        + "a,temperature,2024-01-01 08:04:00,4\n",
    )  # fmt: skip
    counts = dataclasses.asdict(got.tables["r.csv"])
    assert counts.pop("unknown_kinds") == {"magic"}
    assert counts == {
        "read": 9, "kept": 2, "empty": 2, "filtered": 0, "bad_time": 1, "missing_time": 0,
        "unknown_kind": 1, "out_of_range": 1, "duplicate": 1, "conflict": 1, "doubled_time": 0,
    }  # fmt: skip
    assert pq.read_table(got.recording).column("value").to_pylist() == [1.0, 4.0]


def test_wide_tables_filters_factors_and_roads(tmp_path: Path) -> None:
    got = imported(
        tmp_path,
        """
[[tables]]
file = "t.csv"
time = "when"
time_format = "%d.%m.%Y %H:%M"
time_zone = "UTC"
sensor = "road"
[tables.values]
"speed mph" = { kind = "vehicle_speed", factor = 1.609344, where = "n > 0 and n <= most" }
n = { kind = "vehicle_count" }
[links]
file = "roads.csv"
id = "road"
from_lon = "x0"
from_lat = "y0"
to_lon = "x1"
to_lat = "y1"
""",
        t="road,when,speed mph,n,most\n7,31.12.2023 23:00,10,2,9\n7,31.12.2023 23:05,50,0,9\n"
        "7,31.12.2023 23:10,50,10,9\n",
        roads="road,x0,y0,x1,y1\n7,116.4,39.9,116.41,39.9\n",
    )
    rows = pq.read_table(got.recording).to_pylist()
    assert [(r["kind"], r["value"]) for r in rows] == [
        ("vehicle_count", 2.0), ("vehicle_speed", 16.09375), ("vehicle_count", 0.0),
        ("vehicle_count", 10.0),
    ]  # fmt: skip
    assert rows[0]["time"] == wall("2023-12-31T23:00")
    assert got.tables["t.csv"].filtered == 2
    city = pack.load(str(got.pack))
    assert city.sensors["7"].link == "7"
    assert 850 < city.links["7"].length_m < 856


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ('[[tables]]\nfile = "none.csv"\n', "none.csv: no such file"),
        ('[[tables]]\nfile = "r.csv"\ntime = "t"\n', "r.csv: time: no column 't'"),
        ('[[tables]]\nfile = "r.csv"\nvalues = { v = { kind = "pm" } }\n', "v.kind: 'pm' is not a"),
        ('[[tables]]\nfile = "r.csv"\ntimezone = "UTC"\n', "unknown field `timezone`"),
        ('[[tables]]\nfile = "r.csv"\ntime_zone = "Mars"\n', "time_zone: 'Mars'"),
        ('[[tables]]\nfile = "r.csv"\nvalues = { value = { kind = "pm25", where = "1; drop" } }\n',
         "where: '1; drop'"),
        ("", "missing required field `tables`"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, mapping: str, said: str
) -> None:
    with pytest.raises(PackError) as error:
        imported(tmp_path, mapping, r=LONG + "a,pm25,2024-01-01,3\n")
    assert said in str(error.value)


def test_a_sensor_without_a_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(LONG + "a,pm25,2024-01-01,3\n")
    text = (CITY + '[[tables]]\nfile = "r.csv"\n').replace("lon = 116.4\nlat = 39.9\n", "")
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(PackError, match="'a' is in no positions"):
        run(tmp_path / "m.toml", tmp_path / "out", tmp_path)
