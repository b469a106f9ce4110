"""One run of a city: start in order, watch, stop in order, report.

Order of stopping: the world first, then the edge agent once its spool is empty, then the
workers once they have counted all of that; so at the end nothing is in flight without a reason.
"""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import psutil
from prometheus_client import CollectorRegistry

from citybrain import ledger, log, pack, topics
from citybrain.broker import LocalBroker
from citybrain.city import City
from citybrain.errors import SetupError
from citybrain.kafka import KafkaSettings, kafka_settings
from citybrain.ledger import Book
from citybrain.process import running, stop_event
from citybrain.settings import Settings
from citybrain.up import launch, monitor
from citybrain.up.launch import Options, Plan
from citybrain.up.monitor import Seen, percentiles
from citybrain.up.report import Report, events, judge, neighbours
from citybrain.up.supervisor import Supervisor

DRAIN_S = 90.0
"""How long a stop waits for readings on their way before it reports them as in flight."""
STILL_S = 30.0
"""It waits no longer once none of them has moved for so long."""
TELL_S = 5.0

_log = log.get("up")


async def run(settings: Settings, options: Options, seconds: float | None) -> Report:
    """Run a city until SIGINT, SIGTERM or `seconds` have passed; everything is stopped then.

    Raises CityBrainError of whatever cannot start (pack, port, folder, broker).
    """
    log.configure("up")
    city = pack.load(settings.city)
    data = Path(settings.data).resolve()
    began = time.monotonic()
    stop = stop_event()
    launch.check(settings, options, city)
    with launch.only_one(data):
        async with _cluster(settings, data) as (kafka, broker_pid):
            await _check_topics(kafka, city)
            plan = launch.plan(settings, options, city, data, kafka)
            keeper, seen, memory = Supervisor(), Seen(), Memory()
            watcher = await _watch(kafka, city, seen) if options.watched else None
            sampler = asyncio.create_task(memory.sample(keeper, broker_pid))
            try:
                with running("up", data, CollectorRegistry(), keeper.health):
                    for child in plan.children:
                        await keeper.start(child)
                    if await _page(plan, keeper, stop):
                        devices = f"\nDevices send to {plan.edge}" if plan.edge else ""
                        tell(
                            f"{city.en}: {plan.page}{devices}\nCommands over HTTP take a token:"
                            f" citybrain token show --data {settings.data}"
                        )
                        with suppress(TimeoutError):
                            await asyncio.wait_for(stop.wait(), _left(began, seconds))
                    lasted = time.monotonic() - began
                    book = await _wind_down(keeper, kafka, city)
            finally:
                await keeper.stop_all()
                tasks = [task for task in (watcher, sampler) if task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
    return _report(city, data, seen, memory, keeper, book, lasted)


@asynccontextmanager
async def _cluster(
    settings: Settings, data: Path
) -> AsyncIterator[tuple[KafkaSettings, int | None]]:
    """The cluster that the settings name, or one of our own for as long as this lasts."""
    if settings.broker:
        yield kafka_settings(settings), None
        return
    _log.info("starting Apache Kafka", data=str(data / "kafka"))
    async with LocalBroker(data / "kafka") as broker:
        yield broker.settings, broker.pid()


async def _check_topics(kafka: KafkaSettings, city: City) -> None:
    await topics.ensure(kafka, city.id, city.partitions)
    for found in await topics.differences(kafka, city.id, city.partitions):
        _log.warning("topic differs from the table", **msgspec.to_builtins(found))


async def _watch(kafka: KafkaSettings, city: City, seen: Seen) -> asyncio.Task[None]:
    """Follow the outputs from now on; returns once nothing can be missed any more."""
    ready = asyncio.Event()
    watcher = asyncio.create_task(monitor.watch(kafka, city.id, seen, ready.set), name="monitor")
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({watcher, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if watcher.done():
        watcher.result()
    waiting.cancel()
    return watcher


async def _page(plan: Plan, keeper: Supervisor, stop: asyncio.Event) -> bool:
    """Wait until the page answers. False if we were told to stop before.

    Raises SetupError naming the process that cannot run.
    """
    while not stop.is_set():
        if failed := [child for child in keeper.children.values() if child.failed]:
            raise SetupError(f"{failed[0].name}: {failed[0].failed}")
        with socket.socket() as probe:
            if probe.connect_ex((launch.HOST, plan.page_port)) == 0:
                return True
        await asyncio.sleep(0.1)
    return False


def _left(began: float, seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, began + seconds - time.monotonic())


async def _wind_down(keeper: Supervisor, kafka: KafkaSettings, city: City) -> Book:
    """Stop what produces, wait until what it sent is counted, and read the accounts."""
    tell("stopping: readings on their way are counted first; Ctrl-C again stops at once")
    hurry = stop_event()
    await keeper.stop("world")
    await _settled(kafka, city, hurry, "in the edge agent's spool", lambda book: book.spooled)
    await keeper.stop("edge")
    book = await _settled(
        kafka, city, hurry, "not yet counted", lambda book: book.in_flight or int(not book.holds)
    )
    if book.in_flight:
        tell(f"stopped with {book.in_flight} readings in flight; the next start counts them")
    return book


async def _settled(
    kafka: KafkaSettings, city: City, hurry: asyncio.Event, what: str, left: Callable[[Book], int]
) -> Book:
    """The book once nothing is left; or as it is when nothing has moved for a while, patience
    ends, or somebody is in a hurry."""
    begin = moved = told = time.monotonic()
    least: int | None = None
    while True:
        book = await ledger.read(kafka, city.id, city.shards)
        number, now = left(book), time.monotonic()
        if number == 0:
            return book
        if least is None or number < least:
            least, moved = number, now
        if hurry.is_set() or now - moved > STILL_S or now - begin > DRAIN_S:
            return book
        if now - told > TELL_S:
            told = now
            tell(f"{number} readings {what}")
        await asyncio.sleep(0.5)


def tell(line: str) -> None:
    """A line for whoever sits at the terminal."""
    print(line, file=sys.stderr, flush=True)


class Memory:
    """The largest resident memory of each process, sampled every second. MB = 2**20 bytes."""

    def __init__(self) -> None:
        self.peak_mb: dict[str, float] = {}

    async def sample(self, keeper: Supervisor, broker_pid: int | None) -> None:
        """Look until cancelled; a child's own children (the simulated past) count with it."""
        while True:
            pids = {name: child.pid for name, child in keeper.children.items()}
            for name, pid in (pids | {"broker": broker_pid}).items():
                if pid is not None:
                    self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), _resident_mb(pid))
            await asyncio.sleep(1)


def _resident_mb(pid: int) -> float:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return round(sum(one.memory_info().rss for one in family) / 2**20, 1)
    except psutil.NoSuchProcess:  # it ended while we looked
        return 0.0


def _report(
    city: City, data: Path, seen: Seen, memory: Memory, keeper: Supervisor, book: Book,
    lasted: float,
) -> Report:  # fmt: skip
    begin_ms = min((child.started_ms for child in keeper.children.values()), default=0)
    return Report(
        city=city.id,
        generated=city.generated,
        seconds=round(lasted, 1),
        sum_holds=book.holds,
        produced=book.produced,
        counted=book.counted,
        duplicate=book.duplicate,
        backfilled=book.backfilled,
        overflowed=book.overflowed,
        dead_lettered=book.dead_lettered,
        in_flight=book.in_flight,
        stats=seen.counts["stats"],
        findings=seen.counts["findings"],
        forecasts=seen.counts["forecasts"],
        alerts=seen.counts["alerts"],
        latency_stat_ms=percentiles(seen.stat_ms),
        latency_alert_ms=percentiles(seen.alert_ms),
        first_stat_s=round((seen.first_stat_ms - begin_ms) / 1000, 1)
        if seen.first_stat_ms
        else None,
        peak_rss_mb=memory.peak_mb | {"all": round(sum(memory.peak_mb.values()), 1)},
        restarts={name: child.restarts for name, child in keeper.children.items()},
        failed={name: child.failed for name, child in keeper.children.items() if child.failed},
        watched=not seen.problems,
        watch_problems=dict(seen.problems),
        events=judge(
            (e for e in events(data) if e.to_ms > begin_ms), seen.findings, neighbours(city)
        ),
    )
