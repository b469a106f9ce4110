"""The spool: what a device was told is stored is there after any accident, once, in order."""

import errno
import os
import resource
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain.edge import frames, spool
from citybrain.edge.spool import Put, Spool, SpoolFull
from citybrain.errors import InvalidInput, SetupError

MB = 1 << 20


def drain(box: Spool, max_bytes: int = 64) -> list[bytes]:
    got = []
    while chunk := box.read(max_bytes):
        got += [entry.payload for entry in chunk]
    return got


PAYLOADS = st.lists(
    st.one_of(st.binary(max_size=60), st.just(frames.MARK * 3),
              st.just(frames.pack(b"12345678", 9, 1, b"looks like an entry"))),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(flushes=st.lists(PAYLOADS, min_size=1, max_size=5), seen=st.integers(0, 30),
       at=st.floats(0, 1), flip=st.one_of(st.none(), st.integers(1, 255)))  # fmt: skip
def test_a_cut_or_a_flipped_byte_costs_only_the_entries_it_hits(
    flushes: list[list[bytes]],
    seen: int,
    at: float,
    flip: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    box = Spool(folder, MB)
    sent = []
    for flush in flushes:
        box.append([Put(payload) for payload in flush])
        sent += flush
    taken = [e.index for e in box.read(seen)] if seen else []
    if taken:
        box.acknowledge(taken[-1])
    box.close()
    (path,) = folder.glob("*.spool")
    data = bytearray(path.read_bytes())
    offset = min(int(at * len(data)), len(data) - 1)
    if flip is None:
        del data[offset:]
    else:
        data[offset] ^= flip
    path.write_bytes(data)

    ends, end = [], frames.HEADER
    for payload in sent:
        ends.append(end := end + frames.OVERHEAD + len(payload))
    hit = sum(e <= offset for e in ends)
    whole = [
        (i, p) for i, p in enumerate(sent) if i < hit or (flip is not None and i > hit)
    ] if flip is None or offset >= frames.HEADER else list(enumerate(sent))  # fmt: skip
    box = Spool(folder, MB)
    assert drain(box) == [p for i, p in whole if i > (taken[-1] if taken else -1)]
    exact_cut = flip is None and (offset in ends or offset == frames.HEADER)
    if not exact_cut and not (flip is None and offset < frames.HEADER):
        assert box.report.damage, "damage must be reported"
    before = box.append([Put(b"after")])
    assert before > max([*taken, -1]), "a number that was sent is never given again"
    assert drain(box) == [b"after"]
    box.close()
    again = Spool(folder, MB)
    assert not again.report.damage, "damage is reported once"
    again.close()


def test_entries_wait_in_order_across_restarts_and_files(tmp_path: Path) -> None:
    want = [bytes([i % 251]) * (i % 97) for i in range(600)]
    for start in range(0, 600, 100):
        box = Spool(tmp_path, MB, segment_bytes=2000)
        for i in range(start, start + 100, 10):
            box.append([Put(p, readings=2) for p in want[i : i + 10]])
        box.close()
    seen: list[int] = []
    box = Spool(tmp_path, MB, visit=lambda e, _: seen.append(e.index), segment_bytes=2000)
    assert box.report.whole
    assert seen == list(range(600))
    assert drain(box, 500) == want
    box.acknowledge(box.taken)
    box.close()
    box = Spool(tmp_path, MB)
    assert drain(box) == []
    assert box.backlog == 0
    box.close()


def test_reading_goes_on_in_the_middle_of_a_large_file(tmp_path: Path) -> None:
    box = Spool(tmp_path, MB)
    box.append([Put(b"%d" % i * 50) for i in range(1000)])
    first = box.read(3000)
    box.acknowledge(first[-1].index)
    box.close()
    box = Spool(tmp_path, MB)
    assert next(e.index for e in box.read(100)) == first[-1].index + 1
    assert len(drain(box, 900)) + len(first) < 1000 + 2
    box.close()


def test_an_entry_larger_than_a_chunk_is_read(tmp_path: Path) -> None:
    box = Spool(tmp_path, MB)
    box.append([Put(b"a"), Put(b"b" * 100_000), Put(b"c")])
    assert drain(box, 10) == [b"a", b"b" * 100_000, b"c"]
    box.close()


def test_the_bound_holds_and_the_oldest_gives_way_with_a_count(tmp_path: Path) -> None:
    box = Spool(tmp_path, 20_000, segment_bytes=2_000)
    lost: Counter[object] = Counter()
    stored = 0
    for i in range(500):
        dropping = box.make_room(300)
        for dropped in dropping:
            lost += dropped.tally
        box.append([Put(b"%03d" % i + bytes(200), 5, "pm25" if i % 2 else "rain")], dropping)
        stored += 5
        assert box.size_bytes <= 20_000 + 300
    kept = drain(box)
    assert [int(p[:3]) for p in kept] == list(range(500 - len(kept), 500)), "the newest are kept"
    assert sum(lost.values()) + 5 * len(kept) == stored
    assert abs(lost["pm25"] - lost["rain"]) <= 5
    box.close()


def test_what_the_reader_holds_never_gives_way(tmp_path: Path) -> None:
    box = Spool(tmp_path, 10_000, segment_bytes=1_000)
    for i in range(30):
        box.append([Put(b"%03d" % i + bytes(200))])
    held = box.read(500)
    (dropping,) = box.make_room(10_000 - box.size_bytes + 1)
    assert dropping.first > held[-1].index
    box.append([Put(b"new")], [dropping])
    rest = drain(box)
    assert len(held) + len(rest) + dropping.last - dropping.first + 1 == 31
    box.close()
    again = Spool(tmp_path, 10_000)
    assert again.report.missing == ((dropping.first, dropping.last),)
    again.close()


def test_sent_entries_are_kept_for_a_while_and_never_outgrow_their_part(tmp_path: Path) -> None:
    box = Spool(tmp_path, 40_000, segment_bytes=1_000)
    for i in range(400):
        box.append([Put(b"%03d" % i + bytes(200))])
        box.acknowledge(box.read()[-1].index)
    assert 5_000 < box.size_bytes <= 10_000 + 2_000
    box.close()
    visited: list[bytes] = []
    Spool(tmp_path, 40_000, visit=lambda e, _: visited.append(e.payload[:3])).close()
    assert visited[-1] == b"399"


def test_more_than_the_bound_never_fits(tmp_path: Path) -> None:
    box = Spool(tmp_path, 10_000)
    with pytest.raises(SpoolFull, match="10001 bytes do not fit into 10000"):
        box.make_room(10_001)
    box.close()


@pytest.mark.parametrize("fails", ["pwrite", "_sync"])
def test_a_full_disk_stores_nothing_and_loses_nothing(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Spool(tmp_path, MB)
    box.append([Put(b"one")])

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "pwrite") if fails == "pwrite" else (spool, "_sync")), refuse)
        for _ in range(3):
            with pytest.raises(SpoolFull, match="No space left"):
                box.append([Put(b"lost"), Put(b"too")])
    box.append([Put(b"two")])
    assert drain(box) == [b"one", b"two"]
    box.close()
    box = Spool(tmp_path, MB)
    assert box.report.whole
    assert drain(box) == [b"one", b"two"]
    box.close()


def test_a_file_that_may_not_grow_is_left_whole(tmp_path: Path) -> None:
    box = Spool(tmp_path, MB)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    rounds = iter(range(30))

    def fill() -> None:
        for _ in rounds:
            box.append([Put(bytes(1000))] * 3)

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(SpoolFull, match="File too large"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    stored = 3 * (next(rounds) - 1)
    box.append([Put(b"after")])
    box.close()
    again = Spool(tmp_path, MB)
    assert again.report.whole
    assert len(drain(again)) == stored + 1
    again.close()


def test_a_lost_position_sends_again_rather_than_not_at_all(tmp_path: Path) -> None:
    box = Spool(tmp_path, MB)
    box.append([Put(b"one"), Put(b"two")])
    box.acknowledge(box.read()[-1].index)
    box.close()
    (tmp_path / "position").write_bytes(b"garbage")
    box = Spool(tmp_path, MB)
    assert drain(box) == [b"one", b"two"]
    box.close()


def test_a_lost_tail_is_noticed_by_the_position(tmp_path: Path) -> None:
    box = Spool(tmp_path, MB)
    box.append([Put(b"one"), Put(b"two")])
    box.acknowledge(box.read()[-1].index)
    box.close()
    (path,) = tmp_path.glob("*.spool")
    path.write_bytes(path.read_bytes()[: frames.HEADER + frames.OVERHEAD + 3])
    box = Spool(tmp_path, MB)
    assert box.report.missing == ((1, 1),)
    assert box.next_index == 2
    box.close()


def test_two_agents_cannot_share_a_spool(tmp_path: Path) -> None:
    box = Spool(tmp_path, MB)
    with pytest.raises(SetupError, match="used by another process"):
        Spool(tmp_path, MB)
    box.close()


def test_a_spool_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / f"{0:020d}.spool"
    file.write_bytes(frames.MAGIC + bytes([frames.VERSION + 1]) + b"future")
    with pytest.raises(InvalidInput, match="version"):
        Spool(tmp_path, MB)
    assert file.read_bytes().endswith(b"future")


def test_version_1_files_stay_readable(tmp_path: Path) -> None:
    golden = (
        b"citybrain-spool\x01saltsalt"
        b"\xc1\x1b\xe7\x9d\x05\x00\x00\x00\xb9\x12\xf7o\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00hello"
    )
    (tmp_path / f"{0:020d}.spool").write_bytes(golden)
    box = Spool(tmp_path, MB)
    assert drain(box) == [b"hello"]
    box.close()


def test_a_whole_segment_that_vanished_is_reported(tmp_path: Path) -> None:
    box = Spool(tmp_path, MB, segment_bytes=100)
    for i in range(9):
        box.append([Put(b"%d" % i + bytes(60))])
    box.close()
    gone = sorted(tmp_path.glob("*.spool"))[1]
    shutil.move(gone, tmp_path / "elsewhere")
    box = Spool(tmp_path, MB)
    assert not box.report.whole
    ((first, last),) = box.report.missing
    assert len(drain(box)) == 9 - (last - first + 1)
    box.close()
