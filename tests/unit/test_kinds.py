"""The kinds table holds together: what every row must keep."""

import math

import pytest

from citybrain.errors import PackError
from citybrain.kinds import DAY, HOUR, KINDS, MINUTE, Kind

ROWS = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@ROWS
def test_windows_nest_so_that_long_ones_combine_from_short_ones(kind: Kind) -> None:
    assert list(kind.windows_ms) == sorted(set(kind.windows_ms))
    for short, long in zip(kind.windows_ms, kind.windows_ms[1:], strict=False):
        assert long % short == 0
    for rolling in kind.rolling_ms:
        assert rolling % kind.windows_ms[-1] == 0
    assert kind.cadence_ms <= kind.pane_ms


@ROWS
def test_sums_of_a_whole_day_stay_exact_in_float64(kind: Kind) -> None:
    assert math.frexp(kind.resolution)[0] == 0.5, "resolution must be a power of two"
    largest = max(abs(kind.low), abs(kind.high)) / kind.resolution
    assert largest**2 * (DAY // kind.cadence_ms) < 2**53


@ROWS
def test_labels_units_and_waits_are_stated(kind: Kind) -> None:
    assert kind.zh
    assert kind.en
    assert kind.unit
    assert kind.low < kind.high
    assert 0 < kind.delay_ms < kind.ring_ms
    assert kind.health.silent_ms >= 2 * kind.cadence_ms


@ROWS
def test_an_hourly_station_has_no_minute_windows_and_no_early_forecast(kind: Kind) -> None:
    hourly = kind.at_cadence(HOUR)
    assert min(hourly.windows_ms) >= HOUR
    assert all(h >= HOUR for h in hourly.horizons_ms)
    assert hourly.expected(hourly.pane_ms) == 1
    assert hourly.health.silent_ms >= 2 * HOUR


def test_a_cadence_that_is_not_positive_is_refused_by_name() -> None:
    with pytest.raises(PackError, match=r"kinds\.pm25\.cadence_s"):
        KINDS["pm25"].at_cadence(0)


def test_five_minute_traffic_is_analysed_in_five_minute_windows() -> None:
    assert KINDS["vehicle_speed"].at_cadence(5 * MINUTE).analysed_ms == 5 * MINUTE
    assert KINDS["vehicle_speed"].analysed_ms == MINUTE
