"""The recorded cities: every value of their tables is in the recording, or counted."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from citybrain import pack, recording
from citybrain.cityimport import mapping as mappings
from citybrain.cityimport.run import run
from citybrain.kinds import DAY

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.parametrize("name", ["aarhus", "beijing"])
def test_built_in_mappings_account_for_every_value_and_repeat_exactly(
    tmp_path: Path, name: str
) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the recorded data of {name} ({SHARED / name}) is not here")
    path = mappings.find(name)
    first = run(path, tmp_path / "a", SHARED / name)
    again = run(path, tmp_path / "b", SHARED / name)
    assert first.recording.read_bytes() == again.recording.read_bytes()
    assert pack.load(str(first.pack)).version == pack.load(str(again.pack)).version
    assert sum(c.kept for c in first.tables.values()) == first.readings > 2_000_000
    json.dumps(first.as_json())
    city = pack.load(str(first.pack))
    end = first.first_ms + DAY
    cut = recording.cut(first.recording, city, end_ms=end)
    n = sum(len(record) for record in cut if hasattr(record, "codes"))
    time = pq.read_table(first.recording, columns=["time"]).column("time").to_numpy()
    assert n == int((time < end).sum())
    if name == "aarhus":  # two values of 60 links for twelve slots that the clock left out
        assert first.tables["traffic.parquet"].missing_time > 720
        assert first.tables["traffic.parquet"].filtered == 268_950
