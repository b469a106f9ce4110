"""The worker: stages on Faust. This and `consumer` are the only modules that know it.

Faust gives partitions, rebalancing and a stream of messages; everything that must be exact
is the shell's. So Faust neither commits (a shell does, once its snapshot is durable) nor
decides where reading begins (the shells' states do), keeps no tables, declares no topics and
serves no web page. Its machinery costs a tenth of a millisecond a message, so what it carries
as one message is all that one fetch brought for a partition.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from citybrain import log, plan_keys, topics
from citybrain.city import City
from citybrain.clock import Clock
from citybrain.errors import BrokerError, CityBrainError
from citybrain.kafka import KafkaSettings, consumer_arguments, faust_broker
from citybrain.process import stop_event
from citybrain.stage import Record
from citybrain.streams import memory
from citybrain.streams.consumer import Consumer, Quiet
from citybrain.streams.metrics import WorkerMetrics
from citybrain.streams.outputs import Outputs
from citybrain.streams.present import Present
from citybrain.streams.shell import Shell
from citybrain.streams.snapshots import KafkaStore, prepare
from citybrain.streams.stages import STAGES
from citybrain.topics import TOPICS, full_name

TICK_S = 1.0
ANSWER_S = 2.0
AWAY_S = 5.0
FETCHED_BYTES = 4 << 20
BUFFERED_FETCHES = 2
"""What waits in a worker: so many fetches, each of so many bytes a partition or one record."""
OPENING_S = 80.0
"""Faust gives up seeking, without a word, 90 s after it has begun to wait for open states."""
BREATH_S = 0.005
"""After so long at the records of one fetch, everybody else has a turn."""

_log = log.get(__name__)


class Worker:
    """Runs stages of one city until it is stopped or something unexpected happens."""

    def __init__(
        self,
        city: City,
        settings: KafkaSettings,
        stages: Sequence[str],
        data: Path,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._city, self._settings, self._clock = city, settings, clock
        self._stages = {full_name(city.id, STAGES[name].topic): name for name in stages}
        self._fenced = frozenset(name for name, topic in TOPICS.items() if topic.compact)
        self._outputs = Outputs(settings, city.id, {"signal-plans": plan_keys.sealed(data)})
        self._metrics = metrics
        self.shells: dict[TP, Shell] = metrics.shells
        self._present: dict[TP, Present] = {}
        self._saving: set[asyncio.Task[None]] = set()
        self._waiting: set[Shell] = set()
        self._turn = asyncio.Lock()
        # Faust seeks while shells are still opening; it has to wait for what they find.
        self._settled = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._stopping = False
        self._failure: asyncio.Future[None] | None = None
        self._app = self._build(data)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then save and leave. Raises whatever went wrong."""
        self._failure = asyncio.get_running_loop().create_future()
        await self._outputs.start()
        ticking = asyncio.create_task(self._tick_for_ever())
        stopped = asyncio.create_task(stop.wait())
        try:
            await self._app.start()
            crashed = asyncio.create_task(self._app._crashed.wait())
            waits: list[asyncio.Future[Any]] = [self._failure, ticking, stopped, crashed]
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            if crashed in done:
                reason = self._app.crash_reason
                raise BrokerError(f"Faust has crashed: {reason!r}") from reason
            await self._leave()
        finally:
            self._stopping = True
            for task in (ticking, stopped, *self._saving):
                task.cancel()
        await self._app.stop()
        await self._outputs.stop()

    async def offsets(self, places: set[TP]) -> dict[TP, int]:
        """Where to read each of our partitions from, once their shells have opened."""
        await self._settled.wait()
        mine = {place: self.shells[place] for place in places if place in self.shells}
        starts = await self._app.consumer.earliest_offsets(*mine) if mine else {}
        return {place: max(starts[place], shell.next_offset or 0) for place, shell in mine.items()}

    def _build(self, data: Path) -> Any:
        broker = faust_broker(self._settings)
        credentials = (
            getattr(faust, broker.credentials)(**broker.arguments) if broker.credentials else None
        )
        folder = data / "faust"
        folder.mkdir(parents=True, exist_ok=True)
        app = faust.App(
            f"citybrain.{self._city.id}.worker",
            broker=broker.urls,
            broker_credentials=credentials,
            datadir=str(folder),
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=FETCHED_BYTES,
            stream_buffer_maxsize=BUFFERED_FETCHES,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            broker_session_timeout=15.0,
            broker_heartbeat_interval=3.0,
            Monitor=Quiet,
            value_serializer="raw",
            key_serializer="raw",
        )
        consumer = type("Consumer", (Consumer,), {"worker": self})
        transport = type("Transport", (driver.Transport,), {"Consumer": consumer})
        app.transport = transport(app.conf.broker_consumer, app)
        app.on_partitions_assigned.connect(_handler(self._assigned), weak=False)
        app.on_partitions_revoked.connect(_handler(self._revoked), weak=False)
        for topic, stage in self._stages.items():
            source = app.topic(topic, value_type=bytes, key_type=bytes, acks=False)
            app.agent(source, name=stage, concurrency=1)(self._agent(stage))
        app.finalize()
        return app

    def _agent(self, stage: str) -> Callable[[Any], AsyncIterator[None]]:
        def agent(stream: Any) -> AsyncIterator[None]:
            return self._work(stage, stream)

        return agent

    async def _work(self, stage: str, stream: Any) -> AsyncIterator[None]:
        topic = STAGES[stage].topic
        try:
            held = stream.noack()
            async for fetched in held:
                await self._take(topic, held.current_event.message.tp, fetched)
                yield
        except Exception as error:
            self._fail(error)
            raise

    async def _take(self, topic: str, place: TP, fetched: Sequence[ConsumerRecord]) -> None:
        """Records of one fetch, for as long as the partition stays ours."""
        shell, now = self.shells.get(place), asyncio.get_running_loop().time
        breath = now() + BREATH_S
        for one in fetched:
            async with self._turn:
                if shell is None or self._stopping or self.shells.get(place) is not shell:
                    return
                await shell.take(
                    Record(
                        topic, one.partition, one.offset, one.timestamp, one.value, one.key,
                        one.headers,
                    )
                )  # fmt: skip
            if now() > breath:
                self._save_when_due(shell)
                await asyncio.sleep(0)
                breath = now() + BREATH_S
        if shell is not None:
            self._save_when_due(shell)

    async def _assigned(self, assigned: set[TP]) -> None:
        """Begin to open what is new. The consumer sends no heartbeat before this returns, so
        whoever opened here for longer than a session would be put out and begin again."""
        new = [p for p in sorted(assigned) if p.topic in self._stages and p not in self.shells]
        self._metrics.opening = len(new)
        self._opening = asyncio.create_task(self._open(new))
        self._opening.add_done_callback(self._opened)

    async def _open(self, places: Sequence[TP]) -> None:
        try:
            async with asyncio.timeout(OPENING_S):
                await self._open_all(places)
        except TimeoutError as error:
            raise BrokerError(f"states did not open within {OPENING_S:.0f} s") from error

    async def _open_all(self, places: Sequence[TP]) -> None:
        begin = self._clock()
        shells = {place: self._shell(self._stages[place.topic], place) for place in places}
        stores = [store for _, store in shells.values()]
        try:
            await prepare(stores)
            for place, (shell, _) in shells.items():
                offset = await shell.open()
                self._present[place] = Present(patience_ms=STAGES[shell.name].patience_ms)
                _log.info("partition taken", stage=shell.name, partition=place.partition,
                          offset=offset)  # fmt: skip
            starts = await self._app.consumer.earliest_offsets(*places) if places else {}
            for place, (shell, _) in shells.items():
                shell.begin(starts[place])
        except BaseException:
            for store in stores:
                await store.close()
            raise
        self.shells.update({place: shell for place, (shell, _) in shells.items()})
        memory.settle()
        self._settled.set()
        self._metrics.assigned, self._metrics.opening = True, 0
        _log.info("partitions open", number=len(places), took_ms=self._clock() - begin)

    def _opened(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._fail(task.exception())

    def _shell(self, stage: str, place: TP) -> tuple[Shell, KafkaStore]:
        row = STAGES[stage]
        store = KafkaStore(self._settings, self._city.id, stage, place.partition)
        shell = Shell(
            stage,
            place.partition,
            partial(row.make, self._city, place.partition),
            store,
            self._outputs.publish,
            partial(self._app.consumer.acknowledge, place),
            self._clock,
            self._fenced,
            partial(self._look, place),
            row.snapshot_ms,
            self._metrics.timer(stage),
        )
        return shell, store

    async def _look(self, place: TP, start: int, end: int) -> tuple[int, int | None]:
        """See `shell.Look`. A reader of its own: Faust's has passed this place already."""
        reader = AIOKafkaConsumer(**consumer_arguments(self._settings))
        spot = TopicPartition(place.topic, place.partition)
        async with reader:
            first = (await reader.beginning_offsets([spot]))[spot]
            reader.assign([spot])
            reader.seek(spot, max(start, first))
            while await reader.position(spot) < end:
                for records in (await reader.getmany(timeout_ms=200, max_records=1)).values():
                    for record in records:
                        return first, record.offset if record.offset < end else None
        return first, None

    async def _revoked(self, revoked: set[TP]) -> None:
        """Save what is still ours; by the end of this the partitions may be another's."""
        self._settled.clear()
        self._metrics.revoked()
        await self._give_up_opening()
        try:
            async with self._turn:
                for place in sorted(revoked):
                    shell = self.shells.pop(place, None)
                    if shell is not None:
                        await shell.close()
                        _log.info("partition given back", stage=shell.name,
                                  partition=place.partition, offset=shell.saved_offset)  # fmt: skip
        except Exception as error:
            self._fail(error)
            raise

    async def _give_up_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            self._opening = None

    async def _leave(self) -> None:
        await self._give_up_opening()
        async with self._turn:
            self._stopping = True
            for shell in self.shells.values():
                await shell.close()

    async def _tick_for_ever(self) -> None:
        async with AIOKafkaConsumer(**consumer_arguments(self._settings)) as probe:
            while True:
                await asyncio.sleep(TICK_S)
                for shell in list(self.shells.values()):
                    self._save_when_due(shell)
                ends = await self._ends(probe, list(self.shells))
                if ends is None:
                    await asyncio.sleep(AWAY_S)
                    ends = {}
                for place, shell in list(self.shells.items()):
                    await self._tick(place, shell, ends.get(place))

    async def _ends(self, probe: AIOKafkaConsumer, places: list[TP]) -> Mapping[Any, int] | None:
        """Where the logs end now; None if the broker does not answer."""
        if not places:
            return {}
        spots = [TopicPartition(*place) for place in places]
        try:
            return dict(await asyncio.wait_for(probe.end_offsets(spots), ANSWER_S))
        except (KafkaError, TimeoutError):
            return None

    async def _tick(self, place: TP, shell: Shell, end: int | None) -> None:
        behind = None
        if end is not None:
            behind = await self._app.consumer.behind(place, shell.next_offset or 0, end)
            self._metrics.lags[place] = behind
        now = self._clock()
        present = self._present[place]
        if present.judge(now, behind, shell.record_ms):
            async with self._turn:
                if self.shells.get(place) is shell:
                    await shell.tick(now)

    def _save_when_due(self, shell: Shell) -> None:
        """Save now, or as soon as enough time has passed; what is saved comes by then."""
        wait_ms = shell.due_ms
        if wait_ms == 0:
            task = asyncio.create_task(shell.snapshot())
            self._saving.add(task)
            task.add_done_callback(partial(self._saved, shell))
        elif wait_ms is not None and shell not in self._waiting:
            self._waiting.add(shell)
            asyncio.get_running_loop().call_later(wait_ms / 1000, self._waited, shell)

    def _waited(self, shell: Shell) -> None:
        self._waiting.discard(shell)
        if not self._stopping and shell in self.shells.values():
            self._save_when_due(shell)

    def _saved(self, shell: Shell, task: "asyncio.Task[None]") -> None:
        self._saving.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())
        elif not self._stopping and shell in self.shells.values():
            self._save_when_due(shell)

    def _fail(self, error: BaseException | None) -> None:
        if error is not None and self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)


def _handler(of: Callable[[set[TP]], Awaitable[None]]) -> Any:
    """A signal's receiver: the sender and keywords of the signal are no news."""

    async def receive(_: Any, places: set[TP], **__: Any) -> None:
        await of(places)

    return receive


def run(
    city: City,
    settings: KafkaSettings,
    stages: Sequence[str],
    data: Path,
    clock: Clock,
    metrics: WorkerMetrics,
) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Ends the process at once when anything goes wrong: whatever is not durable by then is
    read again by the next one.
    """

    memory.keep()

    async def main() -> None:
        stop = stop_event()
        await topics.ensure(settings, city.id, city.partitions)
        await Worker(city, settings, stages, data, clock, metrics).run(stop)

    loop_factory = None if sys.platform == "win32" else _uvloop()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            runner.run(main())
        except Exception as error:  # noqa: BLE001  # the process ends with it
            _log.exception("worker ends", error=str(error))
            os._exit(error.exit_code if isinstance(error, CityBrainError) else 1)


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    # Faust's consumer thread makes its loop by the policy.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return uvloop.new_event_loop
