"""Whatever dies, freezes, is cut or comes twice: the engine's results are those of a good day.

The simulator is in `tests/simulated`; a seed that fails here is played again, step by step the
same, with `python -m tests.simulated [--chain] --seed N`.
"""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tests.simulated import faults, many, rollups
from tests.simulated.planted import FAULTS

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("CITYBRAIN_TEST_SIZE") == "full"
SCHEDULES = 1_000_000 if FULL else 10_000
CHAINS = 30_000 if FULL else 300
DRAWN = {*faults.ALWAYS, *faults.KEEPS_NOTHING, *faults.LOSES_STATE} | {
    "poison", "failure that passes", "re-delivery", "time-out",
}  # fmt: skip


@pytest.mark.timeout(6 * 3_600 if FULL else 900)
def test_no_schedule_of_the_rollup_loses_or_doubles_a_reading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    played = many.play("rollup", range(SCHEDULES))
    with capsys.disabled():
        print("\n" + played.table("rollup"))
    assert not played.failed, f"python -m tests.simulated --seed {min(played.failed)}"
    assert played.schedules == SCHEDULES
    # What is in the plan after the end of a short log counts as not drawn.
    assert {name for name in DRAWN - {"time-out, arrived"} if not played.drawn[name]} == set()


@pytest.mark.timeout(6 * 3_600 if FULL else 900)
def test_no_schedule_of_the_whole_chain_changes_a_finding_or_an_alert(
    capsys: pytest.CaptureFixture[str],
) -> None:
    played = many.play("chain", range(CHAINS))
    with capsys.disabled():
        print("\n" + played.table("chain"))
    assert not played.failed, f"python -m tests.simulated --chain --seed {min(played.failed)}"
    assert played.schedules == CHAINS


@pytest.mark.parametrize("planted", FAULTS)
def test_a_fault_in_the_engine_is_found(planted: str) -> None:
    def wrong(seed: int) -> bool:
        try:
            rollups.play(seed, **FAULTS[planted])
        except AssertionError:  # what the judge says; any other error is a wrong plant
            return True
        return False

    assert any(islice(map(wrong, range(500)), 500))


@pytest.mark.parametrize("which", [["--seed", "7"], ["--chain", "--seed", "7"]])
def test_a_seed_plays_the_same_in_another_process(which: list[str]) -> None:
    told = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulated", *which],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True, cwd=ROOT,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1]
    assert "digest" in told[0]
