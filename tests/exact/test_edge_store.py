"""The edge agent's disk: damaged at any byte, and filled for a day without a broker."""

import os
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from citybrain import batch as readings
from citybrain import stats
from citybrain.batch import Batch, BatchHead, Heartbeat
from citybrain.columns import Roster, Rosters
from citybrain.edge import frames
from citybrain.edge.spool import Put, Spool
from citybrain.errors import InvalidInput
from citybrain.kinds import HOUR, MINUTE, SECOND
from citybrain.stage import Record
from citybrain.streams.rollup import Rollup
from tests.simulated.cases import T0, small_city

FULL = os.environ.get("CITYBRAIN_TEST_SIZE") == "full"
MB = 1 << 20
ENTRIES = [bytes([65 + i]) * (3 + 5 * i % 17) for i in range(12)]
SENT = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool of two files, of which the first entries are sent."""
    folder = tmp_path_factory.mktemp("whole")
    box = Spool(folder, MB, segment_bytes=300)
    for i in range(0, len(ENTRIES), 2):
        box.append([Put(payload, readings=1) for payload in ENTRIES[i : i + 2]])
    box.acknowledge(box.read(1)[0].index)
    while box.acknowledged < SENT - 1:
        box.acknowledge(box.read(1)[-1].index)
    box.close()
    assert len(list(folder.glob("*.spool"))) == 2
    return folder


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The file cut and flipped at every byte, zeroed and shifted at some (at all, full size)."""
    for at in range(len(data)):
        yield f"cut at {at}", data[:at]
        yield f"flipped at {at}", data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        if at % 5 and not FULL:
            continue
        yield f"zeroed from {at}", data[:at] + bytes(len(data) - at)
        yield f"a byte put in at {at}", data[:at] + b"\xc1" + data[at:]
    yield "gone", b""


@pytest.mark.parametrize("which", ["first", "last", "position", "salt"])
def test_at_every_byte_what_is_lost_is_said_and_the_rest_comes_once(
    whole: Path, which: str, tmp_path: Path
) -> None:
    segments = sorted(path.name for path in whole.glob("*.spool"))
    name = {"first": segments[0], "last": segments[-1]}.get(which, which)
    data = (whole / name).read_bytes()
    for what, damaged in damages(data):
        folder = tmp_path / "spool"
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(damaged)
        try:
            box = Spool(folder, MB, segment_bytes=300)
        except InvalidInput as error:
            # One byte says the version: the agent does not start, says why, and loses nothing.
            assert "version" in str(error), f"{name} {what}"  # noqa: PT017  # others are failures
            assert damaged[frames.HEADER - frames.SALT - 1] > frames.VERSION, f"{name} {what}"
            shutil.rmtree(folder)
            continue
        got: list[frames.Entry] = []
        while chunk := box.read(64):
            got += chunk
        numbers = [entry.index for entry in got]
        assert numbers == sorted(set(numbers)), f"{name} {what}: twice or out of order"
        assert all(entry.payload == ENTRIES[entry.index] for entry in got), f"{name} {what}"
        missing = set(range(SENT, len(ENTRIES))) - set(numbers)
        if which in ("position", "salt"):
            assert not missing, f"{name} {what}"  # the segments say it too
        elif missing and not (what.startswith(("cut", "gone")) and _at_an_end(damaged)):
            assert not box.report.whole, f"{name} {what}: {missing} are lost in silence"
        if damaged != data and which not in ("position", "salt"):
            assert len(missing) <= len(ENTRIES)
        box.close()
        shutil.rmtree(folder)


def _at_an_end(data: bytes) -> bool:
    """Whether a file is whole up to its end, so that nobody can see that more stood there.

    A file that ends so is one whose later entries were never written; a disk that forgets whole
    blocks which it has confirmed cannot be told from it.
    """
    if len(data) <= frames.HEADER:
        return frames.header(data[frames.HEADER - frames.SALT : frames.HEADER]).startswith(data)
    found = list(frames.scan_segment(data, data[frames.HEADER - frames.SALT : frames.HEADER]))
    return all(isinstance(entry, frames.Entry) for entry in found)


STEP_MS = (10 if FULL else 60) * SECOND
RATE = 2_000 if FULL else 20
"""Readings a second of the gateway that is offline."""
BOUND = 1_024 * MB if FULL else 12 * MB


def _batch(
    gateway: str, kind: str, sensors: tuple[str, ...], seq: int, now: int, each: int
) -> Batch:
    rows = len(sensors) * each
    head = BatchHead(gateway=gateway, incarnation="a", shard="north", seq=seq, kind=kind,
                     watermark_ms=now, sent_ms=now + STEP_MS)  # fmt: skip
    return Batch(
        head,
        Roster(sensors),
        np.tile(np.arange(len(sensors), dtype=np.int32), each),
        now + np.repeat(np.arange(each, dtype=np.int64) * STEP_MS // each, len(sensors)),
        np.ones(rows),
        np.zeros(rows, np.uint8),
    )


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _windows(stage: Rollup, log: list[tuple[int, bytes]]) -> Counter[tuple[object, ...]]:
    """What a stage tells of the temperature, first words and revisions."""
    told: Counter[tuple[object, ...]] = Counter()
    for offset, (at_ms, value) in enumerate(log):
        for out in stage.apply(Record("readings", 0, offset, at_ms, value)):
            if out.topic == "stats" and out.value[:1] != b"{":
                one = stats.decode(out.value, Rosters())
                assert isinstance(one, stats.Stats)
                if one.head.kind == "temperature":
                    told[one.head.window_ms, one.head.start_ms, one.head.revision,
                         tuple(one.sum.tolist())] += 1  # fmt: skip
    return told


@pytest.mark.timeout(3_600)
def test_a_day_offline_keeps_its_bound_and_drains_in_order_beside_the_live_windows(
    tmp_path: Path,
) -> None:
    box = Spool(tmp_path / "spool", BOUND)
    each = RATE * STEP_MS // 1_000 // 2
    steps = 24 * HOUR // STEP_MS
    overflowed = produced = 0
    early = 0
    for step in range(steps):
        value = readings.encode(
            _batch("v-north", "vehicle_count", ("d1", "d2"), step, T0 + step * STEP_MS, each)
        )
        dropping = box.make_room(len(value) + frames.OVERHEAD)
        overflowed += sum(sum(one.tally.values()) for one in dropping)
        box.append([Put(value, 2 * each, "vehicle_count")], dropping)
        produced += 2 * each
        assert box.size_bytes <= BOUND + len(value) + frames.OVERHEAD
        if step == steps // 4:
            early = _peak_kb()
    assert _peak_kb() - early < 8_000, "memory grows with the backlog"
    assert overflowed, "a day is meant to be more than fits"
    box.close()
    box = Spool(tmp_path / "spool", BOUND)  # the power fails, too
    # What gave way is missing at the beginning, and nothing else is.
    assert (box.report.damage, len(box.report.missing)) == ((), 1)
    assert box.report.missing[0] == (0, overflowed // (2 * each) - 1)

    live: list[tuple[int, bytes]] = []
    for step in range(steps + 60):
        now = T0 + step * STEP_MS
        one = _batch("t-north", "temperature", ("w1",), step, now, 6)
        live.append((now + STEP_MS, readings.encode(one)))
    back = len(live) - 60
    drained: list[tuple[int, bytes]] = []
    kept, last = 0, -1
    while chunk := box.read():
        for entry in chunk:
            assert entry.index > last, "out of order"
            last = entry.index
            kept += entry.readings
            drained.append((T0 + 24 * HOUR, entry.payload))
    box.close()
    assert kept + overflowed == produced
    end = T0 + 24 * HOUR + STEP_MS
    caught_up = Heartbeat(gateway="v-north", incarnation="a", shard="north", watermark_ms=end,
                          sent_ms=end)  # fmt: skip
    # The backlog comes in between two live batches, as fast as it can be sent.
    with_backlog = [*live[:back], *drained, (end, readings.encode_control(caught_up)), *live[back:]]
    city = small_city()
    kinds = {
        name: replace(kind, windows_ms=(MINUTE,), rolling_ms=(), ring_ms=5 * MINUTE)
        for name, kind in city.kinds.items()
    }
    city = replace(city, kinds=kinds)
    stage = Rollup(city, 0)
    told = _windows(stage, with_backlog)
    counts = stage.counts()
    late = city.kinds["vehicle_count"].ring_ms // STEP_MS + 2
    assert counts["backfilled"] + counts["counted"] - 6 * len(live) == kept
    assert counts["counted"] - 6 * len(live) <= late * 2 * each
    quiet = _windows(Rollup(city, 0), live)
    shared = {window for window in quiet if window[1] < T0 + 24 * HOUR}  # type: ignore[operator]  # a start
    assert {w: n for w, n in told.items() if w in shared} == {w: quiet[w] for w in shared}
    assert not any(revision for _, _, revision, _ in told), "live windows were told again"
