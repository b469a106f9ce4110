"""The sum of readings."""

import pytest

from citybrain.accounts import Account
from citybrain.ledger import Book, agree, reckon


def edge(gateway: str = "g1", **counts: int) -> Account:
    return Account(party=f"edge/{gateway}/i1", shard="north", at_ms=1, counts=counts)


def rollup(shard: str = "north", **counts: int) -> Account:
    return Account(party="rollup", shard=shard, at_ms=1, counts=counts)


def test_every_reading_is_somewhere() -> None:
    book = reckon(
        [
            edge(produced=100, duplicate=5, conflict=1, invalid=2, overflowed=10, spooled=7),
            edge("g2", produced=50, sent=50),
            rollup(counted=90, duplicate=30, backfilled=10, dead_lettered=3, late=4, gaps=1),
            rollup("south", counted=20),
        ],
        on_log=2,
    )  # fmt: skip
    assert book.holds
    assert (book.produced, book.counted, book.duplicate) == (150, 110, 5)
    assert (book.backfilled, book.overflowed, book.dead_lettered) == (10, 10, 6)
    assert (book.in_flight, book.spooled, book.on_log, book.repeated) == (9, 7, 2, 30)


@pytest.mark.parametrize(("counted", "unexplained"), [(99, 1), (101, -1)])
def test_a_lost_or_doubled_reading_breaks_the_sum(counted: int, unexplained: int) -> None:
    book = reckon([edge(produced=100, sent=100), rollup(counted=counted)], on_log=0)
    assert (book.holds, book.unexplained) == (False, unexplained)


def test_a_city_that_never_ran_has_an_empty_book_that_holds() -> None:
    assert reckon([], 0).holds


def book(produced: int, counted: int, on_log: int = 0) -> Book:
    return reckon([edge(produced=produced), rollup(counted=counted)], on_log)


def test_books_of_a_running_city_agree_although_its_accounts_lag() -> None:
    first = book(produced=100, counted=120, on_log=5)  # the edge has not told its last yet
    assert not first.holds
    assert not agree(first, first)
    assert agree(first, book(produced=125, counted=140))


def test_a_loss_shows_between_two_books_of_a_running_city() -> None:
    lost = 50
    first = book(produced=1000, counted=940 - lost)
    assert not agree(first, book(produced=1010, counted=1015 - lost))
    doubled = book(produced=1000, counted=1000 + lost)
    assert not agree(doubled, book(produced=1010, counted=1012 + lost))
