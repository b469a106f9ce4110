"""The event stream's memory: the latest events, so that a page that was cut off misses none."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

EVENTS = 600
BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its number counts from 1; `data` is one line of JSON."""

    number: int
    data: bytes


class Ring:
    """Events of one run of the server, numbered; readers hold a number and no queue.

    boot: names this run. An id is `<boot>-<number>`, so that an id of an earlier run is never
    mistaken for one of this.
    """

    def __init__(self, boot: str, events: int = EVENTS, size: int = BYTES) -> None:
        self._boot = boot
        self._limit = events
        self._room = size
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._last = 0
        self._news = asyncio.Condition()
        self._closed = False

    @property
    def last_id(self) -> str:
        """The id of the newest event, of number 0 before there is any."""
        return self.id_of(self._last)

    def id_of(self, number: int) -> str:
        """The id that an event of this run has on the stream."""
        return f"{self._boot}-{number}"

    async def append(self, data: bytes) -> None:
        """Add an event and wake the readers. The oldest ones leave when there is no room."""
        self._last += 1
        self._events.append(Event(self._last, data))
        self._bytes += len(data)
        while len(self._events) > self._limit or (
            self._bytes > self._room and len(self._events) > 1
        ):
            self._bytes -= len(self._events.popleft().data)
        async with self._news:
            self._news.notify_all()

    async def close(self) -> None:
        """End all readers."""
        self._closed = True
        async with self._news:
            self._news.notify_all()

    def number_of(self, event_id: str) -> int | None:
        """The number in an id, None if nothing can be resumed from there."""
        boot, _, number = event_id.rpartition("-")
        if boot != self._boot or not (number.isascii() and number.isdecimal()):
            return None
        return int(number) if self._holds_after(int(number)) else None

    async def follow(self, number: int, quiet_s: float) -> AsyncIterator[Event | None]:
        """Events after `number`, for ever; None after `quiet_s` seconds without one.

        Ends when the ring closes, or when the reader fell so far behind that it would miss one.
        """
        while not self._closed and self._holds_after(number):
            fresh = self._after(number)
            if not fresh:
                try:
                    async with asyncio.timeout(quiet_s), self._news:
                        while not self._closed and self._last <= number:
                            await self._news.wait()
                except TimeoutError:
                    yield None
                continue
            for event in fresh:
                yield event
                number = event.number

    def _holds_after(self, number: int) -> bool:
        first = self._events[0].number if self._events else self._last + 1
        return first - 1 <= number <= self._last

    def _after(self, number: int) -> list[Event]:
        missing = self._last - number
        return list(self._events)[len(self._events) - missing :] if missing else []
