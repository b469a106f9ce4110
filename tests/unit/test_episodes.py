"""When an episode begins, grows and ends: one value a window, windows of a minute."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from citybrain.kinds import MINUTE
from citybrain.models import episodes
from citybrain.models.episodes import Limits

UNKNOWN = float("nan")


def story(limits: Limits, scores: list[float], parked: set[int] = frozenset()) -> str:  # type: ignore[assignment]  # an empty set
    """R raised, U updated, C cleared, . nothing, by window."""
    state, text = episodes.fresh(1), ""
    for i, score in enumerate(scores):
        done = episodes.step(
            state, limits, np.array([score]), i * MINUTE, (i + 1) * MINUTE, np.array([i in parked])
        )
        text += "C" if len(done.cleared) else "R" if len(done.raised) else ""
        text += "U" if len(done.updated) else ""
        if len(text) == i:
            text += "."
    return text


def test_hysteresis_keeps_a_wavering_score_in_one_episode() -> None:
    assert story(Limits(3, 2), [1, 3, 2.5, 3, 2.5, 1, 3]) == ".R...CR"


def test_a_score_must_stay_for_the_stated_time_before_it_raises() -> None:
    hold = Limits(3, 2, hold_ms=3 * MINUTE)
    assert story(hold, [3, 3, 3]) == "..R"
    assert story(hold, [3, 1, 3, 3, 3]) == "....R"
    # Between the marks it neither raises nor begins anew.
    assert story(hold, [3, 2.5, 2.5, 3]) == "...R"


def test_it_takes_as_many_calm_windows_as_stated_to_end() -> None:
    assert story(Limits(3, 2, calm_rows=3), [3, 1, 1, 3, 1, 1, 1]) == "R.....C"


def test_after_an_end_there_is_quiet_for_a_while() -> None:
    assert story(Limits(3, 2, quiet_ms=3 * MINUTE), [3, 1, 3, 3, 3]) == "RC..R"


def test_unknown_windows_neither_end_nor_feed_an_episode_until_it_is_stale() -> None:
    unknown = [UNKNOWN] * 5
    assert story(Limits(3, 2, stale_ms=4 * MINUTE), [3, *unknown]) == "R...C."
    assert story(Limits(3, 2, hold_ms=2 * MINUTE), [UNKNOWN, 3, UNKNOWN, 3]) == "...R"


def test_low_scores_can_be_the_bad_ones() -> None:
    assert story(Limits(0.4, 0.6, below=True), [0.9, 0.4, 0.5, 0.7]) == ".R.C"


def test_maintenance_ends_what_lasts_and_begins_nothing() -> None:
    assert story(Limits(3, 2), [3, 3, 3, 3], parked={1, 2}) == "RC.R"


def test_passing_a_level_or_growing_by_a_quarter_is_an_update() -> None:
    assert story(Limits(10, 5, levels=(10, 11)), [10, 10.5, 11, 11.1, 14, 14.1]) == "R.U.U."
    assert story(Limits(1, 0, repeat_ms=2 * MINUTE), [1, 1, 1, 1, 1]) == "R.U.U"


@given(st.lists(st.one_of(st.floats(0, 6), st.just(UNKNOWN)), max_size=60), st.integers(0, 4))
def test_raised_and_cleared_always_alternate(scores: list[float], hold: int) -> None:
    limits = Limits(3, 2, hold_ms=hold * MINUTE, calm_rows=2, stale_ms=3 * MINUTE)
    letters = [c for c in story(limits, scores) if c in "RC"]
    assert letters == (["R", "C"] * len(letters))[: len(letters)]


@given(st.lists(st.lists(st.floats(0, 6), min_size=3, max_size=3), max_size=40))
def test_places_do_not_see_each_other(rows: list[list[float]]) -> None:
    limits = Limits(3, 2, calm_rows=2)
    state, together = episodes.fresh(3), [""] * 3
    for i, row in enumerate(rows):
        at = (i * MINUTE, (i + 1) * MINUTE)
        done = episodes.step(state, limits, np.array(row), *at, np.zeros(3, dtype=bool))
        for j in range(3):
            word = "C" if j in done.cleared else "R" if j in done.raised else ""
            together[j] += word or ("U" if j in done.updated else ".")
    assert together == [story(limits, [row[j] for row in rows]) for j in range(3)]
