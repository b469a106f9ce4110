"""Gateways of a shard: which batches were had already, and what time everybody has passed."""

import heapq
from collections.abc import Mapping
from typing import Literal

import msgspec

from citybrain.batch import Idle, LeaveOut
from citybrain.errors import InvalidInput
from citybrain.sequences import Sequence

VERSION = 1
SILENT_INTERVALS = 3
"""A gateway that misses so many of its heartbeats is not waited for."""
MAX_INCARNATIONS = 16
OPEN = 2**62
MAX_AWAY = 32
"""Absences that are remembered: more than a day of windows needs."""
LIVE_MS = 3_600_000
"""A gateway whose watermark is within this of the broker's clock reports the present."""


class Gateway(msgspec.Struct, kw_only=True):
    """What is known of one gateway. heard_ms: the broker's clock when it spoke last."""

    version: int = VERSION
    incarnations: dict[str, Sequence] = {}
    watermark_ms: int | None = None
    heard_ms: int = 0
    interval_ms: int = 5_000
    left_out: bool = False
    away: list[tuple[int, int]] = []
    """Event times [from, to) for which it had said that it would be away; OPEN = still is."""


class Gateways:
    """All gateways of one shard that were ever heard, and the shard's watermark.

    ring_ms: gateway -> how far it may lag behind the first one and still be waited for.
    A gateway that was never heard is not waited for.
    """

    def __init__(self, ring_ms: Mapping[str, int]) -> None:
        self._ring_ms = ring_ms
        self._default_ring = min(ring_ms.values(), default=0)
        self.known: dict[str, Gateway] = {}
        self.watermark_ms: int | None = None
        self.idle_ms: int | None = None
        self.changed: set[str] = set()
        self._first = 0
        # (watermark, name), the slowest first; entries that are not true any more stay until
        # they come up, so that a message of one of many gateways costs next to nothing.
        self._queue: list[tuple[int, str]] = []

    def take(self, gateway: str, incarnation: str, seq: int) -> tuple[bool, int]:
        """Whether a batch is new; and how many numbers are newly missing (-1: one less)."""
        one = self._one(gateway)
        sequence = one.incarnations.get(incarnation)
        if sequence is None:
            kept = list(one.incarnations.items())[-(MAX_INCARNATIONS - 1) :]
            sequence = Sequence()
            one.incarnations = dict([*kept, (incarnation, sequence)])
        return sequence.take(seq)

    def leave(self, gateway: str) -> None:
        """A gateway that has just spoken says that it is being stopped: nobody waits for it, and
        its sensors' silence says nothing until it speaks again."""
        one = self._one(gateway)
        one.left_out = True
        if one.watermark_ms is not None and not (one.away and one.away[-1][1] == OPEN):
            one.away = [*one.away[-MAX_AWAY:], (one.watermark_ms, OPEN)]
        self._move()

    def absent(self, start_ms: int, end_ms: int) -> tuple[str, ...]:
        """Gateways that were away during some of [start_ms, end_ms), by name."""
        return tuple(
            sorted(
                name
                for name, one in self.known.items()
                if any(since < end_ms and start_ms < until for since, until in one.away)
            )
        )

    def speak(self, gateway: str, watermark_ms: int, at_ms: int, interval_ms: int = 0) -> None:
        """A gateway was heard: it sends nothing before `watermark_ms` any more."""
        one = self._one(gateway)
        if one.away and one.away[-1][1] == OPEN:
            one.away[-1] = (one.away[-1][0], max(watermark_ms, one.away[-1][0]))
        if one.watermark_ms is None or watermark_ms > one.watermark_ms:
            one.watermark_ms = watermark_ms
        one.heard_ms = max(one.heard_ms, at_ms)
        one.interval_ms = interval_ms or one.interval_ms
        one.left_out = False
        self._first = max(self._first, watermark_ms)
        self._place(gateway, one)
        self._move()

    def leave_out(self, record: LeaveOut, received_ms: int) -> None:
        """Do not wait for a gateway until it speaks.

        received_ms: the broker's time of the record. An owner whose clock is ahead takes
        everybody for silent; the broker's clock, by which they were heard, decides.
        """
        if record.gateway in self.known:
            one = self._one(record.gateway)
            # It may have spoken or caught up between the decision and its record.
            if record.reason == "silent":
                one.left_out = _is_silent(one, min(record.at_ms, received_ms))
            else:
                one.left_out = not self.waited_for(record.gateway)
            self._place(record.gateway, one)
            self._move()

    def idle(self, record: Idle, received_ms: int) -> None:
        """Nobody is left to wait for: time passes by itself, but not faster than the broker's
        clock, as above."""
        if all(one.left_out for one in self.known.values()):
            passed_ms = record.watermark_ms - max(0, record.at_ms - received_ms)
            self.idle_ms = max(passed_ms, self.idle_ms or passed_ms)
            self._move()

    def waited_for(self, gateway: str) -> bool:
        """Whether it holds the watermark: heard, not left out, not lagging."""
        one = self.known[gateway]
        return not (
            one.watermark_ms is None
            or one.left_out
            or one.watermark_ms < self._first - self.ring_ms(gateway)
        )

    def ring_ms(self, gateway: str) -> int:
        """How far a gateway may lag."""
        return self._ring_ms.get(gateway, self._default_ring)

    def proposals(self, shard: str, now_ms: int, step_ms: int) -> list[LeaveOut | Idle]:
        """What the clock asks for: gateways to leave out, or time to pass by itself.

        step_ms: shortest pane of the shard; time passes by whole ones.
        """
        asked: list[LeaveOut | Idle] = []
        for name, one in self.known.items():
            if one.left_out or one.watermark_ms is None:
                continue
            silent = _is_silent(one, now_ms)
            if silent or not self.waited_for(name):
                reason: Literal["silent", "lagging"] = "silent" if silent else "lagging"
                asked.append(LeaveOut(shard=shard, gateway=name, reason=reason, at_ms=now_ms))
        heard = [g for g in self.known.values() if g.watermark_ms is not None]
        if asked or not heard or any(not g.left_out for g in heard):
            return asked
        latest = max(heard, key=lambda g: (g.watermark_ms or 0, g.heard_ms))
        behind = latest.heard_ms - (latest.watermark_ms or 0)
        if abs(behind) > LIVE_MS:
            return []  # a recording that has ended: its time does not go on with ours
        target = (now_ms - behind) // step_ms * step_ms
        if self.watermark_ms is None or target >= self.watermark_ms + step_ms:
            return [Idle(shard=shard, watermark_ms=target, at_ms=now_ms)]
        return []

    def blocks(self) -> dict[str, bytes]:
        """Changed state, one small block a gateway."""
        names, self.changed = sorted(self.changed), set()
        return {f"gateway/{name}": msgspec.json.encode(self.known[name]) for name in names}

    def restore(self, name: str, block: bytes) -> None:
        """Take back one block; `settle` after the last. Raises InvalidInput `version`."""
        one = msgspec.json.decode(block, type=Gateway)
        if one.version != VERSION:
            raise InvalidInput("version", f"{name}: version: {one.version} is not {VERSION}")
        self.known[name.removeprefix("gateway/")] = one

    def _one(self, gateway: str) -> Gateway:
        self.changed.add(gateway)
        return self.known.setdefault(gateway, Gateway())

    def settle(self) -> None:
        """Order everybody anew, after a restore."""
        self._queue = []
        for name, one in self.known.items():
            self._place(name, one)
        self._first = max((mark for mark, _ in self._queue), default=0)
        self._move()

    def _place(self, name: str, one: Gateway) -> None:
        if one.watermark_ms is not None:
            heapq.heappush(self._queue, (one.watermark_ms, name))

    def _move(self) -> None:
        """The watermark: the slowest that is waited for, or the idle time; it never goes back."""
        queue = self._queue
        if len(queue) > 64 + 4 * len(self.known):
            queue[:] = sorted({(m, n) for m, n in queue if self.known[n].watermark_ms == m})
        while queue:
            mark, name = queue[0]
            if self.known[name].watermark_ms == mark and self.waited_for(name):
                break
            heapq.heappop(queue)
        passed = queue[0][0] if queue else self.idle_ms
        if passed is not None:
            self.watermark_ms = max(passed, self.watermark_ms or passed)


def _is_silent(gateway: Gateway, now_ms: int) -> bool:
    return now_ms - gateway.heard_ms > SILENT_INTERVALS * gateway.interval_ms
