"""Grafana dashboards as code: `python -m citybrain.dashboards.grafana.write` writes their JSON.

The JSON beside the code is what Grafana loads; a test keeps the two equal.
"""
