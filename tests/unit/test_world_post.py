"""How simulated devices send: in order, again, bounded, and every reading counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from citybrain.edge.world.faults import Reading
from citybrain.edge.world.post import Counts, Post
from citybrain.errors import SetupError
from tests.receiver import Receiver


def some(first: int, count: int = 3) -> list[Reading]:
    return [("d1", "vehicle_count", 10_000 * k, float(k)) for k in range(first, first + count)]


def make(url: str, **options: object) -> Post:
    return Post(url, {"g1": "t1", "g2": "t2"}, CollectorRegistry(), **options)  # type: ignore[arg-type]  # as Post says


@asynccontextmanager
async def sending(post: Post) -> AsyncIterator[None]:
    task = asyncio.create_task(post.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # what it waits for has no event
            await asyncio.sleep(0.01)


def balanced(counts: Counts) -> bool:
    whole = counts.acknowledged + counts.refused + counts.given_up + counts.pending
    return counts.produced == whole


async def test_a_gateways_readings_arrive_in_order_under_its_own_token() -> None:
    with Receiver().serving() as receiver:
        post = make(receiver.url)
        async with sending(post):
            for k in range(20):
                post.put("g1", some(3 * k))
            post.put("g2", some(100))
            await post.drained()
    mine = [r for _, token, batch in receiver.requests if token == "Bearer t1" for r in batch]
    assert [r["time"] for r in mine] == [10_000 * k for k in range(60)]
    assert [len(b) for _, token, b in receiver.requests if token == "Bearer t2"] == [3]
    assert post.counts == Counts(produced=63, acknowledged=63)


async def test_an_agent_that_is_away_gets_the_same_bytes_when_it_is_back() -> None:
    away = Receiver()
    port = int(away.url.rpartition(":")[2])
    with away.serving():
        pass
    post = make(away.url)
    async with sending(post):
        post.put("g1", some(0))
        await asyncio.sleep(0.3)
        assert post.counts == Counts(produced=3, pending=3)
        with Receiver(port).serving() as receiver:
            await post.drained()
    assert receiver.readings() == some(0)
    assert post.counts == Counts(produced=3, acknowledged=3)


@pytest.mark.parametrize("status", [429, 500, 503, 408])
async def test_an_agent_that_cannot_take_it_now_is_asked_again(status: int) -> None:
    with Receiver().serving() as receiver:
        receiver.answers = [(status, {"retry-after": "0"}, b""), (status, {}, b"")]
        post = make(receiver.url)
        async with sending(post):
            post.put("g1", some(0))
            await post.drained()
    assert receiver.readings() == some(0)
    assert post.counts == Counts(produced=3, acknowledged=3)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_what_is_refused_for_good_is_counted_and_does_not_block_the_rest(
    status: int,
) -> None:
    with Receiver().serving() as receiver:
        receiver.answers = [(status, {}, b'{"error": "x", "message": "y"}')]
        post = make(receiver.url)
        async with sending(post):
            post.put("g1", some(0))
            post.put("g1", some(3))
            await post.drained()
    assert receiver.readings() == some(3)
    assert post.counts == Counts(produced=6, acknowledged=3, refused=3)


async def test_single_readings_that_an_agent_refused_are_counted() -> None:
    with Receiver().serving() as receiver:
        receiver.answers = [(202, {}, b'{"accepted": 2, "duplicate": 0, "refused": 1}')]
        post = make(receiver.url)
        async with sending(post):
            post.put("g1", some(0))
            await post.drained()
    assert post.counts == Counts(produced=3, acknowledged=2, refused=1)


async def test_a_long_absence_costs_a_bounded_buffer_and_says_what_it_cost() -> None:
    closed = Receiver()
    with closed.serving():
        pass
    post = make(closed.url, bound=30)
    async with sending(post):
        for k in range(100):
            post.put("g1", some(3 * k))
        await asyncio.sleep(0.1)
        counts = post.counts
        assert counts.pending <= 30
        assert counts.given_up == 300 - counts.pending
        assert balanced(counts)


async def test_readings_not_yet_taken_survive_a_restart(tmp_path: Path) -> None:
    closed = Receiver()
    with closed.serving():
        pass
    before = make(closed.url)
    before.put("g1", some(0))
    before.put("g2", some(5))
    before.leave(tmp_path / "unsent")
    with Receiver().serving() as receiver:
        after = make(receiver.url)
        after.take_up(tmp_path / "unsent")
        async with sending(after):
            await after.drained()
        after.leave(tmp_path / "unsent")
    assert sorted(receiver.readings()) == sorted(some(0) + some(5))
    assert not (tmp_path / "unsent").exists()


async def test_it_says_when_nobody_takes_its_readings() -> None:
    now = [0]
    with Receiver().serving() as receiver:
        post = make(receiver.url, clock=lambda: now[0])
        async with sending(post):
            post.put("g1", some(0))
            await post.drained()
            assert not post.stalled()
            receiver.answers = [(503, {}, b"")] * 10_000
            post.put("g1", some(3))
            now[0] = 31_000
            assert post.stalled()
            receiver.answers = []
            await until(lambda: not post.stalled())


def test_a_gateway_without_a_token_is_named() -> None:
    with pytest.raises(SetupError, match="gateway 'g9' has none"):
        make("http://127.0.0.1:1").put("g9", some(0))
