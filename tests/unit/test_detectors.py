"""What each detector of the rules finds, on windows as they come."""

from datetime import date

import numpy as np
import pytest

from citybrain.errors import InvalidInput, PackError
from citybrain.kinds import HOUR, KINDS, MINUTE, SECOND
from citybrain.models import air_quality, block, detectors
from citybrain.models.air_quality import US_2024, standard_on, sub_index
from citybrain.models.block import aligned, pack, unpack
from citybrain.models.fit import FitHead
from citybrain.models.seen import window_value
from citybrain.stage import Out
from citybrain.streams.analyse import Analyse
from tests.analysing import MONDAY, Log, city, found, rule, window

PANE = 10 * SECOND


def health(condition: str, **more: object) -> Analyse:
    return Analyse(city([rule("sick", "health", settings={"condition": condition} | more)]), 0)


def feed(stage: Analyse, *windows: object) -> list[Out]:
    log = Log()
    return [out for w in windows for out in stage.apply(log.record(w))]  # type: ignore[arg-type]  # windows of the log


def test_a_stuck_sensor_is_found_and_a_resting_one_is_not() -> None:
    stage = health("stuck")
    outs = feed(stage, *(
        window("occupancy", MONDAY + i * PANE, {"d1": [12.5], "d2": [0.0], "d3": [float(i % 3)]})
        for i in range(40)
    ))  # fmt: skip
    told = found(outs)
    assert {f.place.sensor for f in told} == {"d1"}
    assert told[0].at_ms - MONDAY == KINDS["occupancy"].health.stuck_ms
    assert told[0].observed == 12.5


def test_a_window_without_readings_does_not_free_a_stuck_sensor() -> None:
    stage = health("stuck")
    outs = feed(stage, *(
        window("occupancy", MONDAY + i * PANE, {} if i % 2 else {"d1": [12.5]}) for i in range(40)
    ))  # fmt: skip
    assert {f.place.sensor for f in found(outs)} == {"d1"}


def test_a_chattering_sensor_is_found() -> None:
    stage = health("chattering")
    outs = feed(stage, *(
        window("vehicle_count", MONDAY + i * MINUTE, {"d1": [1.0] * 19, "d2": [1.0] * 6},
               window_ms=MINUTE, expected=6)
        for i in range(2)
    ))  # fmt: skip
    assert [(f.place.sensor, f.state) for f in found(outs)] == [("d1", "raised")]


def test_a_step_that_air_cannot_make_is_found_and_a_gap_is_no_step() -> None:
    stage = health("impossible")

    def at(minute: int, **values: float) -> object:
        readings = {name: [value] for name, value in values.items()}
        return window("temperature", MONDAY + minute * MINUTE, readings, MINUTE,
                      cadence_ms=MINUTE)  # fmt: skip

    outs = feed(
        stage, at(0, d1=20.0, d2=20.0, d3=20.0), at(1, d1=31.0, d3=30.0), at(9, d2=31.0, d4=60.0)
    )
    assert [f.place.sensor for f in found(outs)] == ["d1", "d4"]


def test_a_gateway_is_out_when_most_of_its_sensors_are() -> None:
    stage = health("gateway-silent", share=0.8)
    outs = feed(stage, *(
        window("vehicle_count", MONDAY + i * PANE, {"d1": [1.0]} | ({} if i else {"d3": [1.0]}))
        for i in range(8)
    ))  # fmt: skip
    told = found(outs)
    assert told[0].params["gateway"] == "g2"
    assert {f.params["gateway"] for f in told} == {"g2"}
    assert told[0].at_ms - MONDAY == 50 * SECOND
    assert told[0].place.zone == "north"


def test_rain_is_summed_over_the_stated_hours_and_no_longer() -> None:
    wet = rule("rainstorm", "rain", kinds=["precipitation"], window_s=10800, raise_at=50.0)
    stage = Analyse(city([wet]), 0)

    def fall(minute: int, mm: float) -> object:
        return window("precipitation", MONDAY + minute * MINUTE, {"d1": [mm]}, MINUTE)

    outs = feed(stage, *(fall(m, 0.5) for m in range(110)))
    (raised,) = found(outs)
    assert (raised.observed, raised.at_ms - MONDAY) == (50.0, 100 * MINUTE)
    # 55 mm by minute 110, then dry: three hours later the first ten-minute bins are gone.
    outs = [
        out
        for m in range(110, 300)
        for out in stage.apply(Log().record(fall(m, 0.0)))  # type: ignore[arg-type]  # windows
    ]
    cleared = found(outs)[-1]
    assert cleared.state == "cleared"
    assert 190 * MINUTE < cleared.at_ms - MONDAY <= 210 * MINUTE


@pytest.mark.parametrize(
    ("kind", "value", "standard", "day", "index"),
    [
        ("pm25", 75.0, "HJ 633", date(2026, 2, 28), 100),
        ("pm25", 75.0, "HJ 633", date(2026, 3, 1), 114),
        ("pm25", 60.0, "HJ 633-2026", date(2020, 1, 1), 100),
        ("pm10", 120.0, "HJ 633-2026", date(2026, 3, 1), 100),
        ("pm10", 150.0, "HJ 633-2012", date(2026, 3, 1), 100),
        ("pm25", 501.0, "HJ 633", date(2026, 3, 1), 500),
        ("co", 4000.0, "HJ 633", date(2026, 3, 1), 100),
        ("o3", 160.0, "HJ 633", date(2026, 3, 1), 100),
        ("o3", 900.0, "HJ 633", date(2026, 3, 1), 300),
        ("pm25", 9.0, US_2024, date(2026, 3, 1), 50),
        ("pm25", 35.49, US_2024, date(2026, 3, 1), 100),
        ("pm25", 125.5, US_2024, date(2026, 3, 1), 201),
        ("pm25", 0.0, US_2024, date(2026, 3, 1), 0),
    ],
)
def test_the_air_quality_index_is_that_of_the_standard_and_the_date(
    kind: str, value: float, standard: str, day: date, index: int
) -> None:
    assert sub_index(kind, np.array([value, np.nan]), standard, day)[0] == index
    assert np.isnan(sub_index(kind, np.array([np.nan]), standard, day)[0])


def test_an_unknown_standard_is_named_with_what_is_known() -> None:
    with pytest.raises(PackError, match="'AQI-X' is not one of"):
        standard_on("AQI-X", date(2026, 1, 1))
    bad = rule("air", "air_quality", kinds=["pm25"], settings={"standard": "AQI-X"})
    with pytest.raises(PackError, match=r"\[air\].*'AQI-X'"):
        Analyse(city([bad]), 0)


def test_an_index_needs_three_quarters_of_its_readings() -> None:
    rules = [rule("air", "air_quality", kinds=["pm25"], raise_at=100.0)]
    stage = Analyse(city(rules), 0)
    day = window("pm25", MONDAY, {"d1": [100.0] * 1100, "d2": [100.0] * 1000}, 24 * HOUR,
                 expected=1440, step_ms=HOUR)  # fmt: skip
    (told,) = found(feed(stage, day))
    assert told.place.sensor == "d1"
    # The window ends in Shanghai on 2026-01-06: the standard of 2012 still holds.
    assert told.params["standard"] == "HJ 633-2012"
    assert told.observed == sub_index("pm25", np.array([100.0]), "HJ 633", date(2026, 1, 6))[0]


def test_averaging_times_are_those_of_the_standards() -> None:
    assert air_quality.averaging_ms("o3", "HJ 633") == 8 * HOUR
    assert air_quality.averaging_ms("pm25", US_2024) == 24 * HOUR
    assert air_quality.averaging_ms("temperature", "HJ 633") is None


def test_a_standing_queue_is_a_jam_and_an_empty_lane_is_free() -> None:
    from tests.analysing import link_states

    stage = Analyse(city(), 0)
    outs = feed(
        stage,
        window("occupancy", MONDAY, {"d1": [90.0], "d3": [1.0]}),
        window("vehicle_speed", MONDAY, {}),
    )
    assert {s.link: s.state for s in link_states(outs)} == {"a": "heavy-jam", "b": "smooth"}
    assert {s.link: s.speed_kmh for s in link_states(outs)} == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (rule("r", "magic"), r"\[r\]: detector: 'magic' is not one of"),
        (rule("r", "health", settings={"condition": "sad"}), r"condition: 'sad'"),
        (rule("r", "health", settings={"condition": "gateway-silent", "share": 2.0}), "share: 2.0"),
        (rule("r", "anomaly", settings={"model": "oracle"}), "model 'oracle'"),
        (rule("r", "anomaly", settings={"direction": "left"}), "direction 'left'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_name(bad: object, complaint: str) -> None:
    with pytest.raises(PackError, match=complaint):
        Analyse(city([bad]), 0)  # type: ignore[list-item]  # a rule


def test_a_one_minute_threshold_does_not_run_on_hourly_totals() -> None:
    from citybrain.models.detectors.base import window_of

    burst = rule("burst", "threshold", kinds=["precipitation"], window_s=60, raise_at=0.8)
    hourly = KINDS["precipitation"].at_cadence(HOUR)
    assert window_of(burst, KINDS["precipitation"]) == MINUTE
    assert window_of(burst, hourly) is None
    assert window_of(burst, KINDS["temperature"].at_cadence(HOUR)) == HOUR
    assert set(detectors.DETECTORS) == {
        "threshold", "anomaly", "health", "congestion", "air_quality", "rain",
    }  # fmt: skip


def test_a_total_with_many_readings_missing_is_no_value() -> None:
    count, total = np.array([6, 5, 4, 0]), np.array([12.0, 10.0, 8.0, 0.0])
    value = window_value(KINDS["vehicle_count"], count, total, 6)
    assert value[:2].tolist() == [12.0, 12.0]
    assert np.isnan(value[2:]).all()
    mean = window_value(KINDS["temperature"], count, total, 6)
    assert mean[:3].tolist() == [2.0, 2.0, 2.0]
    assert np.isnan(mean[3])


def head(names: tuple[str, ...]) -> FitHead:
    return FitHead(
        kind="pm25", step_ms=HOUR, names=names, forecaster="ridge", horizons_ms=(), since_ms=0,
        until_ms=1, rows=2,
    )  # fmt: skip


def test_arrays_survive_packing_bit_for_bit_and_damage_is_named() -> None:
    arrays = {"x": np.arange(6.0).reshape(3, 2), "flag": np.array([True, False, True])}
    body = pack(head(("a", "b", "c")), arrays)
    assert body == pack(head(("a", "b", "c")), dict(reversed(arrays.items())))
    got, back = unpack(body, FitHead)
    assert got.names == ("a", "b", "c")
    assert all(np.array_equal(back[k], arrays[k]) for k in arrays)
    for damaged in (b"", b"PK\x03\x04", body[:-1], body + b"x", body[:20]):
        with pytest.raises(InvalidInput):
            unpack(damaged, FitHead)
    with pytest.raises(TypeError, match="complex"):
        pack(head(()), {"x": np.zeros(2, dtype=complex)})


def test_state_follows_its_sensor_when_the_pack_changes() -> None:
    old = {"x": np.array([1.0, 2.0, 3.0])}
    fresh: block.Arrays = {"x": np.zeros(3), "new": np.full(3, 7.0)}
    laid = aligned(old, ("a", "b", "c"), ("c", "z", "a"), fresh)
    assert laid["x"].tolist() == [3.0, 0.0, 1.0]
    assert laid["new"].tolist() == [7.0] * 3
