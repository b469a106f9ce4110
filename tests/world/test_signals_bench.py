"""The closed loop on a real simulator: what `citybrain signals bench` prints can be trusted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.world

SCENARIOS = Path(__file__).parents[3] / "shared" / "scenarios"


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "citybrain", "signals", "bench", *options],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ingolstadt() -> Path:
    config = SCENARIOS / "ingolstadt1" / "ingolstadt1.sumocfg"
    if not config.is_file():
        pytest.skip(f"{config} is not there: it belongs to no release")
    return config


def test_every_vehicle_counts_and_the_same_seed_gives_the_same_figures(ingolstadt: Path) -> None:
    options = ("--sumocfg", str(ingolstadt), "--controller", "fixed,horizon", "--seeds", "2",
               "--end", "58200", "--json")  # fmt: skip
    first, again = bench(*options), bench(*options)
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    found = json.loads(first.stdout)
    for row in found["controllers"].values():
        assert row["scheduled"] == found["controllers"]["fixed"]["scheduled"] > 200
        assert row["arrived"] + row["never_inserted"] <= row["scheduled"]
        assert row["refusals"] == 0, "the sequencer asked for what the interlock refuses"
        assert row["gridlocked"] == 0
    (apart,) = found["differences"]
    means = {name: row["mean_delay_s"] for name, row in found["controllers"].items()}
    assert apart["mean_s"] == pytest.approx(means["horizon"] - means["fixed"], abs=0.02)
    assert apart["mean_s"] < 0, "our controller is worse than a fixed plan at one junction"


def test_people_on_foot_and_sumos_own_controllers_are_measured_too() -> None:
    done = bench("--net", "adlershof", "--demand", "1200", "--controller", "shipped,horizon",
                 "--seeds", "1", "--end", "600", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["controllers"]
    assert rows["shipped"]["pedestrian_p95_s"] > 0
    assert rows["horizon"]["pedestrian_p95_s"] > 0
    assert rows["horizon"]["refusals"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--net", "none.net.xml", "--routes", "none.rou.xml"), "none.net.xml: no such file"),
        (("--routes", "x.rou.xml"), "--net: give a network"),
        (("--net", "adlershof", "--controller", "magic", "--end", "60"), "'magic' is not one of"),
        (("--sumocfg", __file__), "--sumocfg"),
        (("--sumocfg", "x", "--net", "y"), "not both"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(options: tuple[str, ...], said: str) -> None:
    done = bench(*options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
