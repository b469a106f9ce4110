"""What Prometheus is told of the centre."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge


class CentreMetrics:
    """Counters and gauges of one centre process, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "citybrain_centre_records",
            "Records taken from the output topics.",
            ["topic"],
            registry=registry,
        )
        self.refused = Counter(
            "citybrain_centre_refused_records",
            "Records that could not be read and were passed over.",
            ["topic", "reason"],
            registry=registry,
        )
        self.lag = Gauge(
            "citybrain_centre_lag_records",
            "Records of a topic that the centre has not taken yet.",
            ["topic"],
            registry=registry,
        )
        self.data_age = Gauge(
            "citybrain_centre_data_age_seconds",
            "Wall clock less the event time up to which a shard's windows are closed.",
            ["shard"],
            registry=registry,
        )
        self.clients = Gauge("citybrain_centre_clients", "Open event streams.", registry=registry)
        self.events = Counter(
            "citybrain_centre_events", "Events put on the stream.", registry=registry
        )
        self.reloads = Counter(
            "citybrain_centre_reloads",
            "Streams that were told to load the snapshot again because events were missed.",
            registry=registry,
        )
        self.connected = Gauge(
            "citybrain_centre_broker_connected",
            "1 while the centre reads from the broker.",
            registry=registry,
        )
        self.active_alerts = Gauge(
            "citybrain_centre_active_alerts",
            "Alerts that are active, by severity (1 red to 4 blue).",
            ["severity"],
            registry=registry,
        )

        self.accounts = Gauge(
            "citybrain_centre_accounts_readings",
            "Readings since the city began, by fate, as the parties' accounts say.",
            ["fate"],
            registry=registry,
        )
        self.unexplained = Gauge(
            "citybrain_centre_unexplained_readings",
            "Produced less all that is accounted for. Above 0 while readings are on the log;"
            " below 0, or above it for long, the sum is broken.",
            registry=registry,
        )

    def watch_alerts(self, count: Callable[[int], float]) -> None:
        """Ask for the number of active alerts of a severity at each scrape."""
        for severity in (1, 2, 3, 4):
            self.active_alerts.labels(str(severity)).set_function(partial(count, severity))
