"""The centre's picture of the city: newest wins, nothing grows without bound."""

import random
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import forecasts, pack, stats
from citybrain.accounts import Account
from citybrain.alerts import Alert
from citybrain.columns import Roster, Rosters
from citybrain.dashboards.centre.frames import Frames
from citybrain.dashboards.centre.past import past_share
from citybrain.dashboards.centre.state import CLEARED_KEPT, CityState
from citybrain.findings import LinkState, Place, Progress
from citybrain.stats import Passed, Stats
from tests.browser import messages

NOW = 1_800_000_000_000
CITY = pack.load("adlershof")
SHARD = next(iter(CITY.shards))
KIND = "vehicle_speed"
PANE = CITY.kinds[KIND].pane_ms


def _stats(start_ms: int = NOW, window_ms: int = PANE) -> Stats:
    out = messages.window(CITY, SHARD, KIND, window_ms, start_ms)
    record = stats.decode(out.value, Rosters())
    assert isinstance(record, Stats)
    return record


def _revision(record: Stats, revision: int, sensor: int, value: float) -> Stats:
    """A correction of one sensor's window."""
    one = np.array([sensor], np.int32)
    return replace(
        record,
        head=msgspec.structs.replace(record.head, revision=revision),
        codes=one,
        seen=record.seen[one],
        late=record.late[one],
        sum=np.array([value * record.seen[sensor]]),
        sumsq=record.sumsq[one],
        min=record.min[one],
        max=record.max[one],
        last=record.last[one],
        last_ms=record.last_ms[one],
    )


def _alert(number: int, revision: int = 0, active: bool = True, updated_ms: int = NOW) -> Alert:
    out = messages.alert(
        f"r/{number}", "noise", Place(zone="x"), 4, NOW,
        revision=revision, active=active, updated_ms=updated_ms,
    )  # fmt: skip
    return msgspec.json.decode(out.value, type=Alert)


@settings(max_examples=30)
@given(order=st.permutations(range(4)))
def test_whatever_the_order_the_page_shows_the_last_revision(order: list[int]) -> None:
    first = _stats()
    records = [first, *(_revision(first, n, 2, 100.0 + n) for n in (1, 2, 3))]
    frames = Frames(CITY)
    for number in order:
        frames.take(records[number])
        frames.take(records[number])
    names = CITY.roster(SHARD, KIND)
    assert frames.points(names[2], KIND, PANE)[0].value == 103.0
    untouched = frames.points(names[0], KIND, PANE)[0].value
    assert untouched == pytest.approx(first.sum[0] / first.seen[0], abs=1e-3)


def test_a_sensor_that_said_nothing_has_no_value_instead_of_zero() -> None:
    record = _stats()
    silent = replace(record, seen=np.zeros_like(record.seen), sum=np.zeros_like(record.sum))
    frames = Frames(CITY)
    frames.take(silent)
    point = frames.points(CITY.roster(SHARD, KIND)[0], KIND, PANE)[0]
    assert point.value is None
    assert point.seen == 0


def test_memory_of_windows_is_bounded_and_keeps_the_newest() -> None:
    frames = Frames(CITY, budget=1)
    starts = [NOW + n * PANE for n in range(50)]
    for start in random.Random(1).sample(starts, len(starts)):
        frames.take(_stats(start))
    kept = [p.start_ms for p in frames.points(CITY.roster(SHARD, KIND)[0], KIND, PANE)]
    assert kept == starts[-frames.keep :]


def test_a_window_with_a_sensor_that_the_pack_does_not_know_is_shown_without_it() -> None:
    record = _stats()
    strange = replace(record, roster=Roster(("nobody", *record.roster.names[1:])))
    frames = Frames(CITY)
    frames.take(strange)
    names = CITY.roster(SHARD, KIND)
    assert frames.points(names[0], KIND, PANE)[0].value is None
    assert frames.points(names[1], KIND, PANE)[0].value is not None


@pytest.mark.parametrize("field", [{"shard": "nowhere"}, {"kind": "no-kind"}, {"window_ms": 7}])
def test_windows_of_unknown_shards_kinds_and_lengths_do_not_stop_the_centre(
    field: dict[str, object],
) -> None:
    record = _stats()
    state = CityState(CITY)
    state.take_stats(replace(record, head=msgspec.structs.replace(record.head, **field)))
    assert state.changes(NOW) is None


def test_the_latest_forecast_of_a_target_is_the_one_that_is_drawn() -> None:
    horizon = CITY.kinds[KIND].horizons_ms[0]
    later = messages.forecast(CITY, SHARD, KIND, NOW, horizon)
    newest = forecasts.decode(later.value, Rosters())
    older = replace(
        newest, head=msgspec.structs.replace(newest.head, issued_ms=NOW - 60_000),
        value=newest.value + 5,
    )  # fmt: skip
    frames = Frames(CITY)
    for record in (newest, older):
        frames.expect(record)
    name = CITY.roster(SHARD, KIND)[0]
    point = frames.forecasts(name, KIND)[horizon][0]
    assert point.issued_ms == NOW
    assert point.value == round(float(newest.value[0]), 3)


def test_an_older_record_of_an_alert_never_replaces_a_newer_one() -> None:
    state = CityState(CITY)
    assert state.take_alert(_alert(1, revision=2, active=False))
    assert not state.take_alert(_alert(1, revision=1))
    assert [a.revision for a in state.snapshot(NOW).alerts] == [2]


def test_cleared_alerts_leave_memory_and_the_page_while_active_ones_stay() -> None:
    state = CityState(CITY)
    for number in range(CLEARED_KEPT + 200):
        state.take_alert(_alert(number, active=number < 40, updated_ms=NOW + number))
    alerts = state.snapshot(NOW).alerts
    assert sum(a.active for a in alerts) == 40
    assert len(alerts) <= 40 + CLEARED_KEPT + 50
    changes = state.changes(NOW)
    assert changes is not None
    assert len(changes.alerts) == len(alerts)


def test_an_old_road_state_does_not_overwrite_a_newer_one() -> None:
    link = next(iter(CITY.links))
    state = CityState(CITY)
    for at_ms, word in ((NOW, "jam"), (NOW - 1, "smooth")):
        out = messages.link_state(CITY, link, word, at_ms)
        state.take_link(msgspec.json.decode(out.value, type=LinkState))
    assert [s.state for s in state.snapshot(NOW).links] == ["jam"]


def test_changes_are_told_once_and_add_up_to_the_snapshot() -> None:
    state = CityState(CITY)
    told: dict[tuple[str, str, int], object] = {}
    for out in list(messages.hours(CITY, NOW, minutes=3)):
        if out.topic != "stats":
            continue
        state.take_stats(stats.decode(out.value, Rosters()))
        changes = state.changes(NOW)
        for window in changes.windows if changes else []:
            key = (window.shard, window.kind, window.window_ms)
            if key not in told or told[key].start_ms <= window.start_ms:  # type: ignore[attr-defined]  # a WindowView
                told[key] = window
    assert state.changes(NOW) is None
    assert told == {(w.shard, w.kind, w.window_ms): w for w in state.snapshot(NOW).windows}


def test_a_shards_age_goes_by_windows_passed_records_and_progress_and_never_back() -> None:
    state = CityState(CITY)
    state.take_stats(_stats(NOW))
    state.take_stats(Passed(shard=SHARD, through_ms=NOW + 60_000))
    state.take_finding(Progress(shard=SHARD, through_ms=NOW + 30_000))
    assert state.through_ms() == {SHARD: NOW + 60_000}


def test_backfill_does_not_make_old_data_look_live() -> None:
    record = _stats()
    state = CityState(CITY)
    state.take_stats(replace(record, head=msgspec.structs.replace(record.head, backfill=True)))
    assert state.snapshot(NOW).windows == []


def _account(at_ms: int, counted: int) -> Account:
    return Account(party="rollup", shard=SHARD, at_ms=at_ms, counts={"counted": counted})


def test_the_rate_is_what_the_engine_counted_per_second_and_falls_when_it_stops() -> None:
    state = CityState(CITY)
    assert state.figures(NOW).readings_per_s is None
    state.take_account(_account(NOW, 1_000))
    state.take_account(_account(NOW + 10_000, 3_000))
    assert state.figures(NOW + 10_000).readings_per_s == 200.0
    assert (state.figures(NOW + 100_000).readings_per_s or 0) < 25
    state.take_account(_account(NOW + 20_000, 10))
    assert state.figures(NOW + 20_000).readings_per_s == 0


def test_a_flood_is_alerts_of_the_last_ten_minutes_only() -> None:
    state = CityState(CITY)
    for number in range(15):
        state.take_alert(_alert(number))
    assert state.figures(NOW).raised == 15
    assert state.figures(NOW + 601_000).raised == 0


def test_kinds_without_a_model_are_counted_as_not_fitted() -> None:
    models = {m.kind: m for m in CityState(CITY).figures(NOW).models}
    assert models[KIND].fitted == 0
    assert models[KIND].shards == sum(bool(CITY.roster(s, KIND)) for s in CITY.shards)


@pytest.mark.parametrize(
    ("said", "share"),
    [
        (None, None),
        ('{"from_ms": 1000, "to_ms": 3000, "through_ms": 1500, "finished": false}', 0.25),
        ('{"from_ms": 1000, "to_ms": 3000, "through_ms": 9000, "finished": false}', 1.0),
        ('{"from_ms": 1000, "to_ms": 3000, "through_ms": 3000, "finished": true}', None),
        ('{"from_ms": 0, "to_ms": 0}', None),
        ('{"from_ms": ', None),
    ],
)
def test_the_share_of_the_past_days_is_told_while_they_are_made(
    tmp_path: Path, said: str | None, share: float | None
) -> None:
    (tmp_path / "world").mkdir()
    if said is not None:
        (tmp_path / "world" / "progress.json").write_text(said)
    assert past_share(tmp_path) == share
