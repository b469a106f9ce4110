"""Prometheus metrics, one registry a process, passed in so that tests can read it.

Names: `citybrain_` prefix, base units, counters end in `_total`, labels of low cardinality
(zone, topic, stage, shard, kind), never a sensor's or vehicle's name.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server


def serve(registry: CollectorRegistry, port: int = 0) -> int:
    """Serve /metrics of a registry on 127.0.0.1; port 0 takes a free one. Returns the port."""
    server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    return int(server.server_port)


__all__ = ["CollectorRegistry", "Counter", "Gauge", "Histogram", "serve"]
