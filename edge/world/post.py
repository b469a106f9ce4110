"""How the devices send: each gateway posts its readings to the edge agent, in order, and again.

A gateway keeps what the agent has not taken yet, up to a bound; beyond it the oldest batch is
given up and counted. Nothing is sent twice in another form: a retry is the same bytes.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiomqtt
import httpx
import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from citybrain import log
from citybrain.clock import Clock, wall_clock
from citybrain.edge.world.faults import Reading
from citybrain.errors import SetupError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
# Gateways whose devices speak MQTT where there is a broker for it.
BY_MQTT = frozenset({"weather"})
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


class _Answer(msgspec.Struct):
    """What an agent says of a body that it could read."""

    refused: int


class _Later(Exception):
    """Try again, after so many seconds (0: after the usual wait)."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


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
        mqtt: tuple[str, int] | None = None,
    ) -> None:  # fmt: skip
        self._url = url.rstrip("/") + "/readings"
        self._query = {} if lane == "live" else {"lane": lane}
        self._bound = bound
        self._mqtt = mqtt
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
            self._done("given_up", given_up.readings)
        gateway.wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with (
            httpx.AsyncClient(timeout=15.0, limits=httpx.Limits(max_connections=8)) as client,
            asyncio.TaskGroup() as group,
        ):
            for gateway in self._gateways.values():
                if self._mqtt and gateway.name in BY_MQTT:
                    group.create_task(self._publish(*self._mqtt, gateway))
                else:
                    group.create_task(self._serve(gateway, partial(self._send, client, gateway)))

    async def drained(self, given_up: Callable[[], bool] = lambda: False) -> None:
        """Return when nothing waits any more, or waiting is given up."""
        while self.counts.pending and not given_up():
            self._settled.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), 0.5)

    def leave(self, path: Path) -> None:
        """Keep what is not taken yet for the next start (`take_up`), whole or not at all.

        Sent again, these are the same bytes: an agent that has them already refuses repeats.
        """
        kept = {g.name: list(g.waiting) for g in self._gateways.values() if g.waiting}
        if kept:
            path.with_suffix(".tmp").write_bytes(msgspec.msgpack.encode(kept))
            path.with_suffix(".tmp").replace(path)
        else:
            path.unlink(missing_ok=True)

    def take_up(self, path: Path) -> None:
        """Send what an earlier run left."""
        if path.is_file():
            kept = msgspec.msgpack.decode(path.read_bytes(), type=dict[str, list[Batch]])
            for name, batches in kept.items():
                for batch in batches:
                    self._count("produced", batch.readings)
                    self._add(self._gateways[name], batch)

    async def _publish(self, host: str, port: int, gateway: _Gateway) -> None:
        """As `_serve`, by MQTT with quality of service 1; a lost connection is made again."""
        leaf = "readings" if self._lane == "live" else self._lane
        topic, wait = f"citybrain/{gateway.name}/{leaf}", FIRST_WAIT_S

        async def send(batch: Batch) -> int:
            await client.publish(topic, batch.body, qos=1)
            self.reached_ms = self._clock()
            return 0

        while True:
            try:
                async with aiomqtt.Client(host, port) as client:
                    wait = FIRST_WAIT_S
                    await self._serve(gateway, send)
            except aiomqtt.MqttError as error:
                _log.warning("mqtt broker away", host=host, port=port, why=str(error))
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT_S, wait * 2)

    async def _serve(self, gateway: _Gateway, send: Callable[[Batch], Awaitable[int]]) -> None:
        """Send what waits, one after the other; `send` says how many were refused for good."""
        wait = FIRST_WAIT_S
        while True:
            while not gateway.waiting:
                gateway.wake.clear()
                await gateway.wake.wait()
            batch = gateway.waiting[0]
            try:
                refused = await send(batch)
            except _Later as later:
                await asyncio.sleep(later.seconds or wait)
                wait = min(LONGEST_WAIT_S, wait * 2)
                continue
            gateway.waiting.popleft()
            self._done("refused", refused)
            self._done("acknowledged", batch.readings - refused)
            wait = FIRST_WAIT_S

    async def _send(self, client: httpx.AsyncClient, gateway: _Gateway, batch: Batch) -> int:
        """How many of its readings were refused for good. Raises _Later to try again."""
        headers = {
            "authorization": f"Bearer {gateway.token}", "content-type": "application/json",
        }  # fmt: skip
        try:
            answer = await client.post(
                self._url, params=self._query, content=batch.body, headers=headers
            )
        except httpx.TransportError as error:
            raise _Later(0) from error
        status = answer.status_code
        if status == 429:
            wait = answer.headers.get("retry-after", "")
            raise _Later(float(wait) if wait.isdigit() else 0)
        if status in (401, 403):
            _log.warning("token not accepted", gateway=gateway.name, status=status)
            raise _Later(LONGEST_WAIT_S)
        if not answer.is_success and status not in FINAL:
            raise _Later(0)
        self.reached_ms = self._clock()
        refused = _refused(answer, batch)
        if refused:
            _log.warning("refused", gateway=gateway.name, status=status, readings=refused,
                         answer=answer.text[:500])  # fmt: skip
        return refused

    def _done(self, fate: str, readings: int) -> None:
        self.counts.pending -= readings
        self._count(fate, readings)
        if not self.counts.pending:
            self._settled.set()

    def _count(self, fate: str, readings: int) -> None:
        setattr(self.counts, fate, getattr(self.counts, fate) + readings)
        self._fates.labels(self._lane, fate).inc(readings)


def _refused(answer: httpx.Response, batch: Batch) -> int:
    """As the agent's answer says; one that says nothing took all, or none."""
    try:
        return msgspec.json.decode(answer.content, type=_Answer).refused
    except msgspec.MsgspecError:
        return 0 if answer.is_success else batch.readings
