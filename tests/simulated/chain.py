"""Schedules of the whole chain: rollup, analyse and alerting over two shards.

The statistics are compared with the truth. Everything behind them is a deterministic function
of the log before it: a fresh stage that reads the log once, in peace, must say just what the
log behind it holds. And what alerts there are follows from the readings.
"""

import msgspec

from citybrain.alerts import Alert
from citybrain.findings import Finding
from citybrain.rules import Rule
from citybrain.stage import Record, Stage
from citybrain.streams.alerting import Alerting
from citybrain.streams.analyse import Analyse
from tests.simulated import rollups
from tests.simulated.broker import Entry
from tests.simulated.cases import JAM, case, small_city
from tests.simulated.schedule import World
from tests.simulated.worker import Engine

JAMMED = Rule(
    name="jam", detector="threshold", cause="jam", severity=3, advice="jam", zh="堵", en="Jam",
    kinds=["vehicle_count"], window_s=10, raise_at=JAM / 2, group="sensor",
)  # fmt: skip
CITY = small_city(2, [JAMMED])
LOGS = 40
STAGES = {
    "readings": ("rollup", rollups.rollup),
    "stats": ("analyse", Analyse),
    "findings": ("alerting", lambda city, _: Alerting(city)),
}


def world(seed: int) -> World:
    """The world of a seed."""
    one = case(seed % LOGS, shards=2, poison=seed % 5 == 0, jams=True)
    return World(one, Engine(CITY, STAGES), seed)  # type: ignore[arg-type]  # factories of stages


def play(seed: int) -> World:
    """Play a schedule and judge it. Raises AssertionError, or whatever has gone wrong."""
    played = world(seed)
    played.play()
    rollups.judge(played, played.case)
    said: dict[str, Finding] = {}
    for partition, log in enumerate(played.topic("stats")):
        said |= _findings(_again(Analyse(CITY, partition), "stats", partition, log.ever()))
    (log,) = played.topic("findings")
    found = _findings([entry.value or b"" for entry in log.ever()])
    assert found == said
    alerts = _alerts([e.value or b"" for one in played.topic("alerts") for e in one.ever()])
    assert alerts == _alerts(_again(Alerting(CITY), "findings", 0, log.ever(), "alerts"))
    jammed = {
        sensor
        for (kind, length, _, sensor), numbers in played.case.truth.windows.items()
        if kind == "vehicle_count" and length == 10_000 and numbers[1] >= JAM
    }
    assert {alert.place.sensor for alert in alerts.values()} == jammed
    return played


def _again(stage: Stage, topic: str, partition: int, entries: list[Entry],
           wanted: str = "findings") -> list[bytes]:  # fmt: skip
    """What a stage says that reads a log once from its beginning."""
    return [
        out.value
        for e in entries
        for out in stage.apply(
            Record(topic, partition, e.offset, e.timestamp, e.value or b"", e.key, e.headers)
        )
        if out.topic == wanted
    ]


def _findings(values: list[bytes]) -> dict[str, Finding]:
    """Findings by identity; whatever is said again must be the same."""
    found: dict[str, Finding] = {}
    for value in values:
        if b'"type":"finding"' not in value:
            continue
        one = msgspec.json.decode(value, type=Finding)
        name = f"{one.id} {one.state} {one.at_ms}"
        assert found.setdefault(name, one) == one, name
    return found


def _alerts(values: list[bytes]) -> dict[str, Alert]:
    """The last word on each alert."""
    found: dict[str, Alert] = {}
    for value in values:
        if value:
            alert = msgspec.json.decode(value, type=Alert)
            if alert.id not in found or found[alert.id].revision <= alert.revision:
                found[alert.id] = alert
    return found
