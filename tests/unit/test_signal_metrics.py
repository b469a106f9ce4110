"""What Prometheus is told of the signals: only what is of now."""

from math import isnan
from types import SimpleNamespace
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from citybrain.edge.signal_metrics import BEHIND_MS, SignalMetrics
from citybrain.signal_log import Measured

CABINETS: Any = SimpleNamespace(phases=list, arbiters={}, refused={})
LIVE = Measured(
    run="live", from_ms=0, through_ms=900_000, window_s=900, delay_s=30.0, arrived_h=1_000,
    stops=1.0, queue=5.0, side_p95_s=None, walk_p95_s=40.0, running=9, pending=0,
    responses={"a": 60.0, "b": 90.0},
)  # fmt: skip
TWIN = msgspec.structs.replace(LIVE, run="twin", delay_s=50.0, responses={"a": 80.0})


def told(*observed: list[Measured]) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    metrics = SignalMetrics(registry)
    for runs in observed:
        metrics.observe(runs, CABINETS)
    return {
        (sample.name, sample.labels["run"]): sample.value
        for family in registry.collect() for sample in family.samples if "run" in sample.labels
    }  # fmt: skip


DELAY, RESPONSE = "citybrain_signals_delay_seconds", "citybrain_emergency_response_seconds"


def test_both_runs_are_told_with_the_responses_that_both_know() -> None:
    found = told([LIVE, TWIN])
    assert (found[DELAY, "live"], found[DELAY, "twin"]) == (30.0, 50.0)
    assert (found[RESPONSE, "live"], found[RESPONSE, "twin"]) == (60.0, 80.0)


def test_the_last_figures_of_a_twin_that_died_or_lags_do_not_stay_for_ever() -> None:
    late = msgspec.structs.replace(LIVE, through_ms=LIVE.through_ms + BEHIND_MS + 1)
    for after in ([LIVE], [late, TWIN]):
        found = told([LIVE, TWIN], after)
        assert found[DELAY, "live"] == 30.0
        assert isnan(found[DELAY, "twin"])
        assert isnan(found[RESPONSE, "live"]), "a response time beside none"
        assert isnan(found[RESPONSE, "twin"])


def test_a_figure_that_is_not_known_any_more_does_not_keep_its_last_value() -> None:
    name = "citybrain_signals_pedestrian_wait_p95_seconds"
    found = told([LIVE, TWIN], [msgspec.structs.replace(LIVE, walk_p95_s=None), TWIN])
    assert isnan(found[name, "live"])
    assert found[name, "twin"] == 40.0
