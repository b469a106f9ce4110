"""What an edge agent counts, for Prometheus. The registry is a parameter."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class EdgeMetrics:
    """Metrics of one agent. Labels are kinds and outcomes, never sensors."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.readings = Counter(
            "citybrain_edge_readings", "Readings offered, by what became of them.",
            ["kind", "outcome"], registry=registry,
        )  # fmt: skip
        self.overflowed = Counter(
            "citybrain_edge_overflowed_readings",
            "Readings that gave way because the spool was full.", ["kind"], registry=registry,
        )  # fmt: skip
        self.refused_requests = Counter(
            "citybrain_edge_refused_requests", "Requests turned away, by reason.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.store_seconds = Histogram(
            "citybrain_edge_store_seconds", "Time to store one append durably.",
            registry=registry, buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
        )  # fmt: skip
        self.spool_bytes = Gauge(
            "citybrain_edge_spool_bytes", "Size of the spool on disk.", registry=registry
        )
        self.spool_limit_bytes = Gauge(
            "citybrain_edge_spool_limit_bytes", "Bound of the spool.", registry=registry
        )
        self.backlog_readings = Gauge(
            "citybrain_edge_backlog_readings", "Readings stored and not yet sent.",
            registry=registry,
        )  # fmt: skip
        self.backlog_age_seconds = Gauge(
            "citybrain_edge_backlog_age_seconds",
            "How long the sender has been trying to send what it holds; 0 when it is not held up.",
            registry=registry,
        )
        self.sent = Counter(
            "citybrain_edge_sent_readings", "Readings that Kafka has acknowledged.",
            ["lane"], registry=registry,
        )  # fmt: skip
        self.send_failures = Counter(
            "citybrain_edge_send_failures", "Times that Kafka did not take what was sent.",
            registry=registry,
        )  # fmt: skip
        self.damaged = Counter(
            "citybrain_edge_damaged_entries",
            "Spool entries that were stored and cannot be read any more.", registry=registry,
        )  # fmt: skip
