"""Prometheus: what to scrape, recording and alerting rules."""
