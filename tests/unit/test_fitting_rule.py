"""A live fitter, which reads history, and a replay, which reads the log, fit the same models."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from citybrain.history.rows import closed
from citybrain.history.store import Store
from citybrain.kinds import DAY, HOUR, MINUTE
from citybrain.models.refit import Refits
from citybrain.stats import Effective, Stats
from citybrain.streams.fitter import Fitter, Metrics
from tests.analysing import SENSORS, city, window

STEP = 5 * MINUTE
CITY = city(vehicle_count=300)
D0 = 1_767_542_400_000  # 2026-01-05T00:00+08:00, a local midnight


def told(since: int, until: int, backfill: bool = False) -> Iterator[Stats]:
    """Windows of the log: counts with a daily wave; d4 is silent, and at night all are."""
    random = np.random.default_rng(since % 1000)
    for start in range(since, until, STEP):
        wave = 40 + 30 * np.sin(2 * np.pi * (start % DAY) / DAY)
        drawn = random.poisson(wave * np.array([1.0, 0.5, 2.0]))
        values = {name: [float(x)] for name, x in zip(SENSORS, drawn, strict=False)}
        if (start - D0) % DAY < HOUR or start - D0 > 4 * DAY - HOUR:
            values = {}
        head = {"revision": 1, "backfill": True} if backfill else {}
        yield window("vehicle_count", start, values, window_ms=STEP, cadence_ms=STEP, **head)


def keep(data: Path, messages: list[Stats]) -> None:
    """As the historian writes them."""
    with Store(data) as store:
        store.add(closed([(m, m.head.start_ms + STEP) for m in messages]), ("stats", 0, 0))
        store.flush({("stats", 0): 1}, {})


@pytest.mark.parametrize("hole", [0, 90 * MINUTE], ids=["whole", "a hole over midnight"])
def test_a_live_fitter_and_a_replay_fit_the_same_models_for_the_same_windows(
    tmp_path: Path, hole: int
) -> None:
    messages = [
        m for m in told(D0, D0 + 4 * DAY + 3 * HOUR)
        if not D0 + 4 * DAY - HOUR <= m.head.start_ms < D0 + 4 * DAY - HOUR + hole
    ]  # fmt: skip
    refits, fitter = Refits(CITY), Fitter(tmp_path / "history", CITY, Metrics(CollectorRegistry()))
    models: list[list[Effective]] = []
    behind = 0
    for i, message in enumerate(messages):
        found = list(refits.take(message))
        if not found:
            continue
        models.append(found)
        # The live fitter looks some windows later: what came since must not matter.
        seen = min(len(messages), i + 5)
        keep(tmp_path / "history", messages[behind:seen])
        behind = seen
        assert fitter.worth_a_look() == [("north", "vehicle_count")]
        done = fitter.fit("north", "vehicle_count")
        assert done is not None
        assert done[1] == found
        fitter.learn(done[0])
        assert fitter.fit("north", "vehicle_count") is None
    first = D0 + 4 * DAY + max(0, hole - HOUR)
    assert [m[0].from_ms for m in models] == [D0 + 3 * DAY + HOUR, first + HOUR]


def test_days_that_were_filled_in_make_a_model_before_midnight(tmp_path: Path) -> None:
    now = D0 + 4 * DAY + 9 * HOUR + 20 * MINUTE
    keep(tmp_path / "history", [*told(now - 2 * HOUR, now)])
    fitter = Fitter(tmp_path / "history", CITY, Metrics(CollectorRegistry()))
    assert fitter.fit("north", "vehicle_count") is None
    keep(tmp_path / "history", [*told(D0, D0 + 4 * DAY, backfill=True)])
    assert fitter.worth_a_look() == [("north", "vehicle_count")]
    done = fitter.fit("north", "vehicle_count")
    assert done is not None
    assert done[0].until_ms == D0 + 4 * DAY + 9 * HOUR
    assert now <= done[0].from_ms <= now + 3 * STEP
    fitter.learn(done[0])
    assert fitter.fit("north", "vehicle_count") is None
    assert fitter.worth_a_look() == []


def test_a_history_that_grows_by_itself_waits_for_midnight(tmp_path: Path) -> None:
    keep(tmp_path / "history", [*told(D0 + 6 * HOUR, D0 + 3 * DAY + 22 * HOUR)])
    fitter = Fitter(tmp_path / "history", CITY, Metrics(CollectorRegistry()))
    assert fitter.worth_a_look() == [("north", "vehicle_count")]
    done = fitter.fit("north", "vehicle_count")
    assert done is not None
    assert done[0].until_ms == D0 + 3 * DAY
    fitter.learn(done[0])
    assert fitter.fit("north", "vehicle_count") is None
    assert fitter.worth_a_look() == []
