"""What a world tells Prometheus of its signals: live, its twin, and the engineer's measures."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from citybrain.edge.cabinets import Cabinets
from citybrain.signal_log import Measured

RUNS = ("live", "twin")
BEHIND_MS = 60_000
"""A run whose figures end so long before the other's is not running beside it any more."""
_RUN = (
    ("delay_seconds", "Mean delay of the vehicles that arrived, last quarter of an hour.",
     "delay_s"),
    ("throughput_vehicles_per_hour", "Vehicles that arrived, by the hour.", "arrived_h"),
    ("stops_per_vehicle", "Stops of a vehicle that arrived.", "stops"),
    ("queued_vehicles", "Vehicles that stand before signals, on average.", "queue"),
    ("side_street_wait_p95_seconds", "95th percentile of the time stood on side streets.",
     "side_p95_s"),
    ("pedestrian_wait_p95_seconds", "95th percentile of walkers' waits.", "walk_p95_s"),
    ("waiting_to_enter_vehicles", "Vehicles that the streets have no room for yet.", "pending"),
)  # fmt: skip


class SignalMetrics:
    """Gauges by run (live, twin), and over all junctions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = {
            name: Gauge(f"citybrain_signals_{name}", text, ["run"], registry=registry)
            for name, text, _ in _RUN
        }
        self._green = Gauge(
            "citybrain_signals_arrivals_on_green_ratio", "Of all arrivals, on green.",
            registry=registry,
        )  # fmt: skip
        self._failures = Gauge(
            "citybrain_signals_split_failures", "Greens that left vehicles behind, of a quarter"
            " of an hour.", registry=registry,
        )  # fmt: skip
        self._wait = Gauge(
            "citybrain_signals_phase_wait_seconds", "Mean time from a call to green.",
            registry=registry,
        )  # fmt: skip
        self._responses = Gauge(
            "citybrain_emergency_response_seconds", "Mean time from an order to the arrival at the"
            " scene, of the latest dispatches that arrived in all runs.", ["run"],
            registry=registry,
        )  # fmt: skip
        self._sources = Gauge(
            "citybrain_signals_junctions", "Junctions by whose plan they follow.", ["source"],
            registry=registry,
        )  # fmt: skip
        self._refused = Gauge(
            "citybrain_signals_refused", "Plans and changes of lamps turned down since the start,"
            " by rule.", ["rule"], registry=registry,
        )  # fmt: skip

    def observe(self, runs: Sequence[Measured], cabinets: Cabinets) -> None:
        """Take over the latest figures."""
        latest = max((run.through_ms for run in runs), default=0)
        present = {run.run: run for run in runs if latest - run.through_ms <= BEHIND_MS}
        for which in RUNS:
            run = present.get(which)
            for name, _, field in _RUN:
                value = getattr(run, field) if run else None
                self._runs[name].labels(which).set(float("nan") if value is None else value)
        responses = [present[which].responses if which in present else {} for which in RUNS]
        common = sorted(set.intersection(*(set(told) for told in responses)))
        for which, told in zip(RUNS, responses, strict=True):
            times = [told[order] for order in common]
            mean = sum(times) / len(times) if times else float("nan")
            self._responses.labels(which).set(mean)
        phases = cabinets.phases()
        arrivals = sum(p.arrivals for p in phases)
        green = sum((p.arrivals_on_green or 0.0) * p.arrivals for p in phases)
        self._green.set(green / arrivals if arrivals else float("nan"))
        self._failures.set(sum(p.split_failures for p in phases))
        waits = [p.phase_wait_s for p in phases if p.phase_wait_s is not None]
        self._wait.set(sum(waits) / len(waits) if waits else float("nan"))
        following = [arbiter.source for arbiter in cabinets.arbiters.values()]
        for source in ("operator", "emergency", "priority", "adaptive", "local"):
            self._sources.labels(source).set(following.count(source))
        for rule, count in cabinets.refused.items():
            self._refused.labels(rule).set(count)
