"""What comes out of the engine while somebody looks: counts, latencies, findings, alerts."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from citybrain import findings, forecasts, log, stats
from citybrain.alerts import Alert
from citybrain.columns import Rosters
from citybrain.contents import consumer, partitions
from citybrain.errors import BrokerError, InvalidInput
from citybrain.findings import Finding
from citybrain.kafka import KafkaSettings

WATCHED = ("stats", "findings", "forecasts", "alerts")
KEPT = 50_000
"""So many of the last findings are kept for judging: a city may run for weeks."""
AGAIN_S = 2.0

_log = log.get("up")


@dataclass(slots=True)
class Seen:
    """What was seen. Latencies in ms, of live results: from the broker's receipt of the
    record that moved the watermark to its receipt of the result, as how often each was seen.
    Rows, not messages. problems: what was not counted, and why, as how often."""

    counts: Counter[str] = field(default_factory=Counter)
    stat_ms: Counter[int] = field(default_factory=Counter)
    alert_ms: Counter[int] = field(default_factory=Counter)
    first_stat_ms: int = 0
    findings: deque[Finding] = field(default_factory=lambda: deque(maxlen=KEPT))
    problems: Counter[str] = field(default_factory=Counter)

    def take(self, topic: str, value: bytes, received_ms: int, rosters: Rosters) -> None:
        """Count one record of an output topic; `received_ms` is the broker's time."""
        match topic:
            case "stats":
                window = stats.decode(value, rosters)
                if not isinstance(window, stats.Stats):
                    return
                self.counts["stats"] += len(window)
                if window.head.revision == 0:
                    self.first_stat_ms = self.first_stat_ms or received_ms
                    self.stat_ms[received_ms - window.head.cause_ms] += 1
            case "findings":
                entry = findings.decode(value)
                if isinstance(entry, Finding):
                    self.counts["findings"] += entry.state == "raised"
                    self.findings.append(entry)
            case "forecasts":
                self.counts["forecasts"] += len(forecasts.decode(value, rosters).codes)
            case "alerts":
                alert = msgspec.json.decode(value, type=Alert)
                self.counts["alerts"] += alert.transition == "raised"
                if alert.cause_ms and alert.transition == "raised":
                    self.alert_ms[received_ms - alert.cause_ms] += 1


async def watch(settings: KafkaSettings, city: str, seen: Seen, ready: Callable[[], None]) -> None:
    """Follow the output topics from now on into `seen`, until cancelled.

    `ready` is called once the starting point is fixed, so that nothing that starts afterwards
    is missed. A record that cannot be read is passed over, and a cluster that goes away is
    waited for; both are in `seen.problems`.
    """
    rosters = Rosters()
    following: dict[TopicPartition, int] = {}
    while True:
        try:
            async with consumer(settings) as client:
                places = {
                    place: name
                    for name in WATCHED
                    for place in await partitions(settings, city, name)
                }
                client.assign(list(places))
                following = following or await client.end_offsets(list(places))
                for place, offset in following.items():
                    client.seek(place, offset)
                ready()
                while True:
                    for place, records in (await client.getmany(timeout_ms=500)).items():
                        for record in records:
                            following[place] = record.offset + 1
                            _take(seen, places[place], record, rosters)
        except (KafkaError, BrokerError) as error:
            seen.problems["broker"] += 1
            _log.warning("watching is interrupted", error=str(error), again_in_s=AGAIN_S)
            await asyncio.sleep(AGAIN_S)


def _take(seen: Seen, topic: str, record: ConsumerRecord, rosters: Rosters) -> None:
    if record.value is None:
        return
    try:
        seen.take(topic, record.value, record.timestamp, rosters)
    except (InvalidInput, msgspec.MsgspecError) as error:
        seen.problems[f"{topic}: {error}"] += 1
        _log.warning("not counted", topic=topic, offset=record.offset, error=str(error))


def percentiles(samples: Counter[int]) -> dict[str, float | None]:
    """p50 and p99 of some milliseconds (value -> how often), the value at or above that share
    of them; None where nothing was measured."""
    return {"p50": _percentile(samples, 50), "p99": _percentile(samples, 99)}


def _percentile(samples: Counter[int], percent: int) -> float | None:
    wanted, below = samples.total() * percent / 100, 0
    for value in sorted(samples):
        below += samples[value]
        if below >= wanted:
            return float(value)
    return None
