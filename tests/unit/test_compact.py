"""Merging and retention: the same rows before and after, also when the writer is killed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain.history.compact import FEW, GRACE_MS, Compactor
from citybrain.history.intake import Intake
from citybrain.history.read import Reader
from citybrain.history.store import Store, ranges_of
from citybrain.kinds import DAY, KINDS
from tests.unit.test_history import NOON, readings

ALL = "select sensor, epoch_ms(time) t, value, epoch_ms(known_at) k from readings order by all"


def fill(store: Store, flushes: int, first: int = 0, time_ms: int = NOON) -> None:
    intake = Intake(KINDS, store.journal.sequences())
    for seq in range(first, first + flushes):
        rows = intake.take(readings(seq, time_ms + seq, seq))
        assert rows is not None
        store.add(rows, ("readings", 1, seq))
        store.flush({("readings", 1): seq + 1}, intake.sequences)


def everything(root: Path) -> list[dict[str, object]]:
    with Reader(root) as reader:
        return reader.query(ALL).to_pylist()


def test_many_small_files_become_one_with_the_same_rows(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        fill(store, FEW)
        before = everything(tmp_path)
        assert Compactor(store, lambda: 0).step() == FEW
        (file,) = store.journal.files("readings")
        assert file.level == 1
        assert ranges_of(tmp_path / file.path) == {("readings", 1): (0, FEW - 1)}
    assert everything(tmp_path) == before


def test_a_reader_that_has_begun_goes_on_and_the_old_files_go_later(tmp_path: Path) -> None:
    now = [1_000]
    with Store(tmp_path) as store:
        fill(store, FEW)
        compactor = Compactor(store, lambda: now[0])
        with Reader(tmp_path) as reader:
            compactor.step()
            compactor.sweep()
            assert len(reader.query(ALL)) == 3 * FEW
        now[0] += GRACE_MS + 1
        compactor.sweep()
    assert len(list(tmp_path.glob("readings/*/*/*.parquet"))) == 1
    assert len(everything(tmp_path)) == 3 * FEW


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 2 * FEW), min_size=1, max_size=4))
def test_whatever_the_order_of_flushes_and_merges_no_row_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, flushes: list[int]
) -> None:
    root = tmp_path_factory.mktemp("compact")
    with Store(root) as store:
        compactor = Compactor(store, lambda: 0)
        for i, count in enumerate(flushes):
            fill(store, count, sum(flushes[:i]))
            while compactor.step():
                pass
        assert len(store.journal.files()) < 2 * FEW
    assert len(everything(root)) == 3 * sum(flushes)


def test_a_merge_that_was_killed_before_its_commit_has_not_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        fill(store, FEW)
        before = everything(tmp_path)

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(store.journal, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            Compactor(store, lambda: 0).step()
    with Store(tmp_path):
        assert everything(tmp_path) == before
    assert len(list(tmp_path.glob("readings/*/*/*.parquet"))) == FEW


def test_rows_older_than_the_retention_go_counted_from_the_newest(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        fill(store, 1)
        fill(store, 1, 1, NOON + 29 * DAY)
        assert Compactor(store, lambda: 0).step() == 0
        fill(store, 1, 2, NOON + 31 * DAY)
        assert Compactor(store, lambda: 0).step() == 1
    assert len(everything(tmp_path)) == 6
