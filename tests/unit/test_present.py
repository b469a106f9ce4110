"""Nobody is called silent because the broker, or we ourselves, were away."""

from citybrain.streams.present import FRESH_MS, PATIENCE_MS, Present

T0 = 1_700_000_000_000


def test_silence_is_judged_only_after_a_while_of_being_up_to_date() -> None:
    present = Present()
    assert not present.judge(T0, 0, 0)
    assert not present.judge(T0 + PATIENCE_MS - 1, 0, 0)
    assert present.judge(T0 + PATIENCE_MS, 0, 0)


def test_a_broker_that_was_away_starts_the_while_anew() -> None:
    present = Present()
    present.judge(T0, 0, 0)
    assert not present.judge(T0 + PATIENCE_MS, None, 0)
    assert not present.judge(T0 + PATIENCE_MS + 1_000, 0, 0)
    assert present.judge(T0 + 2 * PATIENCE_MS + 1_000, 0, 0)


def test_busy_is_up_to_date_but_old_records_are_not() -> None:
    present = Present()
    for second in range(60):
        now = T0 + second * 1_000
        judged = present.judge(now, 3, now - FRESH_MS)
        assert judged == (second * 1_000 >= PATIENCE_MS)
    assert not present.judge(T0 + 60_000, 3, T0 + 60_000 - FRESH_MS - 1)
