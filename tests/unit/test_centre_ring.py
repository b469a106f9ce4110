"""The event stream's memory: no page ever misses an event without being told."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain.dashboards.centre.ring import Ring


async def _take(ring: Ring, number: int, count: int) -> list[bytes]:
    got: list[bytes] = []
    if count == 0:
        return got
    async for event in ring.follow(number, quiet_s=1):
        if event is not None:
            got.append(event.data)
            if len(got) == count:
                break
    return got


@given(events=st.integers(0, 40), limit=st.integers(1, 10), seen=st.integers(0, 40))
def test_a_reconnecting_page_gets_each_missed_event_once_or_is_told_to_reload(
    events: int, limit: int, seen: int
) -> None:
    async def run() -> None:
        ring = Ring("boot", events=limit)
        for number in range(events):
            await ring.append(b"%d" % number)
        at = ring.number_of(ring.id_of(seen))
        if at is None:
            assert seen > events or events - seen > limit
        else:
            assert await _take(ring, at, events - seen) == [b"%d" % n for n in range(seen, events)]

    asyncio.run(run())


async def test_a_page_that_is_connected_gets_the_next_event_at_once() -> None:
    ring = Ring("boot")
    reader = asyncio.create_task(_take(ring, 0, 2))
    await asyncio.sleep(0)
    await ring.append(b"a")
    await ring.append(b"b")
    assert await asyncio.wait_for(reader, 10) == [b"a", b"b"]


async def test_a_page_that_falls_behind_is_let_go_instead_of_missing_events() -> None:
    ring = Ring("boot", events=3)
    await ring.append(b"0")
    stream = ring.follow(0, quiet_s=1)
    first = await anext(stream)
    assert first is not None
    assert first.data == b"0"
    for number in range(1, 9):
        await ring.append(b"%d" % number)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_memory_is_bounded_by_bytes_as_well() -> None:
    ring = Ring("boot", events=1000, size=100)
    for _ in range(50):
        await ring.append(b"x" * 40)
    assert ring.number_of(ring.id_of(48)) == 48
    assert ring.number_of(ring.id_of(40)) is None


@pytest.mark.parametrize("text", ["", "other-3", "boot-", "boot-x", "boot--1", "boot-²", "boot-99"])
async def test_ids_of_another_run_or_nonsense_lead_to_a_reload(text: str) -> None:
    ring = Ring("boot")
    for _ in range(5):
        await ring.append(b"x")
    assert ring.number_of(text) is None


async def test_streams_end_when_the_server_stops() -> None:
    ring = Ring("boot")
    reader = asyncio.create_task(_take(ring, 0, 1))
    await asyncio.sleep(0)
    await ring.close()
    assert await asyncio.wait_for(reader, 10) == []


async def test_a_quiet_stream_says_that_it_is_alive() -> None:
    ring = Ring("boot")
    async for event in ring.follow(0, quiet_s=0.01):
        assert event is None
        break
