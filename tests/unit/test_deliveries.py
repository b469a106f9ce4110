"""Effects reach an address at most once, whatever happens to the process."""

from pathlib import Path

import pytest

from citybrain.consumers import addresses
from citybrain.deliveries import EXPIRES_MS, KEEP_MS, Deliveries
from citybrain.errors import SetupError, UsageError

A, B = "http://a.example/x", "http://b.example/y"


def opened(folder: Path) -> Deliveries:
    return Deliveries(folder / "outbox.sqlite")


def test_an_effect_told_twice_is_delivered_once_to_each_address(tmp_path: Path) -> None:
    table = opened(tmp_path)
    assert table.take("t", 1, [("k1", b"1", 0)], [A, B]) == 2
    assert table.take("t", 2, [("k1", b"1", 0)], [A, B]) == 0
    assert table.next_offset("t") == 2
    first = table.begin(A, 0)
    assert first
    assert table.begin(A, 0) is None
    table.end(first, "delivered", "200")
    assert table.begin(A, 10) is None
    assert table.begin(B, 10)


def test_after_a_crash_in_the_middle_of_sending_it_is_not_sent_again(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.take("t", 2, [("k1", b"1", 0), ("k2", b"2", 1)], [A])
    assert table.begin(A, 5)
    table.close()
    after = opened(tmp_path)
    assert after.unknown == 1
    following = after.begin(A, 5)
    assert following
    assert following.key == "k2"
    assert after.counts() == {"unknown": 1, "sending": 1}


def test_what_did_not_arrive_is_tried_again_after_growing_pauses(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.take("t", 1, [("k1", b"1", 0)], [A])
    now, pauses = 0, []
    for _ in range(5):
        delivery = table.begin(A, now)
        assert delivery
        table.again(delivery, now, "refused")
        begin = now
        while table.begin(A, now + 1_000) is None:
            now += 1_000
        now += 1_000
        table.again(delivery, begin, "refused")
        pauses.append(now - begin)
    assert pauses == [2_000, 4_000, 8_000, 16_000, 32_000]


def test_news_that_is_an_hour_old_is_given_up(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.take("t", 1, [("k1", b"1", 0)], [A])
    assert table.begin(A, EXPIRES_MS + 1) is None
    assert table.counts() == {"expired": 1}
    table.forget(KEEP_MS + 1)
    assert table.counts() == {}


def test_two_processes_cannot_deliver_from_one_table(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.take("t", 1, [], [])
    with pytest.raises(SetupError, match=r"outbox\.sqlite cannot be used: database is locked"):
        opened(tmp_path)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(SetupError, match=r"outbox\.sqlite cannot be used"):
        opened(tmp_path)


def test_an_address_that_is_none_is_refused_without_repeating_its_secret() -> None:
    assert addresses(" http://a/x , https://b/y,") == ["http://a/x", "https://b/y"]
    with pytest.raises(UsageError, match="address 2 of 2: its scheme") as refused:
        addresses("http://a/x, ftp://b/token-123")
    assert "token-123" not in str(refused.value)
