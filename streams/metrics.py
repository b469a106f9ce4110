"""What a worker tells Prometheus, read from its shells when it is asked.

A partition that was given back is not in the table any more, so nothing stale is told.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from citybrain.clock import Clock
from citybrain.process import Health
from citybrain.stage import Telling
from citybrain.streams.shell import Shell

STALLED_MS = 30_000
"""With records waiting and none taken for so long, a worker is not well."""

Timer = Callable[[str], AbstractContextManager[None]]


class WorkerMetrics(Collector):
    """Lag, progress and state of the partitions of one worker."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self.shells: dict[Any, Shell] = {}
        self.lags: dict[Any, int] = {}
        self.assigned = False
        self.opening = 0
        self._clock = clock
        self._began_ms = self._idle_ms = clock()
        self._fruitless = 0
        self._rebalances = Counter(
            "citybrain_worker_rebalances", "How often all partitions were given back.",
            registry=registry,
        )  # fmt: skip
        self._seconds = Counter(
            "citybrain_stage_seconds", "Time spent by a stage, by part.", ["stage", "part"],
            registry=registry,
        )  # fmt: skip
        registry.register(self)

    def timer(self, stage: str) -> Timer:
        """Measures parts of a shell's work."""
        counters: dict[str, Counter] = {}

        @contextmanager
        def measure(part: str) -> Iterator[None]:
            begin = time.perf_counter()
            try:
                yield
            finally:
                counter = counters.get(part)
                if counter is None:
                    counter = counters[part] = self._seconds.labels(stage, part)
                counter.inc(time.perf_counter() - begin)

        return measure

    def revoked(self) -> None:
        """All partitions are about to be given back."""
        self._rebalances.inc()
        fruitful = any(s.applied_ms >= self._idle_ms for s in self.shells.values())
        self._fruitless = 0 if fruitful else self._fruitless + 1
        self._idle_ms = self._clock()
        self.assigned, self.opening = False, 0

    def lag(self, place: Any) -> int:
        """Records of a partition that are not taken yet."""
        return self.lags.get(place, 0) if place in self.shells else 0

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape."""
        labels = ["stage", "partition"]
        records = CounterMetricFamily(
            "citybrain_stage_records", "Records taken since the worker began.", labels=labels
        )
        outputs = CounterMetricFamily(
            "citybrain_stage_outputs", "Records written, by topic.", labels=[*labels, "topic"]
        )
        readings = CounterMetricFamily(
            "citybrain_stage_readings",
            "Readings since the city began, by fate.",
            labels=[*labels, "fate"],
        )
        lost = CounterMetricFamily(
            "citybrain_stage_lost_records", "Records that retention dropped unread.", labels=labels
        )
        lag = GaugeMetricFamily(
            "citybrain_stage_lag_records", "Records that wait to be taken.", labels=labels
        )
        age = GaugeMetricFamily(
            "citybrain_stage_watermark_age_seconds",
            "Now less what everybody has passed.",
            labels=labels,
        )
        saved = GaugeMetricFamily(
            "citybrain_stage_unsaved_records", "Records taken since the last snapshot.",
            labels=labels)  # fmt: skip
        facts = CounterMetricFamily(
            "citybrain_stage_events", "What a stage counts beside readings.",
            labels=[*labels, "event"])  # fmt: skip
        for place, shell in list(self.shells.items()):
            who = [shell.name, str(shell.partition)]
            records.add_metric(who, shell.taken)
            lost.add_metric(who, shell.lost)
            lag.add_metric(who, self.lag(place))
            saved.add_metric(who, (shell.next_offset or 0) - (shell.saved_offset or 0))
            for topic, number in list(shell.written.items()):
                outputs.add_metric([*who, topic], number)
            for fate, number in shell.stage.counts().items():
                readings.add_metric([*who, fate], number)
            if isinstance(shell.stage, Telling):
                told = shell.stage.facts()
                watermark = told.pop("watermark_ms", None)
                if watermark is not None:
                    age.add_metric(who, (self._clock() - watermark) / 1000)
                for event, total in told.items():
                    facts.add_metric([*who, event], total or 0)
        return [records, outputs, readings, lost, lag, age, saved, facts]

    def health(self) -> Health:
        """Well if every partition that has records waiting takes them."""
        now = self._clock()
        if not self.shells:
            ok = self.assigned or now - self._idle_ms < STALLED_MS
            return Health(ok=ok, waiting=self._waiting())
        stuck = [
            f"{shell.name}/{shell.partition}"
            for place, shell in list(self.shells.items())
            if self.lag(place) and now - max(shell.applied_ms, self._began_ms) > STALLED_MS
        ]
        return Health(
            ok=not stuck,
            waiting=f"no progress in {', '.join(stuck)}" if stuck else "",
            progress_ms=max(shell.applied_ms for shell in list(self.shells.values())),
            facts={"partitions": len(self.shells), "lag": sum(map(self.lag, list(self.shells)))},
        )

    def _waiting(self) -> str:
        if self.assigned:
            return "a partition; other workers have them all"
        what = (
            f"{self.opening} partitions to open" if self.opening else "Kafka to assign partitions"
        )
        if self._fruitless > 1:
            return f"{what} (given back {self._fruitless} times with no record taken)"
        return what
