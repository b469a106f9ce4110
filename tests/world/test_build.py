"""The built-in city's pack is what its generator writes, from the installed network."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from citybrain.city import find
from citybrain.pack import load

pytestmark = pytest.mark.world

GENERATED = (
    "city.toml",
    "sensors.csv",
    "roads.geojson",
    "world.toml",
    "signals.toml",
    "emergency.toml",
)


def test_the_committed_pack_can_be_built_again_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "again"
    command = [sys.executable, "-m", "citybrain.edge.world.build", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    built_in = find("adlershof")
    for name in GENERATED:
        assert (folder / name).read_bytes() == (built_in / name).read_bytes(), name
    for name in ("rules.toml", "calendar.toml", "NOTICE"):
        shutil.copy(built_in / name, folder)
    assert load(str(folder)).version == load("adlershof").version


def test_the_pack_says_whose_map_it_is() -> None:
    notice = (find("adlershof") / "NOTICE").read_text("utf-8")
    assert "OpenStreetMap contributors" in notice
    assert "ODbL" in notice
    assert "generated" in notice
