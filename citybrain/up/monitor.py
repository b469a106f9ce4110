"""What comes out of the engine while somebody looks: counts, latencies, findings, alerts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from citybrain import findings, forecasts, stats
from citybrain.alerts import Alert
from citybrain.columns import Rosters
from citybrain.contents import consumer, partitions
from citybrain.findings import Finding
from citybrain.kafka import KafkaSettings

WATCHED = ("stats", "findings", "forecasts", "alerts")


@dataclass(slots=True)
class Seen:
    """What was seen. Latencies in ms, of live results: from the broker's receipt of the
    record that moved the watermark to its receipt of the result. Rows, not messages."""

    counts: Counter[str] = field(default_factory=Counter)
    stat_ms: list[int] = field(default_factory=list)
    alert_ms: list[int] = field(default_factory=list)
    first_stat_ms: int = 0
    findings: list[Finding] = field(default_factory=list)

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
                    self.stat_ms.append(received_ms - window.head.cause_ms)
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
                    self.alert_ms.append(received_ms - alert.cause_ms)


async def watch(settings: KafkaSettings, city: str, seen: Seen, ready: Callable[[], None]) -> None:
    """Follow the output topics from now on into `seen`, until cancelled.

    `ready` is called once the starting point is fixed, so that nothing that starts afterwards
    is missed. Raises BrokerError if the cluster goes away.
    """
    rosters = Rosters()
    places = {place: name for name in WATCHED for place in await partitions(settings, city, name)}
    async with consumer(settings) as client:
        client.assign(list(places))
        for place, end in (await client.end_offsets(list(places))).items():
            client.seek(place, end)
        ready()
        while True:
            for place, records in (await client.getmany(timeout_ms=500)).items():
                for record in records:
                    if record.value is not None:
                        seen.take(places[place], record.value, record.timestamp, rosters)


def percentiles(samples: list[int]) -> dict[str, float | None]:
    """p50 and p99 of some milliseconds; None where nothing was measured."""
    if not samples:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(samples, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
