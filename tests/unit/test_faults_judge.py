"""The judges of `make faults` and `make soak` find what they are there to find."""

from pathlib import Path

import numpy as np
import pytest

from citybrain.alerts import Alert
from citybrain.columns import Roster
from citybrain.findings import Place
from citybrain.history.intake import Intake
from citybrain.history.store import Store
from citybrain.kinds import KINDS
from citybrain.ledger import Book
from citybrain.stats import Stats, StatsHead
from tests.faults import judge, soak
from tests.faults.cluster import Receiver
from tests.faults.follow import Cells, Told
from tests.faults.load import KIND, PANE_MS, Episode, Truth
from tests.unit.test_history import NOON, ROSTER, put, readings

NAMES = ["d1", "d2"]
BEGIN = 1_700_000_000_000 // 60_000 * 60_000


@pytest.fixture
def truth() -> Truth:
    """Six panes of two sensors, ten readings each; `d2` was high in all of them."""
    made = Truth(NAMES, BEGIN)
    for pane in range(6):
        row = made.pane(BEGIN + pane * PANE_MS)
        made.count[row] = 10
        made.total[row] = [100.0, 900.0]
    made.accepted = 120
    made.episodes = [Episode("d2", BEGIN, BEGIN + 60_000)]
    return made


@pytest.fixture
def told() -> Told:
    """All of it, with its minute, its alert and nothing else."""
    made = Told(NAMES)
    for length, count in ((PANE_MS, 6), (60_000, 1)):
        n = 10 * length // PANE_MS
        for i in range(count):
            start = BEGIN + i * length
            made.windows[length, start] = Cells(
                np.zeros(2, np.int64), np.full(2, n), np.array([10.0 * n, 90.0 * n])
            )
            head = StatsHead(
                shard="s0", kind=KIND, window_ms=length, step_ms=length, start_ms=start,
                revision=0, expected=n, cause_offset=0, cause_ms=0,
            )  # fmt: skip
            nothing = np.zeros(2)
            made.first[length, start, "s0"] = Stats(
                head, Roster(tuple(NAMES)), np.arange(2, dtype=np.int32),
                np.full(2, n, np.int32), np.zeros(2, np.int32), np.array([10.0 * n, 90.0 * n]),
                nothing, nothing, nothing, nothing, np.zeros(2, np.int64),
            )  # fmt: skip
    made.alerts["crowded/d2/1"] = alert("crowded/d2/1")
    return made


def alert(name: str, active: bool = False) -> Alert:
    """An alert of `d2`."""
    return Alert(
        id=name, revision=1, transition="cleared", rule="crowded", cause="crowded",
        place=Place(zone="z", sensor="d2"), severity=3, active=active, acknowledged=False,
        opened_ms=BEGIN, updated_ms=BEGIN,
    )  # fmt: skip


def found(truth: Truth, told: Told) -> list[str]:
    """Differences of statistics and alerts."""
    return [
        *judge.panes_hold(truth, told),
        *judge.longer_windows_hold(truth, told),
        *judge.alerts_hold(truth, told)[0],
    ]


def test_nothing_is_found_where_all_holds(truth: Truth, told: Told) -> None:
    assert found(truth, told) == []


def test_one_lost_and_one_double_reading_are_found(truth: Truth, told: Told) -> None:
    told.windows[PANE_MS, BEGIN].seen[0] -= 1
    told.windows[PANE_MS, BEGIN + PANE_MS].seen[1] += 1
    (first, *_) = found(truth, told)
    assert first == "panes: 2 cells differ; 1 readings lost, 1 double"


def test_a_wrong_sum_of_a_longer_window_is_found(truth: Truth, told: Told) -> None:
    told.windows[60_000, BEGIN].total[1] += 2**-7
    (only,) = found(truth, told)
    assert only.startswith("window of 60 s")


def test_missing_double_open_and_invented_alerts_are_found(truth: Truth, told: Told) -> None:
    told.alerts["crowded/d2/1"] = alert("crowded/d2/1", active=True)
    told.alerts["crowded/d2/2"] = alert("crowded/d2/2")
    assert len(found(truth, told)) == 2
    told.alerts.clear()
    assert found(truth, told) == ["no alert for the episode of d2"]
    truth.episodes.clear()
    assert len(found(truth, told)) == 2


def test_an_effect_that_came_twice_or_never_is_found(told: Told) -> None:
    receiver = Receiver()
    receiver.close()
    assert list(judge.effects_hold(told, receiver)) == ["webhook crowded/d2/1/raised/3 never came"]
    receiver.came["crowded/d2/1/raised/3"] = 2
    assert list(judge.effects_hold(told, receiver)) == [
        "webhook crowded/d2/1/raised/3 came 2 times"
    ]


def test_a_sum_that_does_not_come_out_is_found(truth: Truth) -> None:
    names = Book.__struct_fields__
    whole = dict.fromkeys(names, 0) | dict.fromkeys(
        ("produced", "counted", "sent", "received"), 120
    )
    assert list(judge.sum_holds(Book(**whole), truth)) == []
    assert len(list(judge.sum_holds(Book(**whole | {"counted": 119}), truth))) == 2
    moved = whole | {"counted": 100, "backfilled": 20}
    (only,) = judge.sum_holds(Book(**moved), truth)
    assert only.startswith("20 readings backfilled")


def test_a_row_that_history_misses_or_repeats_is_found(tmp_path: Path) -> None:
    with Store(tmp_path / "history") as store:
        put(store, Intake(KINDS, {}), readings(0, NOON, 0))
    truth = Truth(list(ROSTER.names), NOON)
    row = truth.pane(NOON)
    truth.count[row] = 1
    truth.total[row] = [0.0, 0.125, 0.25]
    (only,) = judge.history_holds(truth, tmp_path)
    assert only.startswith("statistics in history: 3 cells differ")  # there are none at all
    truth.count[row, 1] = 2
    assert len(list(judge.history_holds(truth, tmp_path))) == 2


def test_what_grows_during_a_soak_is_found_and_what_only_wavers_is_not() -> None:
    seconds = [5.0 * i for i in range(1_000)]
    noise = np.random.default_rng(1).normal(0, 3 << 20, 1_000)
    steady = (300 << 20) + noise
    leak = steady + np.arange(1_000) * (64 << 10)
    names = {"seconds": seconds, "memory/worker-1": steady, "memory/worker-2": leak}
    (only,) = soak.growing({name: list(values) for name, values in names.items()})
    assert only.startswith("memory/worker-2 grew by")
