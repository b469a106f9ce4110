"""A model in the log: from then on anomalies are found and the future is told."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from citybrain import fits, forecasts
from citybrain.columns import Rosters
from citybrain.findings import DeadLetter
from citybrain.forecasts import Forecast
from citybrain.kinds import DAY, HOUR, MINUTE
from citybrain.models import fit, fitting
from citybrain.models.fitting import Rows
from citybrain.stage import Out, Record
from citybrain.stats import Effective
from citybrain.streams.analyse import Analyse
from tests.analysing import MONDAY, SENSORS, Log, city, found, rule, window

STEP = 5 * MINUTE
RULES = [rule("flow", "anomaly", kinds=["vehicle_count"], raise_at=1.5, clear_at=0.75)]
CITY = city(RULES, vehicle_count=300)
KIND = CITY.kinds["vehicle_count"]
DAYS = 10


def counts(days: int, seed: int = 1) -> Rows:
    """Poisson counts of `days` days before MONDAY with a daily wave, by sensor."""
    random = np.random.default_rng(seed)
    start = np.arange(MONDAY - days * DAY, MONDAY, STEP, dtype=np.int64)
    wave = 40 + 30 * np.sin(2 * np.pi * (start % DAY) / DAY)
    rate = wave[:, None] * np.array([1.0, 0.5, 2.0, 1.5])
    return Rows(STEP, start, SENSORS, random.poisson(rate).astype(np.float64))


PARTS = fitting.fit(counts(DAYS), CITY, KIND, MONDAY)


def effective(parts: list[bytes], from_ms: int = MONDAY) -> list[Effective]:
    return [
        Effective(
            shard="north", kind=KIND.name, role="fit", digest=fit.digest(parts), from_ms=from_ms,
            at_ms=from_ms, body=body, part=i, parts=len(parts),
        )
        for i, body in enumerate(parts)
    ]  # fmt: skip


def day(
    log: Log, hours: int = 14, stop: tuple[int, int] = (8, 10), times: float = 1.0
) -> list[Record]:
    """Live windows of a Monday; between the hours of `stop` nothing passes d3."""
    random = np.random.default_rng(7)
    records = [log.record(record) for record in effective(PARTS)]
    for start in range(MONDAY, MONDAY + hours * HOUR, STEP):
        wave = 40 + 30 * np.sin(2 * np.pi * (start % DAY) / DAY)
        drawn = random.poisson(times * wave * np.array([1.0, 0.5, 2.0, 1.5]))
        values = {name: [float(x)] for name, x in zip(SENSORS, drawn, strict=True)}
        if stop[0] * HOUR <= start - MONDAY < stop[1] * HOUR:
            values["d3"] = [0.0]
        head = window("vehicle_count", start, values, window_ms=STEP, cadence_ms=STEP)
        records.append(log.record(head))
    return records


def forecast_of(outs: list[Out]) -> list[Forecast]:
    rosters = Rosters()
    return [forecasts.decode(out.value, rosters) for out in outs if out.topic == "forecasts"]


def model_records(outs: list[Out]) -> list[fits.Record]:
    return [fits.decoder.decode(out.value) for out in outs if out.topic == "models"]


def played(records: list[Record]) -> list[Out]:
    stage = Analyse(CITY, 0)
    return [out for record in records for out in stage.apply(record)]


@pytest.fixture(scope="module")
def outs() -> list[Out]:
    return played(day(Log()))


def test_a_road_that_stops_flowing_is_found_within_three_windows_and_ends(outs: list[Out]) -> None:
    told = found(outs)
    assert {f.place.sensor for f in told} == {"d3"}
    raised, cleared = told[0], told[-1]
    assert (raised.state, cleared.state) == ("raised", "cleared")
    assert MONDAY + 8 * HOUR < raised.at_ms <= MONDAY + 8 * HOUR + 3 * STEP
    assert raised.observed == 0.0
    assert raised.expected == pytest.approx(2 * (40 + 30 * np.sin(2 * np.pi * 8 / 24)), rel=0.15)
    assert raised.params["direction"] == "down"
    assert raised.score >= raised.threshold == 1.5
    assert raised.model == f"blend@{fit.digest(PARTS)}"
    assert MONDAY + 10 * HOUR < cleared.at_ms <= MONDAY + 12 * HOUR


def test_every_horizon_is_forecast_with_an_interval_that_holds_its_promise() -> None:
    outs = played(day(Log(), stop=(0, 0)))
    told = forecast_of(outs)
    assert {f.head.horizon_ms for f in told} == {15 * MINUTE, 30 * MINUTE, HOUR}
    assert len(told) == 3 * 14 * 12
    one = told[0]
    assert one.head.target_ms == one.head.issued_ms + one.head.horizon_ms
    assert one.roster.names == SENSORS
    assert (one.lower <= one.value).all()
    assert (one.value <= one.upper).all()
    assert (one.lower >= 0).all()
    last = [r for r in model_records(outs) if isinstance(r, fits.Scoreboard)][-1]
    calm = [s for s in last.scores if s.regime == "calm"]
    assert len(calm) == 3
    for score in calm:
        assert 0.8 <= score.coverage <= 1.0
        assert score.model < score.persistence
    assert last.demoted == []


def test_a_forecaster_that_falls_behind_is_demoted_by_itself() -> None:
    """Half as much traffic as ever before, all day: what is now says more than what was."""
    outs = played(day(Log(), hours=20, stop=(0, 0), times=0.3))
    (first, *_) = (r for r in model_records(outs) if isinstance(r, fits.Demotion))
    assert first.demoted
    assert first.best == "persistence"
    assert first.model_error > 1.05 * first.best_error
    after = [
        f for f in forecast_of(outs)
        if f.head.horizon_ms == first.horizon_ms and f.head.issued_ms > first.at_ms
    ]  # fmt: skip
    assert after[0].head.model.startswith("persistence@")


def test_without_a_model_nothing_is_guessed() -> None:
    stage = Analyse(CITY, 0)
    live = day(Log())[len(PARTS) :]
    outs = [out for record in live for out in stage.apply(record)]
    assert found(outs) == []
    assert forecast_of(outs) == []


def test_a_model_is_used_from_its_first_window_and_not_before() -> None:
    stage, log = Analyse(CITY, 0), Log()
    records = [log.record(r) for r in effective(PARTS, from_ms=MONDAY + 2 * HOUR)]
    records += day(log)[len(PARTS) :]
    outs = [out for record in records for out in stage.apply(record)]
    assert min(f.head.issued_ms for f in forecast_of(outs)) == MONDAY + 2 * HOUR + STEP


def test_a_model_that_does_not_come_in_time_is_said_to_be_overdue_and_used_when_it_comes() -> None:
    tuesday = MONDAY + 16 * HOUR  # local midnight
    late = effective(fitting.fit(counts(4), CITY, KIND, MONDAY - HOUR), from_ms=tuesday + HOUR)
    log = Log()
    live = day(log, hours=20, stop=(0, 0))
    here = len(PARTS) + (18 * HOUR) // STEP
    records = live[:here] + [log.record(r) for r in late] + live[here:]
    outs = played(records)
    told = [r for r in model_records(outs) if isinstance(r, fits.Overdue)]
    assert [(r.due_ms, r.at_ms, r.digest) for r in told] == [
        (tuesday, tuesday + HOUR, fit.digest(PARTS))
    ]
    since = {f.head.model: f.head.issued_ms for f in reversed(forecast_of(outs))}
    assert since[f"blend@{late[0].digest}"] == MONDAY + 18 * HOUR + STEP
    assert played(records) == outs


def test_a_crash_anywhere_changes_nothing_with_a_model_either(outs: list[Out]) -> None:
    for cut in (0, 1, 2, 40, 97, 101, 130):
        stage, blocks, again = Analyse(CITY, 0), dict[str, bytes](), []
        for i, record in enumerate(day(Log())):
            if i % 9 == 4 or i == cut:
                blocks |= stage.changed()
            if i == cut:
                stage = Analyse(CITY, 0)
                stage.restore(blocks)
            again += stage.apply(record)
        assert again == outs


def test_the_same_rows_give_the_same_model_and_others_another() -> None:
    again = fitting.fit(counts(DAYS), CITY, KIND, MONDAY)
    assert fit.digest(again) == fit.digest(PARTS)
    other = fitting.fit(counts(DAYS, seed=2), CITY, KIND, MONDAY)
    assert fit.digest(other) != fit.digest(PARTS)


def test_rows_after_the_boundary_do_not_reach_the_model() -> None:
    history = counts(DAYS)
    value = history.value.copy()
    value[-12:] = 1e6
    changed = replace(history, value=value)
    until = MONDAY - HOUR
    assert fitting.fit(changed, CITY, KIND, until) == fitting.fit(history, CITY, KIND, until)


def test_two_days_are_not_enough_history() -> None:
    assert fitting.fit(counts(2), CITY, KIND, MONDAY) == []
    assert fitting.fit(counts(3), CITY, KIND, MONDAY) != []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: replace_body(r, r.body[:-7]), "format"),
        (lambda r: replace_body(r, b"\x80\x04" + r.body), "format"),
        (lambda r: msgspec.structs.replace(r, digest="0" * 16), "model"),
        (lambda r: msgspec.structs.replace(r, kind="temperature"), "model"),
        (lambda r: msgspec.structs.replace(r, kind="sunshine"), "kind"),
        (lambda r: msgspec.structs.replace(r, role="oracle"), "role"),
    ],
)
def test_a_damaged_model_goes_to_the_dead_letter_and_the_old_one_stays(
    spoil: object, reason: str
) -> None:
    stage, log = Analyse(CITY, 0), Log()
    for record in effective(PARTS):
        stage.apply(log.record(record))
    spoiled = spoil(effective(PARTS)[0])  # type: ignore[operator]  # one of the lambdas above
    (letter,) = stage.apply(log.record(spoiled))
    assert msgspec.json.decode(letter.value, type=DeadLetter).reason == reason
    live = day(log)[len(PARTS) : len(PARTS) + 2]
    assert forecast_of([out for record in live for out in stage.apply(record)])


def replace_body(record: Effective, body: bytes) -> Effective:
    return msgspec.structs.replace(record, body=body)
