"""What the analyse stage saw, in the words of the findings log and of the link states."""

from citybrain.city import City
from citybrain.findings import Finding, LinkState, Place, Window
from citybrain.models.fit import Model
from citybrain.models.links import Said
from citybrain.models.seen import Seen
from citybrain.models.watch import Verdict
from citybrain.rules import Rule
from citybrain.stats import StatsHead

_UNITS = {"congestion": "1", "air_quality": "{index}"}


def finding(
    city: City,
    rule: Rule,
    seen: Seen,
    verdict: Verdict,
    head: StatsHead,
    at_ms: int,
    model: Model | None,
) -> Finding:
    """The record of a verdict that a rule's detector gave on the window `seen`."""
    kind = seen.kind
    on_link = rule.detector == "congestion"
    by_model = rule.detector == "anomaly" and model is not None
    return Finding(
        id=f"{rule.name}/{kind.name}/{verdict.place}/{verdict.onset_ms}",
        detector=rule.detector,
        rule=rule.name,
        state=verdict.state,
        kind=kind.name,
        place=place(city, verdict.place, on_link),
        onset_ms=verdict.onset_ms,
        at_ms=at_ms,
        score=verdict.score,
        threshold=verdict.threshold,
        observed=verdict.observed,
        expected=verdict.expected,
        unit=_UNITS.get(rule.detector, kind.unit),
        evidence=[
            Window(
                sensor="" if on_link else verdict.place,
                kind=kind.name,
                window_ms=seen.window_ms,
                start_ms=start,
                # Earlier windows are in history under the same key; only this one is at hand.
                value=verdict.observed if start == seen.start_ms else None,
            )
            for start in verdict.evidence_ms
        ],
        params=verdict.facts,
        model=f"{model.head.forecaster}@{model.digest}" if by_model and model else "",
        pack=city.version,
        cause_ms=head.cause_ms,
        generated=head.generated or city.generated,
    )


def place(city: City, name: str, on_link: bool) -> Place:
    """Where a link, a sensor or a gateway is; a gateway is where its first sensor is."""
    if on_link:
        link = city.links[name]
        lon, lat = link.line[len(link.line) // 2]
        return Place(zone=link.zone, link=name, lon=lon, lat=lat)
    sensor = city.sensors.get(name)
    if sensor is None:
        first = next(s for s in city.sensors.values() if s.gateway == name)
        return Place(zone=first.zone, lon=first.lon, lat=first.lat)
    return Place(zone=sensor.zone, link=sensor.link, sensor=name, lon=sensor.lon, lat=sensor.lat)


def link_state(said: Said, at_ms: int, holds_ms: int, generated: bool) -> LinkState:
    """The record of a link's state that holds for `holds_ms`."""
    return LinkState(
        link=said.link,
        state=said.state,
        at_ms=at_ms,
        expires_ms=at_ms + holds_ms,
        speed_kmh=said.speed_kmh,
        ratio=said.ratio,
        occupancy=said.occupancy,
        generated=generated,
    )
