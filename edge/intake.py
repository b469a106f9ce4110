"""Where all sources meet: judge, merge into batches, store, and only then say yes.

One loop takes everything that came within the linger, judges it in one pass (`merge`), and
stores it with one fsync; then each request hears what became of its readings. While a store
is under way the next requests gather, so a flood makes batches larger, not the queue longer.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from citybrain import log
from citybrain.batch import Batch, Heartbeat
from citybrain.clock import Clock
from citybrain.edge import fates, forms, journal
from citybrain.edge.journal import Ledger, Tally
from citybrain.edge.merge import Lane, Merged, Merger, Outcome, Request
from citybrain.edge.metrics import EdgeMetrics
from citybrain.edge.spool import Dropped, Put, Spool, SpoolFull
from citybrain.edge.validate import Candidates, Validator
from citybrain.errors import InvalidInput

Policy = Literal["drop-oldest", "refuse-newest"]

_TOTALS_ROOM = 64 << 10
_FLUSH_ROWS = 200_000
_URGENT_ROWS = 1_000

_NOTHING = Outcome(0, 0, 0, ())


@dataclass(slots=True, eq=False)
class _Offer:
    """A request, or what needs no judging, and who waits for it.

    failure: what the one who waits is told once `ready` is stored, instead of an outcome.
    """

    request: Request | None
    ready: Merged | None
    rows: int
    done: "asyncio.Future[Outcome]"
    failure: InvalidInput | None = None


class Intake:
    """The one door. max_delay_ms: how late devices usually deliver (see `watermark_ms`)."""

    def __init__(
        self,
        validator: Validator,
        spool: Spool,
        ledger: Ledger,
        clock: Clock,
        metrics: EdgeMetrics,
        policy: Policy = "drop-oldest",
        linger_ms: int = 100,
        max_delay_ms: int = 5_000,
        pending_bytes: int = 32 << 20,
    ) -> None:
        self.layout = validator.layout
        self.spool = spool
        self.ledger = ledger
        self.stored = asyncio.Event()
        self.pending_bytes = 0
        self.stored_ms = 0
        self.broken = False
        self._validator = validator
        self._merger = Merger(validator, ledger, max_delay_ms)
        self._metrics = metrics
        self._clock = clock
        self._policy = policy
        self._linger = linger_ms / 1000
        self._max_delay_ms = max_delay_ms
        self._pending_limit = pending_bytes
        self._queue: list[_Offer] = []
        self._working: list[_Offer] = []
        self._rows = 0
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        self._log = log.get("edge.intake")

    async def take(
        self, gateway: str, body: bytes, form: str, lane: Lane, sensor: str = ""
    ) -> Outcome:
        """Read, judge and store what one gateway sent; returns when it is on the disk.

        sensor: it may speak of this one alone. Raises InvalidInput if nothing of it can be read
        (its dead letter is on the disk then), SpoolFull if it cannot be stored.
        """
        try:
            rows = self._read(gateway, body, form)
        except InvalidInput as error:
            await self.refuse(gateway, error, body)
            raise
        if sensor:
            other = rows.sensor != self.layout.sensors.get(sensor, -1)
            rows.wrong[other & (rows.wrong == fates.ACCEPTED)] = fates.GATEWAY
        return await self.offer(gateway, rows, lane, body)

    def _read(self, gateway: str, body: bytes, form: str) -> Candidates:
        try:
            return forms.parse(body, form, self.layout)
        except InvalidInput:
            raise
        except Exception as error:
            # A hole in our own reading: whoever found it must not end the agent for the others.
            self._log.exception("unreadable", gateway=gateway, form=form, size=len(body))
            raise unreadable(error) from error

    async def offer(self, gateway: str, rows: Candidates, lane: Lane, body: bytes = b"") -> Outcome:
        """Judge and store readings of one gateway; returns when they are on the disk.

        body: where they come from, for a dead letter if they cannot be judged at all (then it
        raises InvalidInput). Raises SpoolFull if they cannot be stored: none of them is.
        """
        return await self._put(Request(gateway, rows, lane, self._clock(), body), None, len(rows))

    async def refuse(self, gateway: str, error: InvalidInput, body: bytes) -> None:
        """Store a dead letter for a body that cannot be read at all. Raises SpoolFull."""
        now = self._clock()
        letter = self._merger.refused(gateway, error.reason, str(error), body, now)
        await self._put(None, letter, 1)

    async def put_recorded(self, items: Sequence[tuple[int, Batch | Heartbeat]]) -> None:
        """Store a recording's items (with their numbers in it) as they are. Raises SpoolFull."""
        await self._put(None, self._merger.recorded(items, self._clock()), _URGENT_ROWS)

    def reserve(self, size: int) -> None:
        """Take memory for a body before reading it; `release` gives it back.

        Raises SpoolFull if so much more may not wait.
        """
        if self.pending_bytes + size > self._pending_limit:
            self._metrics.refused_requests.labels("memory").inc()
            raise SpoolFull(f"intake: {self.pending_bytes} bytes are waiting to be stored already")
        self.pending_bytes += size

    def release(self, size: int) -> None:
        """Give back what `reserve` took."""
        self.pending_bytes -= size

    def watermark_ms(self) -> int:
        """Nothing that arrives from now on, at most max_delay after its event, lies before."""
        waiting = [o.request.received_ms for o in (*self._working, *self._queue) if o.request]
        return min([self._clock(), *waiting]) - self._max_delay_ms

    async def run(self) -> None:
        """Take, judge, store, answer; for ever."""
        while True:
            await self._arrived.wait()
            if not self._urgent.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), self._linger)
            self._take()
            try:
                await self._store()
            except SpoolFull as error:
                self._log.warning("refused", why=str(error))
                self._metrics.refused_requests.labels("spool").inc(len(self._working))
                for offer in self._working:
                    _fail(offer.done, error)
            except BaseException as error:
                self.broken = not isinstance(error, asyncio.CancelledError)
                for offer in (*self._working, *self._queue):
                    _fail(offer.done, error)
                raise
            finally:
                self._working = []

    async def _put(self, request: Request | None, ready: Merged | None, rows: int) -> Outcome:
        offer = _Offer(request, ready, rows, asyncio.get_running_loop().create_future())
        self._queue.append(offer)
        self._rows += rows
        self._arrived.set()
        if self._rows >= _URGENT_ROWS:
            self._urgent.set()
        return await offer.done

    def _take(self) -> None:
        rows = taken = 0
        for offer in self._queue:
            rows += offer.rows
            if taken and rows > _FLUSH_ROWS:
                break
            taken += 1
        self._working, self._queue = self._queue[:taken], self._queue[taken:]
        self._rows = sum(offer.rows for offer in self._queue)
        if not self._queue:
            self._arrived.clear()
        if self._rows < _URGENT_ROWS:
            self._urgent.clear()

    async def _store(self) -> None:
        merged = self._judge(self._clock())
        for offer in self._working:
            if offer.ready:
                merged.add(offer.ready)
        puts = [journal.put(message) for message in merged.messages]
        dropping = self._make_room(sum(len(put.payload) for put in puts) + _TOTALS_ROOM)
        try:
            await self._append(puts, merged, dropping)
        except SpoolFull:
            # The disk is full before the bound is: what is oldest goes before it is said.
            dropping = dropping or self.spool.oldest_droppable()
            if self._policy != "drop-oldest" or not dropping:
                raise
            self.spool.discard(dropping)
            await self._append(puts, merged, dropping)
        self.ledger.commit(merged.messages, merged.changes, merged.seqs)
        if merged.judged:
            self._validator.remember(*merged.judged)
        for (kind, what), n in merged.kinds.items():
            self._metrics.readings.labels(kind, what).inc(n)
        self.stored_ms = self._clock()
        self.stored.set()
        outcomes = iter(merged.outcomes)
        for offer in self._working:
            outcome = next(outcomes) if offer.request else _NOTHING
            if offer.failure:
                _fail(offer.done, offer.failure)
            elif not offer.done.done():
                offer.done.set_result(outcome)

    def _judge(self, now: int) -> Merged:
        """All requests in one go; one on which our own code fails is refused by itself."""
        try:
            return self._merger.merge([o.request for o in self._working if o.request], now)
        except Exception:  # noqa: BLE001 - logged, and told to whom it concerns
            self._log.exception("judging failed: now one request after the other")
        for offer in self._working:
            if request := offer.request:
                try:
                    self._merger.merge([request], now)
                except Exception as error:  # noqa: BLE001 - as above
                    failure = unreadable(error)
                    offer.request, offer.failure = None, failure
                    offer.ready = self._merger.refused(
                        request.gateway, failure.reason, str(failure), request.body, now
                    )
        return self._merger.merge([o.request for o in self._working if o.request], now)

    def _make_room(self, size: int) -> list[Dropped]:
        dropping = self.spool.make_room(size)
        if dropping and self._policy == "refuse-newest":
            raise SpoolFull(f"spool: {self.spool.size_bytes} of {self.spool.max_bytes} bytes used")
        return dropping

    async def _append(self, puts: list[Put], merged: Merged, dropping: list[Dropped]) -> None:
        """Store messages and the books they change; what gives way is told in the same append,
        so that a crash cannot take the gap for damage."""
        changes = {party: Counter(more) for party, more in merged.changes.items()}
        for dropped in dropping:
            for tally, n in dropped.tally.items():
                if isinstance(tally, Tally) and tally.counts:
                    changes.setdefault(tally.party, Counter())["overflowed"] += n
        gaps = self.ledger.gaps_after(self.spool.saved)
        gaps += [(dropped.first, dropped.last) for dropped in dropping]
        head = [journal.put(self.ledger.whole(gaps))] if self.spool.at_segment_start else []
        tail = journal.put(self.ledger.totals(merged.messages, changes, merged.seqs, gaps))
        began = time.perf_counter()
        await asyncio.to_thread(self.spool.append, [*head, *puts, tail], dropping)
        self._metrics.store_seconds.observe(time.perf_counter() - began)
        merged.changes = changes
        self.ledger.gaps = gaps
        for dropped in dropping:
            for tally, n in dropped.tally.items():
                if isinstance(tally, Tally):
                    self._metrics.overflowed.labels(tally.kind).inc(n)
                    if tally.counts:
                        self.ledger.books(tally.party).spooled -= n


def unreadable(error: Exception) -> InvalidInput:
    """What a sender is told of a body on which our own code failed."""
    what = f"{type(error).__name__}: {error}"
    return InvalidInput("unreadable", f"body: cannot be read ({what}); it is kept and looked into")


def _fail(done: "asyncio.Future[Any]", error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # seen, even if the one who asked has gone
