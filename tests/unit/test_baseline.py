"""What is usual at a time of day: local time, day classes, incidents, too little history."""

import itertools
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain.city import Calendar
from citybrain.kinds import DAY, HOUR, KINDS, MINUTE
from citybrain.models import baseline
from citybrain.models.daytime import FREE, WORKING, Daytime, slots_of

STEP = 15 * MINUTE
COUNT = KINDS["vehicle_count"].at_cadence(STEP)
SPEED = KINDS["vehicle_speed"].at_cadence(STEP)
BERLIN = Daytime(ZoneInfo("Europe/Berlin"), Calendar())
SHANGHAI = Daytime(ZoneInfo("Asia/Shanghai"), Calendar())


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def split(daytime: Daytime, text: str) -> tuple[int, float]:
    group, part, _ = daytime.split(np.array([ms(text)], dtype=np.int64))
    return int(group[0]), part[0] / HOUR


def test_the_time_of_day_is_the_wall_clock_across_both_clock_changes() -> None:
    assert split(BERLIN, "2026-03-29T00:30")[1] == 1.5
    assert split(BERLIN, "2026-03-29T01:30")[1] == 3.5  # 2:30 does not exist
    assert split(BERLIN, "2026-10-25T00:30")[1] == 2.5
    assert split(BERLIN, "2026-10-25T01:30")[1] == 2.5  # 2:30 comes twice


def test_holidays_and_swapped_working_days_count_as_what_they_are() -> None:
    calendar = Calendar(frozenset({date(2026, 2, 17)}), frozenset({date(2026, 2, 14)}))
    china = Daytime(ZoneInfo("Asia/Shanghai"), calendar)
    assert split(china, "2026-02-16T16:00")[0] == FREE  # Tuesday there, Spring Festival
    assert split(china, "2026-02-14T02:00")[0] == WORKING  # a Saturday that is worked
    assert split(china, "2026-02-15T02:00")[0] == FREE
    assert split(SHANGHAI, "2026-02-16T17:00")[0] == WORKING


@given(st.integers(0, 2**41))
def test_midnights_are_local_and_leave_none_out(at: int) -> None:
    found = BERLIN.midnights(at - 3 * DAY, at)
    assert len(found) in (3, 4)
    for midnight in found:
        assert BERLIN.split(np.array([midnight], dtype=np.int64))[1][0] == 0
    assert all(b - a in (DAY, DAY - HOUR, DAY + HOUR) for a, b in itertools.pairwise(found))


def history(days: int, level: float = 40.0, n: int = 3) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]  # tests
    start = np.arange(ms("2026-01-05T00:00"), ms("2026-01-05T00:00") + days * DAY, STEP)
    group, part, _ = SHANGHAI.split(start)
    wave = np.where(group == FREE, level / 2, level * (1.5 + np.sin(2 * np.pi * part / DAY)))
    noise = np.random.default_rng(0).normal(0, 2, (len(start), n))
    return start, np.maximum(0, wave[:, None] + noise)


def test_rush_hour_is_expected_on_working_days_and_not_on_sundays() -> None:
    start, value = history(28)
    fitted = baseline.fit(start, value, STEP, SPEED, SHANGHAI)
    monday = fitted.at(ms("2026-02-01T22:00"), SHANGHAI)  # 6:00 local, the wave's top
    sunday = fitted.at(ms("2026-01-31T22:00"), SHANGHAI)
    assert monday.mean == pytest.approx([100.0] * 3, rel=0.05)
    assert sunday.mean == pytest.approx([20.0] * 3, rel=0.15)


def test_an_incident_last_week_is_not_expected_this_week() -> None:
    start, value = history(28)
    bad = value.copy()
    noon = (SHANGHAI.split(start)[1] == 12 * HOUR) & (start > start[0] + 20 * DAY)
    bad[np.flatnonzero(noon)[3], 0] = 2000.0
    clean = baseline.fit(start, value, STEP, SPEED, SHANGHAI)
    dirty = baseline.fit(start, bad, STEP, SPEED, SHANGHAI)
    at = ms("2026-02-03T04:00")
    moved = abs(dirty.at(at, SHANGHAI).mean[0] - clean.at(at, SHANGHAI).mean[0])
    assert moved < 0.02 * 2000
    assert dirty.at(at, SHANGHAI).mean[1] == clean.at(at, SHANGHAI).mean[1]


def test_recent_weeks_count_more_than_old_ones() -> None:
    start, value = history(28)
    value[start > start[0] + 21 * DAY] *= 0.5
    fitted = baseline.fit(start, value, STEP, SPEED, SHANGHAI)
    at = ms("2026-02-03T04:00")
    plain = baseline.fit(*history(28), STEP, SPEED, SHANGHAI).at(at, SHANGHAI).mean
    assert (fitted.at(at, SHANGHAI).mean < 0.8 * plain).all()


def test_two_visits_are_not_enough_and_nobody_is_guessed_at() -> None:
    start, value = history(2)
    fitted = baseline.fit(start, value, STEP, SPEED, SHANGHAI)
    assert np.isnan(fitted.at(int(start[-1]), SHANGHAI).mean).all()
    start, value = history(4)
    value[:, 2] = np.nan
    fitted = baseline.fit(start, value, STEP, SPEED, SHANGHAI)
    usual = fitted.at(int(start[50]), SHANGHAI)
    assert not np.isnan(usual.mean[:2]).any()
    assert np.isnan(usual.mean[2])
    assert np.isnan(usual.scale[2])


def test_the_scale_of_a_count_is_never_below_what_chance_alone_makes() -> None:
    start, value = history(28)
    smooth = np.round(value)
    fitted = baseline.fit(start, smooth, STEP, COUNT, SHANGHAI)
    usual = fitted.at(ms("2026-02-01T22:00"), SHANGHAI)
    assert (usual.scale >= 0.95 * np.sqrt(usual.mean)).all()


def test_a_constant_sensor_still_has_a_scale() -> None:
    start, value = history(14)
    fitted = baseline.fit(start, np.full_like(value, 7.0), STEP, SPEED, SHANGHAI)
    usual = fitted.at(int(start[-1]), SHANGHAI)
    assert usual.mean == pytest.approx([7.0] * 3)
    assert (usual.scale > 0).all()


def test_nothing_at_all_expects_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    fitted = baseline.fit(none, np.zeros((0, 2)), STEP, SPEED, SHANGHAI)
    assert np.isnan(fitted.at(0, SHANGHAI).mean).all()
    assert slots_of(STEP) == 96
    assert slots_of(HOUR) == slots_of(3 * HOUR) == 24


@given(st.integers(1, 6), st.integers(0, 99))
def test_the_order_of_sensors_does_not_matter(n: int, seed: int) -> None:
    start, value = history(5, n=n)
    order = np.random.default_rng(seed).permutation(n)
    straight = baseline.fit(start, value, STEP, SPEED, SHANGHAI)
    mixed = baseline.fit(start, value[:, order], STEP, SPEED, SHANGHAI)
    assert np.allclose(mixed.mean, straight.mean[:, :, order])
    assert np.allclose(mixed.scale, straight.scale[:, :, order])
