"""diff: each alert of A and B is told exactly once, as gained, lost, moved or the same."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain.errors import UsageError
from citybrain.history.alertdiff import Case, compare, read


def case(place: str, opened: int, cleared: int | None, severity: int = 3, n: int = 0) -> Case:
    return Case(f"{place}/{n}", place.split("/")[0], place, severity, opened, cleared)


A = case("jam/l1", 100, 200)


def test_an_alert_that_only_b_has_is_gained_and_one_that_only_a_has_is_lost() -> None:
    other = case("jam/l2", 100, 200)
    assert compare([A], [A, other]).gained == [other]
    assert compare([A, other], [A]).lost == [other]


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (case("jam/l1", 90, 200), ["opened_ms"]),
        (case("jam/l1", 100, 260), ["cleared_ms"]),
        (case("jam/l1", 100, None), ["cleared_ms"]),
        (case("jam/l1", 100, 200, severity=2), ["severity"]),
        (case("jam/l1", 200, 300, n=7), ["opened_ms", "cleared_ms"]),
    ],
)
def test_the_same_case_at_another_time_or_severity_is_moved(after: Case, what: list[str]) -> None:
    (move,) = compare([A], [after]).moved
    assert (move.before, move.after, move.what) == (A, after, what)


def test_alerts_that_do_not_overlap_are_different_cases() -> None:
    later = case("jam/l1", 201, 300)
    found = compare([A], [later])
    assert (found.lost, found.gained, found.moved) == ([A], [later], [])


def test_one_long_alert_matches_the_earliest_of_two_short_ones() -> None:
    long = case("jam/l1", 0, 1000)
    first, second = case("jam/l1", 100, 200), case("jam/l1", 300, 400, n=1)
    found = compare([long], [first, second])
    assert (found.moved[0].after, found.gained) == (first, [second])


some_cases = st.lists(
    st.builds(
        lambda place, opened, length, severity, n: case(
            place, opened, None if length is None else opened + length, severity, n
        ),
        st.sampled_from(["jam/l1", "jam/l2", "rain/city"]), st.integers(0, 50),
        st.none() | st.integers(0, 20), st.integers(1, 4), st.integers(0, 1000),
    ),
    max_size=12, unique_by=lambda c: c.id,
).map(lambda found: sorted(found, key=lambda c: (c.opened_ms, c.id)))  # fmt: skip


@given(some_cases, some_cases)
def test_every_alert_is_accounted_for_once(a: list[Case], b: list[Case]) -> None:
    found = compare(a, b)
    assert len(a) == len(found.lost) + len(found.moved) + found.same
    assert len(b) == len(found.gained) + len(found.moved) + found.same
    assert sorted(c.id for c in compare(b, a).lost) != [] or not found.gained
    assert compare(a, a).same == len(a)


def test_a_folder_without_a_replay_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"alerts.parquet: not the alerts of a replay"):
        read(tmp_path)
