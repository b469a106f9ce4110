"""The stages of the engine, by name: one line each.

A stage is made for one partition of its input topic. Factories import what they need when
they are called, so that a worker loads only the stages that it runs.
"""

from collections.abc import Callable
from dataclasses import dataclass

from citybrain.city import City
from citybrain.stage import Stage
from citybrain.streams.present import PATIENCE_MS


@dataclass(frozen=True, slots=True)
class StageRow:
    """topic: the input log's short name. make: (city, partition) -> its stage.

    snapshot_ms: how often state is made durable at most; a stage that writes to compacted
    topics shows its output only then. patience_ms: for how long everything must have been up to
    date before its `tick` is called.
    """

    topic: str
    make: Callable[[City, int], Stage]
    snapshot_ms: int = 1_000
    patience_ms: int = PATIENCE_MS


def _rollup(city: City, partition: int) -> Stage:
    from citybrain.streams.rollup import Rollup

    return Rollup(city, partition)


def _alerting(city: City, partition: int) -> Stage:
    from citybrain.streams.alerting import Alerting

    return Alerting(city)


def _analyse(city: City, partition: int) -> Stage:
    from citybrain.streams.analyse import Analyse

    return Analyse(city, partition)


def _signals(city: City, partition: int) -> Stage:
    from citybrain.streams.signals import Signals

    return Signals(city)


def _emergency(city: City, partition: int) -> Stage:
    from citybrain.streams.emergency import Emergencies

    return Emergencies(city)


STAGES: dict[str, StageRow] = {
    "rollup": StageRow("readings", _rollup),
    "analyse": StageRow("stats", _analyse),
    # Alerts show with the snapshot: people wait for them. Its state is small.
    "alerting": StageRow("findings", _alerting, snapshot_ms=100),
    # It judges nobody's silence, and traffic does not wait.
    "signals": StageRow("detector-states", _signals, snapshot_ms=5_000, patience_ms=0),
    "emergency": StageRow("emergency", _emergency, snapshot_ms=500),
}
