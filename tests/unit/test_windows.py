"""Windows against a batch answer that is written independently, one reading at a time."""

from dataclasses import dataclass, field
from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain.kinds import KINDS, Kind
from citybrain.models.panes import CHUNK
from citybrain.models.windows import Closed, Windows

WIDTH = 5


@dataclass(frozen=True)
class Shape:
    """Window lengths of a kind, small enough to be crossed often."""

    windows_ms: tuple[int, ...]
    rolling_ms: tuple[int, ...] = ()
    delay_ms: int = 0
    ring_ms: int = 0

    def build(self, width: int = WIDTH) -> Windows:
        return Windows(width, self.windows_ms, self.rolling_ms, self.delay_ms, self.ring_ms)


SHAPES = [
    Shape((10,), ring_ms=30),
    Shape((10, 60, 300), delay_ms=2, ring_ms=900),
    Shape((10, 20), rolling_ms=(40, 100), delay_ms=5, ring_ms=50),
    Shape((7, 21), rolling_ms=(63,), ring_ms=90),
    Shape((10, 30), rolling_ms=(60, 90, 240), ring_ms=0),
]


@dataclass(frozen=True)
class Reading:
    sensor: int
    time_ms: int
    value: float
    order: int


@dataclass
class Told:
    """What a reader of the output holds: the highest revision of each (window, sensor)."""

    rows: dict[tuple[int, int, int], dict[str, float]] = field(default_factory=dict)
    revision: dict[tuple[int, int], int] = field(default_factory=dict)

    def take(self, closed: list[Closed]) -> None:
        for window in closed:
            name = (window.window_ms, window.start_ms)
            before = self.revision.get(name)
            if window.revision == 0:
                assert before is None, f"{name} was first told twice"
                assert window.sensor.tolist() == list(range(WIDTH))
            else:
                assert window.revision == (before or 0) + 1, f"{name} skips a revision"
            self.revision[name] = window.revision
            for row, sensor in enumerate(window.sensor.tolist()):
                self.rows[(*name, sensor)] = {
                    column: getattr(window, column)[row].item()
                    for column in ("seen", "sum", "sumsq", "min", "max", "last", "last_ms")
                }


def batch_answer(shape: Shape, readings: list[Reading]) -> dict[tuple[int, int, int], dict]:
    """Every window that holds a reading, from all readings at once."""
    groups: dict[tuple[int, int, int], list[Reading]] = {}
    for r in readings:
        for length in shape.windows_ms:
            groups.setdefault((length, r.time_ms // length * length, r.sensor), []).append(r)
        step = shape.windows_ms[-1]
        for length in shape.rolling_ms:
            end = r.time_ms // step * step + step
            while end - length <= r.time_ms:
                groups.setdefault((length, end - length, r.sensor), []).append(r)
                end += step
    answer = {}
    for name, group in groups.items():
        values = [r.value for r in group]
        newest = max(group, key=lambda r: (r.time_ms, r.order, r.value))
        answer[name] = {
            "seen": len(values),
            "sum": sum(values),
            "sumsq": sum(v * v for v in values),
            "min": min(values),
            "max": max(values),
            "last": newest.value,
            "last_ms": newest.time_ms,
        }
    return answer


@st.composite
def logs(draw: st.DrawFn) -> list[list[Reading] | int]:
    """Batches and watermarks in any order; a watermark may run ahead of later readings."""
    steps: list[list[Reading] | int] = []
    now, order = 1_000, 0
    for _ in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0, 3, 10, 25, 60, 130, 2_000]))
        if draw(st.booleans()):
            steps.append(now)
            continue
        rows = draw(
            st.lists(
                st.tuples(
                    st.integers(0, WIDTH - 1),
                    st.integers(-120, 15),
                    st.integers(-64, 64).map(lambda v: v / 8),
                ),
                max_size=12,
            )
        )
        order = draw(st.sampled_from([order, order + 1]))
        steps.append([Reading(s, now + back, v, order) for s, back, v in rows])
    return steps


def feed(windows: Windows, batch: list[Reading]) -> list[Reading]:
    """Add a batch as arrays; the readings that were counted."""
    if not batch:
        return []
    added = windows.add(
        np.array([r.sensor for r in batch], np.intp),
        np.array([r.time_ms for r in batch], np.int64),
        np.array([r.value for r in batch]),
        batch[0].order,
    )
    assert added.counted + len(added.too_old) == len(batch)
    too_old = set(added.too_old.tolist())
    return [r for i, r in enumerate(batch) if i not in too_old]


def finish(windows: Windows, told: Told, counted: list[Reading]) -> None:
    """A watermark beyond everything that was read."""
    newest = max((r.time_ms for r in counted), default=0)
    told.take(windows.revisions())
    told.take(windows.advance(max(newest, windows.closed_ms or 0) + 1_000))
    assert not windows.pending


def check(shape: Shape, told: Told, counted: list[Reading]) -> None:
    truth = batch_answer(shape, counted)
    seen = {name: row for name, row in told.rows.items() if row["seen"]}
    assert seen == truth
    for row in told.rows.values():
        if not row["seen"]:
            assert row["sum"] == row["sumsq"] == 0
            assert row["last_ms"] == -1
            assert all(isnan(row[column]) for column in ("min", "max", "last"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=80, deadline=None)
@given(log=logs(), data=st.data())
def test_last_revision_is_the_batch_answer_whatever_the_order(
    shape: Shape, log: list[list[Reading] | int], data: st.DataObject
) -> None:
    windows, told, counted = shape.build(), Told(), []
    for step in log:
        if isinstance(step, int):
            told.take(windows.advance(step))
        else:
            split = data.draw(st.integers(0, len(step)))
            counted += feed(windows, step[:split])
            counted += feed(windows, step[split:])
        if data.draw(st.booleans()):
            told.take(windows.revisions())
    finish(windows, told, counted)
    check(shape, told, counted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=40, deadline=None)
@given(log=logs(), data=st.data())
def test_saving_and_restoring_at_any_point_changes_nothing(
    shape: Shape, log: list[list[Reading] | int], data: st.DataObject
) -> None:
    straight, broken = shape.build(), shape.build()
    saved: dict[str, dict] = {}
    for step in log:
        outputs = []
        for windows in (straight, broken):
            if isinstance(step, int):
                outputs.append(windows.advance(step))
            else:
                feed(windows, step)
                outputs.append(windows.revisions() if len(step) % 2 else [])
        assert _plain(outputs[0]) == _plain(outputs[1])
        if data.draw(st.booleans()):
            for name, arrays in broken.changed():
                if arrays is None:
                    saved.pop(name, None)
                else:
                    saved[name] = {key: array.copy() for key, array in arrays.items()}
            restored = shape.build()
            restored.restore(broken.closed_ms, broken.marks(), saved)
            broken = restored
    ends = [w.advance((w.closed_ms or 0) + 1_500) + w.revisions() for w in (straight, broken)]
    assert _plain(ends[0]) == _plain(ends[1])


def _plain(closed: list[Closed]) -> list[list]:
    return [
        [w.window_ms, w.start_ms, w.revision, w.sensor.tolist(), w.late.tolist(),
         w.seen.tolist(), w.sum.tolist(), w.last_ms.tolist(), str(w.last.tolist())]
        for w in closed
    ]  # fmt: skip


def test_late_counts_only_what_came_after_the_window_was_told() -> None:
    #    minute 0   [-- told --]        late reading here -> late in the 10 ms window,
    #    whole 60   [------------------ still open ----->    not late in the 60 ms one
    windows = Windows(1, (10, 60), ring_ms=600)
    windows.begin(0)
    windows.advance(20)
    windows.add(np.array([0]), np.array([5]), np.array([2.0]), 0)
    (revised,) = windows.revisions()
    assert (revised.window_ms, revised.revision, revised.late.tolist()) == (10, 1, [1])
    whole = windows.advance(60)[-1]
    assert (whole.window_ms, whole.seen.tolist(), whole.late.tolist()) == (60, [1], [0])


def test_a_long_silence_costs_a_ring_of_empty_windows_and_loses_no_reading() -> None:
    windows = Windows(1, (10, 60), rolling_ms=(120,), ring_ms=60)
    windows.add(np.array([0]), np.array([1_000]), np.array([4.0]), 0)
    told = windows.advance(10_000_000)
    assert len(told) < 40
    with_data = {(w.window_ms, w.start_ms) for w in told if w.seen[0]}
    assert with_data == {(10, 1_000), (60, 960), (120, 900), (120, 960)}


def test_fast_and_scattered_ways_agree_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    width = CHUNK + 500
    sensors = np.tile(np.arange(100, width), 3)
    times = np.repeat([5, 25, 26], width - 100).astype(np.int64)
    values = rng.integers(0, 9_000, len(sensors)) / 128
    runs, scattered = Windows(width, (10, 20)), Windows(width, (10, 20))
    shuffled = rng.permutation(len(sensors))
    runs.add(sensors, times, values, 3)
    scattered.add(sensors[shuffled], times[shuffled], values[shuffled], 3)
    for a, b in zip(runs.advance(100), scattered.advance(100), strict=True):
        assert a.start_ms == b.start_ms
        for column in ("seen", "sum", "sumsq", "min", "max", "last", "last_ms"):
            np.testing.assert_array_equal(getattr(a, column), getattr(b, column))


def test_a_run_given_as_a_slice_is_counted_as_its_numbers_would_be() -> None:
    rng = np.random.default_rng(2)
    width = 400
    runs, numbered = (Windows(width, (10, 20), ring_ms=40) for _ in range(2))
    for step in range(30):
        first, count = int(rng.integers(0, 300)), int(rng.integers(1, 100))
        # One time, a few, or one for each; now and then too old for the ring.
        time_ms = np.sort(rng.integers(0, (1, 3, 20)[step % 3], count)) + max(0, 5 * step - 30)
        value = rng.integers(0, 50, count).astype(float)
        where = slice(first, first + count)
        one = runs.add(where, time_ms, value, step)
        two = numbered.add(np.arange(first, first + count), time_ms, value, step)
        assert (one.counted, one.late, one.newest_ms) == (two.counted, two.late, two.newest_ms)
        assert one.too_old.tolist() == two.too_old.tolist()
        told = zip(runs.advance(5 * step), numbered.advance(5 * step), strict=True)
        told = [*told, *zip(runs.revisions(), numbered.revisions(), strict=True)]
        for left, right in told:
            for column in ("sensor", "seen", "late", "sum", "sumsq", "min", "max", "last"):
                np.testing.assert_array_equal(getattr(left, column), getattr(right, column))


def test_state_finds_its_sensors_after_the_pack_has_moved_them() -> None:
    before = Windows(3, (10,), ring_ms=100)
    before.add(np.array([0, 1, 2]), np.full(3, 5), np.array([1.0, 2.0, 3.0]), 0)
    blocks = {name: block for name, block in before.changed() if block is not None}
    after = Windows(4, (10,), ring_ms=100)
    after.restore(before.closed_ms, before.marks(), blocks, np.array([3, -1, 0]))
    (window,) = after.advance(10)
    assert window.sum.tolist() == [3.0, 0.0, 0.0, 1.0]


def test_windows_that_do_not_divide_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="70 ms is not a multiple of 20 ms"):
        Windows(1, (10, 20), rolling_ms=(70,))


@pytest.mark.parametrize("cadence_s", [0.5, 5, 7, 60, 300, 420, 600, 900, 3_600, 5_400, 86_400])
@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_has_windows_that_fit_each_other_at_any_cadence(
    kind: Kind, cadence_s: float
) -> None:
    row = kind.at_cadence(round(cadence_s * 1_000))
    windows = Windows(1, row.windows_ms, row.rolling_ms, row.delay_ms, row.ring_ms)
    windows.add(np.array([0]), np.array([0]), np.array([1.0]), 0)
    told = windows.advance(row.windows_ms[-1] + row.delay_ms)
    assert {w.window_ms for w in told} == {*row.windows_ms, *row.rolling_ms}
