"""What the analyse stage saw and expects, in the words of the logs that it writes."""

import msgspec
import numpy as np

from citybrain import forecasts
from citybrain.city import City
from citybrain.columns import Roster
from citybrain.findings import Finding, LinkState, Place, Window
from citybrain.fits import Demotion, Overdue, Scoreboard
from citybrain.forecasts import Forecast, ForecastHead
from citybrain.models.fit import Model
from citybrain.models.forecast import conformal
from citybrain.models.forecast import scoreboard as board
from citybrain.models.links import Said
from citybrain.models.outlook import Change, Issue, Outlook
from citybrain.models.seen import Seen
from citybrain.models.watch import Verdict
from citybrain.rules import Rule
from citybrain.stage import Out
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
    pack: str,
) -> Finding:
    """The record of a verdict that a rule's detector gave on the window `seen`.

    pack: the version of the rules, with what was changed of them.
    """
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
        pack=pack,
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


def forecast(issue: Issue, head: StatsHead, roster: Roster, model: Model, generated: bool) -> Out:
    """One message: a kind, a horizon, an issue. Sensors without enough history are not in it."""
    known = np.flatnonzero(~(np.isnan(issue.lower) | np.isnan(issue.upper)))
    record = Forecast(
        head=ForecastHead(
            shard=head.shard,
            kind=head.kind,
            window_ms=head.window_ms,
            issued_ms=head.start_ms + head.window_ms,
            target_ms=issue.target_ms,
            horizon_ms=issue.horizon_ms,
            model=f"{issue.forecaster}@{model.digest}",
            coverage=conformal.COVERAGE,
            generated=head.generated or generated,
        ),
        roster=roster,
        codes=known.astype(np.int32),
        value=issue.value[known],
        lower=issue.lower[known],
        upper=issue.upper[known],
    )
    return Out("forecasts", forecasts.encode(record), key=head.shard.encode(), entry=record)


def demotion(change: Change, head: StatsHead, at_ms: int, model: Model) -> Out:
    """A horizon at which the forecaster fell out of use, or came back."""
    record = Demotion(
        shard=head.shard,
        kind=head.kind,
        digest=model.digest,
        horizon_ms=change.horizon_ms,
        at_ms=at_ms,
        demoted=change.demoted,
        model_error=change.model_error,
        best_error=change.best_error,
        best=change.best,
    )
    return _model_record(f"demotion/{head.shard}/{head.kind}/{change.horizon_ms}", record)


def overdue(head: StatsHead, due_ms: int, model: Model) -> Out:
    """A model that should be in use at this window is not there."""
    record = Overdue(
        shard=head.shard, kind=head.kind, digest=model.digest, due_ms=due_ms, at_ms=head.start_ms
    )
    return _model_record(f"overdue/{head.shard}/{head.kind}", record)


def scoreboard(outlook: Outlook, head: StatsHead, at_ms: int, model: Model) -> Out:
    """How the forecasts of the kind did so far."""
    record = Scoreboard(
        shard=head.shard,
        kind=head.kind,
        digest=model.digest,
        at_ms=at_ms,
        scores=board.scores(outlook.sums, outlook.horizons_ms),
        demoted=sorted(outlook.demoted),
    )
    return _model_record(f"scoreboard/{head.shard}/{head.kind}", record)


def _model_record(key: str, record: msgspec.Struct) -> Out:
    return Out("models", msgspec.json.encode(record), key=key.encode())
