"""A shard with many sensors: windows in parts, state in chunks, a pack that has changed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from citybrain import stats
from citybrain.batch import Batch, BatchHead
from citybrain.columns import Roster
from citybrain.errors import InvalidInput
from citybrain.kinds import KINDS, MINUTE
from citybrain.models.panes import CHUNK
from citybrain.stage import Record
from citybrain.streams import blocks
from citybrain.streams.series import Series

T0 = 1_700_000_000_000 // 900_000 * 900_000
KIND = replace(KINDS["precipitation"], rolling_ms=(3 * 60 * MINUTE,))
RECORD = Record("readings", 0, 5, T0, b"")
NAMES = tuple(f"d{i:05}" for i in range(CHUNK + 700))


def feed(series: Series, names: tuple[str, ...], time_ms: int, first: int = 0) -> None:
    """Sensor number i reports i modulo 64, counted from `first`."""
    head = BatchHead(
        gateway="g", incarnation="a", shard="s", seq=0, kind=KIND.name, watermark_ms=0,
        sent_ms=time_ms,
    )  # fmt: skip
    count = len(names)
    values = ((np.arange(count) + first) % 64).astype(np.float64)
    batch = Batch(
        head, Roster(names), np.arange(count, dtype=np.int32), np.full(count, time_ms, np.int64),
        values, np.zeros(count, np.uint8),
    )  # fmt: skip
    series.add(series.screen(batch, time_ms), 0, False, RECORD)


def sums(told: list[stats.Stats], window_ms: int) -> dict[str, float]:
    """Sensor -> sum, of all parts of the windows of one length."""
    return {
        one.roster.names[code]: float(one.sum[i])
        for one in told
        if one.head.window_ms == window_ms
        for i, code in enumerate(one.codes.tolist())
        if one.seen[i]
    }


def test_a_window_of_many_sensors_comes_in_parts_that_together_are_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stats, "PART", 1_000)
    series = Series("s", KIND, NAMES, "pack")
    feed(series, NAMES, T0)
    told = list(series.advance(T0 + MINUTE + KIND.delay_ms, RECORD))
    assert [one.head.part for one in told] == list(range(9))
    assert {one.head.parts for one in told} == {9}
    assert list(itertools.chain(*(one.roster.names for one in told))) == list(NAMES)
    assert sums(told, MINUTE) == {name: float(i % 64) for i, name in enumerate(NAMES)}


def test_saved_chunks_are_all_of_the_state_and_only_what_changed_is_saved_again() -> None:
    series, again = Series("s", KIND, NAMES, ""), Series("s", KIND, NAMES, "")
    feed(series, NAMES, T0)
    saved = series.changed()
    assert len([name for name in saved if name.startswith("pane/")]) == 2
    feed(series, NAMES[:10], T0 + 1_000)
    second = series.changed()
    assert [name for name in second if name.startswith("pane/")] == [
        f"pane/{KIND.name}/{MINUTE}/{T0}/0"
    ]
    assert max(map(len, saved.values())) < 900_000
    again.restore(saved | second)
    ends = [list(s.advance(T0 + 60 * MINUTE, RECORD)) for s in (series, again)]
    assert [stats.encode(one) for one in ends[0]] == [stats.encode(one) for one in ends[1]]


def test_sensors_keep_their_state_when_the_pack_moves_adds_and_drops_some() -> None:
    before = Series("s", KIND, NAMES, "")
    feed(before, NAMES, T0)
    saved = before.changed()
    names = ("new", *reversed(NAMES[5:]))
    after = Series("s", KIND, names, "")
    after.restore(saved)
    told = list(after.advance(T0 + MINUTE + KIND.delay_ms, RECORD))
    assert told[0].roster.names[0] == "new"
    assert sums(told, MINUTE) == {n: float(i % 64) for i, n in enumerate(NAMES) if i >= 5}
    # What is saved from here on is of the new pack alone.
    third = Series("s", KIND, names, "")
    live = {name: block for name, block in (saved | after.changed()).items() if block}
    third.restore(live)
    feed(after, names, T0 + MINUTE)
    feed(third, names, T0 + MINUTE)
    ends = [list(s.advance(T0 + 60 * MINUTE, RECORD)) for s in (after, third)]
    assert [stats.encode(one) for one in ends[0]] == [stats.encode(one) for one in ends[1]]


def test_a_pack_of_far_fewer_sensors_leaves_no_block_behind() -> None:
    before = Series("s", KIND, NAMES, "")
    feed(before, NAMES, T0)
    saved = before.changed()
    after = Series("s", KIND, NAMES[:3], "")
    after.restore(saved)
    live = {name for name, block in (saved | after.changed()).items() if block}
    assert live == {
        f"kind/{KIND.name}", f"names/{KIND.name}/0", f"pane/{KIND.name}/{MINUTE}/{T0}/0",
    }  # fmt: skip


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\xff\xff\xff\xff\x00\x00\x00\x00"])
def test_a_damaged_block_is_refused_and_never_guessed(damage: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"state block pane/x"):
        blocks.decode("pane/x", damage)
