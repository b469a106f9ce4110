"""The rollup stage: each reading counted once, told with a reason when it is not counted."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain import batch as readings
from citybrain import stats
from citybrain.accounts import Account
from citybrain.batch import BAD, Idle, LeaveOut
from citybrain.city import City
from citybrain.columns import Rosters
from citybrain.errors import InvalidInput
from citybrain.kinds import HOUR, MINUTE, SECOND
from citybrain.pack import load
from citybrain.stage import Record
from citybrain.streams.rollup import Rollup
from citybrain.streams.screen import FUTURE_MS
from tests.packs import write_pack
from tests.shard_log import ShardLog

T0 = 1_700_000_000_000 // 900_000 * 900_000
NAN = float("nan")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return load(str(write_pack(tmp_path_factory.mktemp("pack"))))


@pytest.fixture
def log(city: City) -> ShardLog:
    return ShardLog(city, "north")


def count_of(window: stats.Stats, sensor: str) -> int:
    return int(window.seen[window.roster.names.index(sensor)])


def test_a_closed_window_names_every_sensor_also_the_silent_ones(log: ShardLog) -> None:
    rows = [("d1", T0 + 1_000, 3.0), ("d1", T0 + 2_000, 5.0)]
    log.batch("g1", "vehicle_count", rows, T0 + 3_000)
    out = log.beat("g1", T0 + 12_000)
    (window,) = [w for w in log.windows(out) if w.head.kind == "vehicle_count"]
    assert (window.head.start_ms, window.head.window_ms, window.head.revision) == (T0, 10_000, 0)
    assert window.roster.names == ("d1", "d2")
    assert window.seen.tolist() == [2, 0]
    assert window.sum.tolist() == [8.0, 0.0]
    assert window.head.cause_offset == 1
    assert window.head.cause_ms == T0 + 12_000


def test_nothing_closes_before_the_slowest_gateway_has_passed(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0)
    log.beat("g3", T0)
    assert not log.windows(log.beat("g1", T0 + MINUTE))
    assert log.windows(log.beat("g3", T0 + MINUTE))


def test_a_repeated_batch_is_counted_as_duplicate_and_changes_nothing(log: ShardLog) -> None:
    for _ in range(2):
        log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0, seq=0)
    (window, *_) = log.windows(log.beat("g1", T0 + 12_000))
    assert count_of(window, "d1") == 1
    assert (log.count("counted"), log.count("duplicate")) == (1, 1)


def test_a_new_installation_of_a_gateway_starts_its_numbers_anew(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0, seq=0, incarnation="a")
    log.batch("g1", "vehicle_count", [("d1", T0 + 1, 1.0)], T0, seq=0, incarnation="b")
    assert (log.count("counted"), log.count("duplicate")) == (2, 0)


def test_a_gap_is_noticed_and_what_fills_it_later_is_counted_once(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0, seq=0)
    log.batch("g1", "vehicle_count", [("d1", T0 + 1, 1.0)], T0, seq=3)
    assert log.count("gaps") == 2
    for _ in range(2):
        log.batch("g1", "vehicle_count", [("d1", T0 + 2, 1.0)], T0, seq=1)
    assert (log.count("gaps"), log.count("counted"), log.count("duplicate")) == (1, 3, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("nobody", T0, 1.0), "sensor"),
        (("w1", T0, 1.0), "sensor"),
        (("d3", T0, 1.0), "sensor"),
        (("d1", T0, NAN), "not-a-number"),
        (("d1", T0, float("inf")), "not-a-number"),
        (("d1", T0, -1.0), "range"),
        (("d1", T0, 1e6), "range"),
        (("d1", T0 + FUTURE_MS + 1, 1.0), "future"),
    ],
)
def test_a_bad_row_goes_to_the_dead_letter_and_the_rest_is_counted(
    log: ShardLog, row: tuple[str, int, float], reason: str
) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 2.0), row, ("d2", T0, 4.0)], T0)
    (letter,) = log.letters()
    assert (letter.reason, letter.readings, letter.sensor) == (reason, 1, row[0])
    kept = readings.decode(letter.original, Rosters())
    assert isinstance(kept, readings.Batch)
    assert kept.roster.names == (row[0],)
    assert (log.count("counted"), log.count("dead_lettered")) == (2, 1)
    (window, *_) = log.windows(log.beat("g1", T0 + 12_000))
    assert window.sum.tolist() == [2.0, 4.0]


def test_a_reading_that_its_device_calls_bad_is_not_counted(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0, quality=BAD)
    assert [letter.reason for letter in log.letters()] == ["quality"]


def test_damaged_bytes_are_dead_lettered_with_the_count_that_their_header_states(
    log: ShardLog,
) -> None:
    log.raw(b"ARROW? no", T0, (("n", b"17"),))
    (letter,) = log.letters()
    assert (letter.reason, letter.readings, letter.original) == ("format", 17, b"ARROW? no")
    assert log.count("dead_lettered") == 17


def test_a_newer_format_waits_in_the_dead_letter_for_the_upgrade(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0, version=99)
    (letter,) = log.letters()
    assert (letter.reason, letter.readings) == ("version", 1)
    assert (letter.retry_topic, letter.retry_partition) == ("readings", 0)


def test_a_batch_for_another_shard_or_kind_is_refused_whole(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d3", T0, 1.0)], T0, shard="south")
    log.batch("g1", "noise_level", [("d1", T0, 1.0)], T0)
    assert [letter.reason for letter in log.letters()] == ["shard", "kind"]
    assert log.count("dead_lettered") == 2


def test_a_late_reading_is_told_again_for_its_sensor_alone_after_a_second(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0), ("d2", T0, 1.0)], T0)
    log.beat("g1", T0 + 12_000)
    assert not log.windows(log.batch("g1", "vehicle_count", [("d2", T0 + 5, 2.0)], T0 + 12_100))
    assert not log.windows(log.beat("g1", T0 + 12_500))
    (window,) = log.windows(log.beat("g1", T0 + 13_200))
    assert (window.head.revision, window.head.cause_offset) == (1, 2)
    assert window.roster.names == ("d2",)
    assert (window.seen.tolist(), window.late.tolist(), window.sum.tolist()) == ([2], [1], [3.0])


def test_what_is_older_than_the_ring_goes_to_the_backfill(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0)
    log.beat("g1", T0 + HOUR)
    rows = [("d1", T0 + 1, 1.0), ("d1", T0 + HOUR, 1.0)]
    out = log.batch("g1", "vehicle_count", rows, T0 + HOUR)
    (old,) = [o for o in out if o.topic == "backfill"]
    batch = readings.decode(old.value, Rosters())
    assert isinstance(batch, readings.Batch)
    assert batch.time_ms.tolist() == [T0 + 1]
    assert (log.count("counted"), log.count("backfilled")) == (2, 1)


def test_the_backfill_lane_neither_holds_nor_moves_the_watermark(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0)
    out = log.batch("g3", "temperature", [("w1", T0 - HOUR, 1.0)], T0 - HOUR, lane="backfill")
    assert [o.topic for o in out if o.topic == "backfill"] == ["backfill"]
    assert log.stage.watermark_ms == T0
    log.beat("g1", T0 + MINUTE)
    assert log.stage.watermark_ms == T0 + MINUTE


def test_a_silent_gateway_is_left_out_by_a_record_and_is_back_when_it_speaks(
    log: ShardLog,
) -> None:
    log.beat("g1", T0)
    log.beat("g3", T0)
    log.beat("g1", T0 + 30_000)
    (asked,) = log.stage.tick(T0 + 31_000)
    record = readings.decode(asked.value, Rosters())
    assert record == LeaveOut(shard="north", gateway="g3", reason="silent", at_ms=T0 + 31_000)
    assert asked.partition == 0
    assert log.stage.watermark_ms == T0
    log.raw(asked.value, T0 + 31_000)
    assert log.stage.watermark_ms == T0 + 30_000
    log.beat("g3", T0 + 32_000)
    log.beat("g1", T0 + 40_000)
    assert log.stage.watermark_ms == T0 + 32_000


def test_a_planned_stop_is_told_with_every_window_until_the_gateway_is_back(
    log: ShardLog,
) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0 + 1_000)
    log.beat("g3", T0 + 1_000)
    log.beat("g3", T0 + 12_000, leaving=True)
    assert log.stage.tick(T0 + 13_000) == []  # nobody has to find out that it is away
    log.beat("g1", T0 + 40_000)  # and nobody waits for it
    log.beat("g3", T0 + 33_000)
    log.beat("g3", T0 + 52_000)
    log.beat("g1", T0 + 52_000)
    told = {
        (w.head.start_ms - T0) // 1_000: w.head.absent
        for w in log.windows()
        if w.head.kind == "vehicle_count" and w.head.window_ms == 10_000
    }
    assert told == {0: (), 10: ("g3",), 20: ("g3",), 30: ("g3",), 40: ()}


def test_a_gateway_that_lags_more_than_the_ring_does_not_hold_the_others(log: ShardLog) -> None:
    log.beat("g1", T0)
    log.beat("g3", T0)
    log.beat("g1", T0 + 2 * HOUR)
    assert log.stage.watermark_ms == T0 + 2 * HOUR


def test_time_goes_on_when_a_whole_live_shard_is_silent(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0, at_ms=T0 + 200)
    (left_out,) = log.stage.tick(T0 + 60_000)
    log.raw(left_out.value, T0 + 60_000)
    (idle,) = log.stage.tick(T0 + 60_200)
    record = readings.decode(idle.value, Rosters())
    assert record == Idle(shard="north", watermark_ms=T0 + 60_000, at_ms=T0 + 60_200)
    assert {w.head.kind for w in log.windows(log.raw(idle.value, T0 + 60_300))} > {"vehicle_count"}
    assert not log.stage.tick(T0 + 61_000)


def test_an_owner_whose_clock_is_an_hour_ahead_leaves_nobody_out_and_moves_no_time(
    log: ShardLog,
) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0, at_ms=T0 + 200)
    log.beat("g3", T0, at_ms=T0 + 300)
    asked = log.stage.tick(T0 + HOUR)
    assert len(asked) == 2
    for out in asked:
        log.raw(out.value, T0 + 400)
    log.beat("g1", T0 + 20_000)
    assert log.stage.watermark_ms == T0  # g3 is still waited for
    for out in log.stage.tick(T0 + 70_000):
        log.raw(out.value, T0 + 70_000)  # now they are silent in truth
    (idle,) = log.stage.tick(T0 + HOUR)
    log.raw(idle.value, T0 + 70_400)
    assert log.stage.watermark_ms is not None
    assert log.stage.watermark_ms <= T0 + 70_400


def test_a_recording_that_has_ended_does_not_grow_empty_windows(log: ShardLog) -> None:
    year = 365 * 24 * HOUR
    log.batch("g1", "vehicle_count", [("d1", T0 - year, 1.0)], T0 - year, at_ms=T0)
    log.raw(log.stage.tick(T0 + 60_000)[0].value, T0 + 60_000)
    assert not log.stage.tick(T0 + 90_000)


def test_a_clock_that_runs_years_ahead_cannot_close_everything(log: ShardLog) -> None:
    log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0)
    log.beat("g1", T0 + 365 * 24 * HOUR, at_ms=T0 + SECOND)
    assert log.stage.watermark_ms == T0 + SECOND + FUTURE_MS


def test_one_gateway_far_ahead_cannot_make_the_open_windows_grow(log: ShardLog) -> None:
    log.beat("g3", T0)
    rows = [("d1", T0 + 2 * HOUR, 1.0)]
    log.batch("g1", "vehicle_count", rows, T0, at_ms=T0 + 2 * HOUR)
    ring = log.city.kinds["vehicle_count"].ring_ms
    (last, *_) = sorted((w.head for w in log.windows()), key=lambda head: -head.start_ms)
    assert last.start_ms + last.window_ms <= T0 + 2 * HOUR - ring


def test_the_account_says_each_second_what_became_of_the_readings(log: ShardLog) -> None:
    out = log.batch("g1", "vehicle_count", [("d1", T0, 1.0)], T0)
    (account,) = [o for o in out if o.topic == "accounts"]
    assert account.key == b"rollup/north"
    assert not [
        o
        for o in log.batch("g1", "vehicle_count", [("d1", T0 + 1, 1.0)], T0, at_ms=T0 + 10)
        if o.topic == "accounts"
    ]
    (later,) = [o for o in log.beat("g1", T0 + 20, at_ms=T0 + 20) if o.topic == "accounts"]
    told = msgspec.json.decode(later.value, type=Account)
    assert told.counts["counted"] == 2


def test_snapshot_and_restore_at_any_record_change_no_output(city: City) -> None:
    straight, broken = ShardLog(city, "north"), ShardLog(city, "north")
    saved: dict[str, bytes] = {}

    def both(act: str, *args: object, **more: object) -> None:
        assert getattr(straight, act)(*args, **more) == getattr(broken, act)(*args, **more)
        saved.update(broken.stage.changed())
        broken.stage = Rollup(city, 0)
        broken.stage.restore({name: block for name, block in saved.items() if block})
        assert not [name for name in broken.stage.changed() if name.startswith("pane")]

    for minute in range(30):
        now = T0 + minute * MINUTE
        both("batch", "g1", "vehicle_count", [("d1", now, minute), ("d2", now + 9, 2.0)], now)
        both("batch", "g3", "temperature", [("w1", now, minute / 4)], now, seq=minute // 2)
        both("beat", "g3", now - 1_000, at_ms=now)
        both("batch", "g1", "vehicle_speed", [("d1", now - 5 * MINUTE, 50.0)], now)
        both("raw", b"nonsense", now)
    assert straight.count("duplicate") == 15
    assert straight.windows()[-1].head.revision >= 0


def test_state_of_a_newer_version_is_refused_instead_of_guessed(city: City) -> None:
    with pytest.raises(InvalidInput, match="version 9 is not 1"):
        Rollup(city, 0).restore({"shard": b'{"version": 9}'})


def test_a_partition_without_a_shard_refuses_with_a_reason(city: City) -> None:
    stage = Rollup(city, 3)
    out = stage.apply(Record("readings", 3, 0, T0, b"x"))
    assert [o.topic for o in out] == [
        "dead-letter",
    ]


@st.composite
def days(draw: st.DrawFn) -> list[tuple[str, int, list[tuple[str, int, float]], bool]]:
    """(gateway, watermark, rows, sent twice) of two gateways that run more or less together."""
    steps, now = [], T0
    for _ in range(draw(st.integers(1, 20))):
        now += draw(st.sampled_from([0, 3_000, 10_000, 45_000, 400_000]))
        gateway = draw(st.sampled_from(["g1", "g9"]))
        lag = draw(st.sampled_from([0, 0, 5_000, 90_000]))
        rows = draw(
            st.lists(
                st.tuples(
                    st.sampled_from(["d1", "d2", "stranger"]),
                    st.integers(-1_200, 30).map(lambda s, now=now: now + s * 1_000),
                    st.sampled_from([0.0, 1.0, 7.0, -1.0, NAN]),
                ),
                max_size=6,
            )
        )
        steps.append((gateway, now - lag, rows, draw(st.booleans())))
    return steps


@settings(max_examples=80, deadline=None)
@given(steps=days())
def test_every_reading_has_one_fate_and_the_last_revision_holds_what_was_counted(
    city: City, steps: list[tuple[str, int, list[tuple[str, int, float]], bool]]
) -> None:
    log, produced = ShardLog(city, "north"), 0
    lengths = city.kinds["vehicle_count"].windows_ms
    for gateway, watermark, rows, twice in steps:
        if rows:
            seq = len(log.records)
            for _ in range(1 + twice):
                log.batch(gateway, "vehicle_count", rows, watermark, at_ms=watermark, seq=seq)
                produced += len(rows)
        else:
            log.beat(gateway, watermark)
    log.beat("g1", T0 + 24 * HOUR)
    log.beat("g9", T0 + 24 * HOUR)
    log.beat("g9", T0 + 24 * HOUR + 2_000)
    fates = ("counted", "duplicate", "backfilled", "dead_lettered")
    assert sum(map(log.count, fates)) == produced
    # What reached the backfill and the dead letter is not in the windows, all else is.
    apart = [
        (batch.roster.names[code], int(batch.time_ms[i]), str(batch.value[i]))
        for value in [
            *(o.value for o in log.out if o.topic == "backfill"),
            *(letter.original for letter in log.letters()),
        ]
        if isinstance(batch := readings.decode(value, Rosters()), readings.Batch)
        for i, code in enumerate(batch.codes.tolist())
    ]
    truth: dict[tuple[int, int, str], tuple[int, float]] = {}
    for _, _, rows, _ in steps:
        for sensor, at, value in rows:
            if (sensor, at, str(value)) in apart:
                apart.remove((sensor, at, str(value)))
                continue
            for length in lengths:
                name = (length, at // length * length, sensor)
                count, total = truth.get(name, (0, 0.0))
                truth[name] = (count + 1, total + value)
    assert not apart
    last: dict[tuple[int, int, str], tuple[int, float]] = {}
    for window in log.windows():
        for i, code in enumerate(window.codes.tolist()):
            if window.head.kind == "vehicle_count" and window.seen[i]:
                name = (window.head.window_ms, window.head.start_ms, window.roster.names[code])
                last[name] = (int(window.seen[i]), float(window.sum[i]))
    assert last == truth
