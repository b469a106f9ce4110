"""Replay: the same recording and pack give the same bytes; another pack is compared by diff."""

import os
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from citybrain import pack
from citybrain.cityimport import mapping as mappings
from citybrain.cityimport.run import run as run_import
from citybrain.clock import moment
from citybrain.errors import InvalidInput
from citybrain.history import alertdiff
from citybrain.streams.replaying import run
from tests.packs import write_pack
from tests.stream.test_live_equals_replay import RULES, make_recording

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
FULL = os.environ.get("CITYBRAIN_TEST_SIZE") == "full"
PERIODS = {
    "aarhus": ("2014-03-09T23:00", "2014-03-10T23:00"),
    "beijing": ("2014-02-28T16:00", "2014-03-31T16:00" if FULL else "2014-03-04T16:00"),
}


def test_two_replays_are_equal_and_another_threshold_shows_in_the_diff(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "pack")
    (folder / "rules.toml").write_text(RULES)
    city = pack.load(str(folder))
    count = make_recording(tmp_path / "r.parquet", city)
    first = run(city, tmp_path / "r.parquet", tmp_path / "a")
    again = run(city, tmp_path / "r.parquet", tmp_path / "b")
    assert first["readings"] == first["fates"]["counted"] == count
    digests = [{n: f["sha256"] for n, f in done["files"].items()} for done in (first, again)]
    assert digests[0] == digests[1]
    a = alertdiff.read(tmp_path / "a")
    assert {case.rule for case in a} == {"busy", "hot", "silent"}

    (folder / "rules.toml").write_text(RULES.replace("raise_at = 30.0", "raise_at = 500.0"))
    run(pack.load(str(folder)), tmp_path / "r.parquet", tmp_path / "c")
    found = alertdiff.compare(a, alertdiff.read(tmp_path / "c"))
    assert {case.rule for case in found.lost} == {"hot"}
    assert (found.gained, found.moved) == ([], [])


def test_statistics_of_a_replay_are_the_recording_s(tmp_path: Path) -> None:
    city = pack.load(str(write_pack(tmp_path / "pack")))
    make_recording(tmp_path / "r.parquet", city)
    run(city, tmp_path / "r.parquet", tmp_path / "out")
    raw = pq.read_table(tmp_path / "r.parquet")
    stats = pq.read_table(tmp_path / "out" / "stats.parquet")
    columns = (stats.column(n).to_pylist() for n in ("kind", "window_ms", "seen", "mean"))
    told = list(zip(*columns, strict=True))
    for kind, row in city.kinds.items():
        mask = pc.equal(raw.column("kind"), kind)
        value = raw.filter(mask).column("value").to_numpy()
        for window in row.windows_ms:
            mine = [(n, m) for k, w, n, m in told if (k, w) == (kind, window) and n]
            assert sum(n for n, _ in mine) == len(value)
            assert sum(n * m for n, m in mine) == pytest.approx(value.sum())


def test_a_recording_of_another_city_is_refused_by_the_row_and_leaves_no_file(
    tmp_path: Path,
) -> None:
    city = pack.load(str(write_pack(tmp_path / "pack")))
    make_recording(tmp_path / "r.parquet", city)
    other = pack.load(str(write_pack(tmp_path / "other", ["x,occupancy,north,north,g1"])))
    with pytest.raises(InvalidInput, match="row 0: "):
        run(other, tmp_path / "r.parquet", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["aarhus", "beijing"])
def test_recorded_cities_give_the_same_files_twice(tmp_path: Path, name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the recorded data of {name} ({SHARED / name}) is not here")
    got = run_import(mappings.find(name), tmp_path, SHARED / name)
    city = pack.load(str(got.pack))
    start, end = (moment(text, "start") for text in PERIODS[name])
    done = [run(city, got.recording, tmp_path / part, start, end) for part in "ab"]
    assert done[0]["readings"] > 5_000
    assert done[0]["files"]["stats"]["rows"] > 5_000
    hashes = [[file["sha256"] for file in one["files"].values()] for one in done]
    assert hashes[0] == hashes[1]
