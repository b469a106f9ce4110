"""What `citybrain up --json` prints when it has stopped, and how its events were detected."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from citybrain.city import City
from citybrain.findings import Finding

AFTERMATH_MS = 10 * 60_000
"""A queue outlives what caused it: a finding that begins so long after still tells of it."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the world's hidden schedule (`<data>/world/events.json`). happened_ms:
    when it really began in the simulator, None while it has not."""

    id: str
    what: str
    from_ms: int
    to_ms: int
    zone: str = ""
    link: str = ""
    sensor: str = ""
    happened_ms: int | None = None


class _EventsFile(msgspec.Struct, frozen=True):
    events: list[Event]


def events(data: Path) -> list[Event]:
    """What the world has planned and done; [] where there is no simulated world."""
    path = data / "world" / "events.json"
    return msgspec.json.decode(path.read_bytes(), type=_EventsFile).events if path.is_file() else []


class EventReport(msgspec.Struct, frozen=True, kw_only=True):
    """An event, whether it has begun, and the finding that told of it first."""

    id: str
    what: str
    where: str
    happened: bool
    detected: bool
    by: str = ""
    after_s: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a city. Readings by fate as in `ledger`; rows, not messages, elsewhere.

    watched: whether every record of the outputs was seen and understood; if not,
    watch_problems says what was not, and how often, and the counts are lower bounds.
    """

    city: str
    generated: bool
    seconds: float
    sum_holds: bool
    produced: int
    counted: int
    duplicate: int
    backfilled: int
    overflowed: int
    dead_lettered: int
    in_flight: int
    stats: int
    findings: int
    forecasts: int
    alerts: int
    latency_stat_ms: dict[str, float | None]
    latency_alert_ms: dict[str, float | None]
    first_stat_s: float | None
    peak_rss_mb: dict[str, float]
    restarts: dict[str, int]
    failed: dict[str, str]
    watched: bool
    watch_problems: dict[str, int]
    events: list[EventReport]


def judge(
    happening: Iterable[Event], findings: Iterable[Finding], near: Mapping[str, Collection[str]]
) -> list[EventReport]:
    """Which events were detected, by the first finding after the event began that is about
    the same sensor, link (or a neighbour of it, `near`: link -> links) or zone."""
    found = sorted((f for f in findings if f.state != "cleared"), key=lambda f: (f.at_ms, f.id))
    reports = []
    for event in happening:
        began = event.from_ms if event.happened_ms is None else event.happened_ms
        first = next((f for f in found if f.at_ms > began and _tells(f, event, near)), None)
        reports.append(
            EventReport(
                id=event.id,
                what=event.what,
                where=event.sensor or event.link or event.zone,
                happened=event.happened_ms is not None,
                detected=first is not None,
                by=f"{first.rule} ({first.detector})" if first else "",
                after_s=(first.at_ms - began) / 1000 if first else None,
            )
        )
    return reports


def _tells(finding: Finding, event: Event, near: Mapping[str, Collection[str]]) -> bool:
    if finding.onset_ms > event.to_ms + AFTERMATH_MS:
        return False
    about_sensor = finding.detector == "health"
    if event.sensor:
        return about_sensor and finding.place.sensor == event.sensor
    if about_sensor:
        return False
    if event.what == "cloudburst":
        return finding.kind == "precipitation" and finding.place.zone == event.zone
    if event.link:
        return finding.place.link in {event.link, *near.get(event.link, ())}
    return finding.place.zone == event.zone


def neighbours(city: City) -> dict[str, set[str]]:
    """Link -> the links that begin or end where it begins or ends: a queue spreads there."""
    ends = {link.id: (_cell(link.line[0]), _cell(link.line[-1])) for link in city.links.values()}
    at: dict[tuple[int, int], set[str]] = {}
    for link, cells in ends.items():
        for cell in cells:
            at.setdefault(cell, set()).add(link)
    around = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    return {
        link: {
            other for x, y in cells for dx, dy in around for other in at.get((x + dx, y + dy), ())
        }
        for link, cells in ends.items()
    }


def _cell(point: tuple[float, float]) -> tuple[int, int]:
    """Ends of roads at one junction lie some metres apart; a cell is 12 to 22 m wide."""
    return round(point[0] * 5000), round(point[1] * 5000)
