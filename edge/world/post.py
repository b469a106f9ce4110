"""How the devices send: each gateway posts its readings to the edge agent, in order, and again.

A gateway keeps what the agent has not taken yet, up to a bound; beyond it the oldest batch is
given up and counted. Nothing is sent twice in another form: a retry is the same bytes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from citybrain import log
from citybrain.clock import Clock, wall_clock
from citybrain.edge.world.faults import Reading
from citybrain.errors import SetupError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
# Refused for good: these bytes will never be taken, whoever waits.
FINAL = frozenset({400, 404, 405, 413, 415, 422})

_log = log.get(__name__)


class Wire(msgspec.Struct, frozen=True):
    """A reading as devices send it: time in UTC ms."""

    sensor: str
    kind: str
    time: int
    value: float


class Batch(msgspec.Struct, frozen=True):
    """What one request carries."""

    body: bytes
    readings: int
    through_ms: int


class Counts(msgspec.Struct):
    """The source's own account: produced = acknowledged + refused + given_up + pending."""

    produced: int = 0
    acknowledged: int = 0
    refused: int = 0
    given_up: int = 0
    pending: int = 0


@dataclass(slots=True)
class _Gateway:
    name: str
    token: str
    waiting: deque[Batch] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Post:
    """All gateways of a city. `put` is called from the loop that `run` runs on."""

    def __init__(
        self, url: str, tokens: Mapping[str, str], registry: CollectorRegistry, *,
        lane: str = "live", bound: int = 20_000, clock: Clock = wall_clock,
    ) -> None:  # fmt: skip
        self._url = url.rstrip("/") + "/readings"
        self._query = {} if lane == "live" else {"lane": lane}
        self._bound = bound
        self._gateways = {name: _Gateway(name, token) for name, token in tokens.items()}
        self._settled = asyncio.Event()
        self.counts = Counts()
        self._clock = clock
        self.reached_ms = clock()
        self._fates = Counter(
            "citybrain_world_readings", "Readings of the simulated devices by fate.",
            ["lane", "fate"], registry=registry,
        )  # fmt: skip
        self._lane = lane
        Gauge(
            "citybrain_world_pending_readings", "Readings that the edge agent has not taken yet.",
            ["lane"], registry=registry,
        ).labels(lane).set_function(lambda: self.counts.pending)  # fmt: skip

    def stalled(self) -> bool:
        """Whether readings wait and none has been taken for half a minute."""
        return self.counts.pending > 0 and self._clock() - self.reached_ms > 30_000

    def put(self, gateway: str, readings: Sequence[Reading]) -> None:
        """Send these soon. Raises SetupError if the gateway has no token."""
        if gateway not in self._gateways:
            raise SetupError(f"tokens: gateway {gateway!r} has none")
        body = msgspec.json.encode([Wire(*reading) for reading in readings])
        batch = Batch(body, len(readings), max(r[2] for r in readings))
        self._count("produced", len(readings))
        self._add(self._gateways[gateway], batch)

    def _add(self, gateway: _Gateway, batch: Batch) -> None:
        self.counts.pending += batch.readings
        gateway.waiting.append(batch)
        # The first one may be on its way just now, so the second is the oldest to give up.
        while len(gateway.waiting) > 2 and sum(b.readings for b in gateway.waiting) > self._bound:
            given_up = gateway.waiting[1]
            del gateway.waiting[1]
            self._done("given_up", given_up)
        gateway.wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with (
            httpx.AsyncClient(timeout=15.0, limits=httpx.Limits(max_connections=8)) as client,
            asyncio.TaskGroup() as group,
        ):
            for gateway in self._gateways.values():
                group.create_task(self._serve(client, gateway))

    async def drained(self, given_up: Callable[[], bool] = lambda: False) -> None:
        """Return when nothing waits any more, or waiting is given up."""
        while self.counts.pending and not given_up():
            self._settled.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), 0.5)

    def leave(self, path: Path) -> None:
        """Keep what was not taken for the next start (`take_up`), whole or not at all."""
        kept = {g.name: list(g.waiting) for g in self._gateways.values() if g.waiting}
        if kept:
            path.with_suffix(".tmp").write_bytes(msgspec.msgpack.encode(kept))
            path.with_suffix(".tmp").replace(path)

    def take_up(self, path: Path) -> None:
        """Send what an earlier run left."""
        if path.is_file():
            kept = msgspec.msgpack.decode(path.read_bytes(), type=dict[str, list[Batch]])
            for name, batches in kept.items():
                for batch in batches:
                    self._count("produced", batch.readings)
                    self._add(self._gateways[name], batch)
            path.unlink()

    async def _serve(self, client: httpx.AsyncClient, gateway: _Gateway) -> None:
        wait = FIRST_WAIT_S
        while True:
            while not gateway.waiting:
                gateway.wake.clear()
                await gateway.wake.wait()
            batch = gateway.waiting[0]
            why, pause = await self._send(client, gateway, batch)
            if why in ("acknowledged", "refused"):
                gateway.waiting.popleft()
                self._done(why, batch)
                wait = FIRST_WAIT_S
                continue
            await asyncio.sleep(pause or wait)
            wait = min(LONGEST_WAIT_S, wait * 2)

    async def _send(
        self, client: httpx.AsyncClient, gateway: _Gateway, batch: Batch
    ) -> tuple[str, float]:
        """The batch's fate, or why it must wait and for how long (0: the usual back-off)."""
        headers = {
            "authorization": f"Bearer {gateway.token}", "content-type": "application/json",
        }  # fmt: skip
        try:
            answer = await client.post(
                self._url, params=self._query, content=batch.body, headers=headers
            )
        except httpx.TransportError as error:
            return repr(error), 0.0
        if answer.is_success:
            self.reached_ms = self._clock()
            return "acknowledged", 0.0
        if answer.status_code in FINAL:
            _log.warning("refused", gateway=gateway.name, status=answer.status_code,
                         readings=batch.readings, answer=answer.text[:500])  # fmt: skip
            return "refused", 0.0
        if answer.status_code == 429:
            wait = answer.headers.get("retry-after", "")
            return "full", float(wait) if wait.isdigit() else 0.0
        if answer.status_code in (401, 403):
            _log.warning("token not accepted", gateway=gateway.name, status=answer.status_code)
            return "token", LONGEST_WAIT_S
        return str(answer.status_code), 0.0

    def _done(self, fate: str, batch: Batch) -> None:
        self.counts.pending -= batch.readings
        self._count(fate, batch.readings)
        if not self.counts.pending:
            self._settled.set()

    def _count(self, fate: str, readings: int) -> None:
        setattr(self.counts, fate, getattr(self.counts, fate) + readings)
        self._fates.labels(self._lane, fate).inc(readings)
