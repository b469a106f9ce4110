"""Emergency trips on a real scenario: measured against red lights and an empty road."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.world

SCENARIO = Path(__file__).parents[2].parent / "shared" / "scenarios" / "ingolstadt1"


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "citybrain", "emergency", "bench", *options],
        capture_output=True, text=True, timeout=1_200, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not SCENARIO.is_dir(), reason="the scenario ingolstadt1 is not beside us")
def test_priority_saves_most_of_what_an_empty_road_would() -> None:
    done = bench(
        "--net", str(SCENARIO / "ingolstadt1.net.xml"),
        "--routes", str(SCENARIO / "ingolstadt1.rou.xml"),
        "--seeds", "1", "--trips", "6", "--end", "58500", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["arrived"] == {"obeys": 6, "priority": 6}
    assert told["empty_s"] - 1 <= told["priority_s"] < told["obeys_s"], "steps are of a second"
    assert told["share"] > 0.5, "six trips of a quarter of an hour, so with room"
    assert told["requests"]["completed"] >= 6
    assert told["refusals"] == 0, "no lamp that the interlock had to stop"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--net", "nowhere.xml", "--routes", "nothing.xml"], "nowhere.xml"),
        (["--net", "adlershof", "--controller", "magic"], "--controller: 'magic' is not one of"),
        ([], "--net: give a network"),
    ],
)
def test_what_cannot_be_run_says_which_option(options: list[str], why: str) -> None:
    done = bench(*options)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
