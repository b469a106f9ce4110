"""From the spool to Kafka: strictly in order, one chunk in memory, however long it takes.

A partition's messages go in one batch after the other, the next only when the last is
acknowledged, so a failure cannot let a later sequence number overtake an earlier one. After a
failure the same bytes go again; the engine refuses what it has by sequence number.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from citybrain import batch as readings_log
from citybrain import log
from citybrain.accounts import Account
from citybrain.batch import Batch, Heartbeat
from citybrain.clock import Clock
from citybrain.columns import Rosters
from citybrain.edge import journal
from citybrain.edge.frames import Entry
from citybrain.edge.intake import Intake
from citybrain.edge.journal import Ledger, Message, Party
from citybrain.edge.metrics import EdgeMetrics
from citybrain.edge.spool import Spool
from citybrain.edge.wires import Wire, abandon, send_lane
from citybrain.layout import Layout
from citybrain.topics import full_name

HEARTBEAT_MS = 2_000
ACCOUNTS_MS = 5_000
SAVE_MS = 1_000
_PATIENCE_MS = 3_000
_TRY_MS = 60_000
_BACK_OFF_S = (0.1, 0.3, 1.0, 3.0)

NewProducer = Callable[[], AIOKafkaProducer]


class Sender:
    """Drains one spool. pushed: which parties get heartbeats by the clock; the others' come
    from their recording, and are only repeated so that the engine knows that they live."""

    def __init__(
        self,
        city: str,
        layout: Layout,
        shards: dict[str, int],
        intake: Intake,
        spool: Spool,
        ledger: Ledger,
        clock: Clock,
        metrics: EdgeMetrics,
        new_producer: NewProducer,
        pushed: Callable[[], Sequence[Party]],
    ) -> None:
        self._city = city
        self._shards = shards
        self._ring = {k: int(layout.ring_ms[i]) for k, i in layout.kinds.items()}
        self._intake = intake
        self._spool = spool
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics
        self._new_producer = new_producer
        self._pushed = pushed
        self._rosters = Rosters()
        self._producer: AIOKafkaProducer | None = None
        self._told: dict[Party, dict[str, int]] = {}
        self._log = log.get("edge.sender")
        self.sent_ms = 0
        self.held_since_ms = 0
        self.failure = ""
        self._give_up: asyncio.Event | None = None
        self._chunk: list[Entry] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; then what is left, as far as Kafka takes it at once."""
        due = saved = told = 0
        try:
            while not stop.is_set():
                await self.drain(stop)
                now = self._clock()
                if now - due >= HEARTBEAT_MS and not stop.is_set():
                    due = now
                    await self._deliver(self._heartbeats(), stop)
                if now - told >= ACCOUNTS_MS and not stop.is_set():
                    told = now
                    await self._tell(stop)
                if now - saved >= SAVE_MS:
                    saved = now
                    await asyncio.to_thread(self._save)
                await self._wait(stop, HEARTBEAT_MS / 4000)
        finally:
            await self._close()

    async def finish(self, timeout_s: float = 10) -> None:
        """Send what is stored and the last accounts, if Kafka takes them in time."""
        self._give_up = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self.drain(self._give_up)
                await self._deliver(self._heartbeats(leaving=True), self._give_up)
                await self._tell(self._give_up)
        except TimeoutError:
            self._log.warning("left in the spool", readings=self.backlog)
        finally:
            await self._close()

    @property
    def backlog(self) -> int:
        """Readings stored and not yet sent."""
        return sum(books.spooled for books in self._ledger.parties.values())

    async def drain(self, stop: asyncio.Event) -> None:
        """Send everything that is stored, or until told to stop."""
        while not stop.is_set():
            self._intake.stored.clear()
            if not self._chunk:
                self._chunk = await asyncio.to_thread(self._spool.read)
                self._note_damage()
            entries = self._chunk
            if not entries:
                return
            messages = [journal.decode(entry.payload) for entry in entries]
            batches = [self._aged(m) for m in messages if isinstance(m, Message)]
            wires = [
                (full_name(self._city, m.topic), m.partition, m.key, m.value, m.readings)
                for m in batches
            ]
            # Cut short by `stop`: the chunk stays, for `finish` or for a next start.
            if not await self._deliver(wires, stop):
                return
            for message in batches:
                self._ledger.sent(message)
                if message.topic == "readings" and message.readings:
                    self._metrics.sent.labels(message.lane).inc(message.readings)
            self._spool.acknowledge(entries[-1].index)
            self._chunk = []
            self.sent_ms = self._clock()

    def _aged(self, message: Message) -> Message:
        """A device's batch that waited until it was older than its ring goes to backfill."""
        if not message.pushed or message.lane != "live" or message.seq < 0:
            return message
        if self._clock() - message.newest_ms <= self._ring.get(message.kind, 0):
            return message
        item = readings_log.decode(message.value, self._rosters)
        assert isinstance(item, Batch)
        head = msgspec.structs.replace(item.head, lane="backfill")
        old = Batch(head, item.roster, item.codes, item.time_ms, item.value, item.quality)
        return msgspec.structs.replace(message, value=readings_log.encode(old), lane="backfill")

    def _heartbeats(self, leaving: bool = False) -> list[Wire]:
        now = self._clock()
        pushed = set(self._pushed())
        beats = []
        current = self._intake.watermark_ms()
        recorded = [p for p in self._ledger.parties if p[0] in self._ledger.cursors]
        for party in sorted(pushed or recorded):
            incarnation, gateway, shard = party
            books = self._ledger.books(party)
            if pushed and not books.spooled:
                books.watermark_ms = max(books.promised_ms(now), current)
                books.sent_watermark_ms = books.watermark_ms
            elif pushed and books.sent_watermark_ms > now:
                continue  # said under a wrong clock; the next one is said when all is sent
            elif not books.sent_watermark_ms:
                continue
            beat = Heartbeat(
                gateway=gateway, incarnation=incarnation, shard=shard, sent_ms=now,
                watermark_ms=books.sent_watermark_ms, interval_ms=3 * HEARTBEAT_MS,
                counts=books.account(), leaving=leaving,
            )  # fmt: skip
            topic = full_name(self._city, "readings")
            value = readings_log.encode_control(beat)
            beats.append((topic, self._shards[shard], shard.encode(), value, 0))
        return beats

    async def _tell(self, stop: asyncio.Event) -> None:
        """Send the accounts that have changed since they were last told."""
        now = self._clock()
        topic = full_name(self._city, "accounts")
        changed: dict[Party, dict[str, int]] = {}
        wires: list[Wire] = []
        for party, books in sorted(self._ledger.parties.items()):
            counts = books.account()
            if self._told.get(party) == counts:
                continue
            changed[party] = counts
            incarnation, gateway, shard = party
            name = f"edge/{gateway}/{incarnation}"
            account = Account(party=name, shard=shard, at_ms=now, counts=counts)
            wires.append((topic, 0, f"{name}/{shard}".encode(), msgspec.json.encode(account), 0))
        if await self._deliver(wires, stop):
            self._told |= changed

    async def _deliver(self, wires: Sequence[Wire], stop: asyncio.Event) -> bool:
        """Send records, in order within each partition; False if `stop` came first."""
        lanes: dict[tuple[str, int], list[Wire]] = defaultdict(list)
        for wire in wires:
            lanes[wire[:2]].append(wire)
        for tries in range(10**9):
            stopped = asyncio.ensure_future(stop.wait())
            sending = asyncio.ensure_future(self._send(lanes))
            try:
                for wait_ms in (_PATIENCE_MS, _TRY_MS - _PATIENCE_MS):
                    await asyncio.wait(
                        (stopped, sending),
                        return_when=asyncio.FIRST_COMPLETED,
                        timeout=wait_ms / 1000,
                    )
                    if stopped.done() or sending.done():
                        break
                    self._hold(f"no answer for {wait_ms / 1000:g} s")
                if not sending.done():
                    raise TimeoutError(f"no answer within {_TRY_MS} ms")
                sending.result()
            except (KafkaError, OSError, TimeoutError) as error:
                if stop.is_set():
                    return False
                await self._failed(error)
                await self._wait(stop, _BACK_OFF_S[min(tries, len(_BACK_OFF_S) - 1)], False)
            else:
                if self.held_since_ms:
                    held_s = (self._clock() - self.held_since_ms) / 1000
                    self._log.info("broker is back", after_s=round(held_s))
                self.held_since_ms, self.failure = 0, ""
                return True
            finally:
                for task in (stopped, sending):
                    task.cancel()
                await asyncio.gather(stopped, sending, return_exceptions=True)
        return False

    def _hold(self, why: str) -> None:
        """Kafka does not take what it is given: say so once."""
        self.failure = why
        if not self.held_since_ms:
            self.held_since_ms = self._clock()
            self._log.warning("broker away, spooling", why=why)

    async def _failed(self, error: BaseException) -> None:
        self._metrics.send_failures.inc()
        self._hold(f"{type(error).__name__}: {error}")
        await self._close()
        if self._give_up:
            self._give_up.set()

    async def _send(self, lanes: dict[tuple[str, int], list[Wire]]) -> None:
        if self._producer is None:
            producer = self._new_producer()
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        producer = self._producer
        # What is delivered leaves its lane, so that it is not sent again if another lane fails.
        lots = [send_lane(producer, *place, lane) for place, lane in lanes.items()]
        for result in await asyncio.gather(*lots, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon(producer)

    async def _wait(self, stop: asyncio.Event, seconds: float, for_data: bool = True) -> None:
        waits = [asyncio.ensure_future(stop.wait())]
        if for_data:
            waits.append(asyncio.ensure_future(self._intake.stored.wait()))
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _save(self) -> None:
        try:
            self._spool.save_position()
        except OSError as error:
            self._log.warning("position not saved", why=str(error))

    def _note_damage(self) -> None:
        if self._spool.unreadable:
            self._log.error("spool entries unreadable", entries=self._spool.unreadable)
            self._metrics.damaged.inc(self._spool.unreadable)
            self._spool.unreadable = 0
