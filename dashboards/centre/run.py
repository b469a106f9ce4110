"""The centre's process: feed, stream, server and Prometheus' targets, until told to stop."""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvicorn
from prometheus_client import CollectorRegistry

from citybrain import log
from citybrain.city import City
from citybrain.clock import Clock
from citybrain.commands import Answers
from citybrain.dashboards.centre.alert_view import AlertView
from citybrain.dashboards.centre.desk import Desk
from citybrain.dashboards.centre.feed import Feed
from citybrain.dashboards.centre.metrics import CentreMetrics
from citybrain.dashboards.centre.past import past_share
from citybrain.dashboards.centre.ring import Ring
from citybrain.dashboards.centre.series import History
from citybrain.dashboards.centre.server import HOSTS, Centre, application
from citybrain.dashboards.centre.state import CityState
from citybrain.dashboards.prometheus.targets import write_targets
from citybrain.errors import SetupError
from citybrain.kafka import KafkaSettings
from citybrain.people import People, owner_name
from citybrain.process import Health, running, stop_event

FLUSH_S = 0.4
PULSE_MS = 2_000
TARGETS_S = 5.0
STALLED_MS = 30_000

_logger = log.get(__name__)


class _Server(uvicorn.Server):
    """Leaves signals to us: one SIGTERM ends all tasks in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    city: City,
    data: Path,
    kafka: KafkaSettings,
    clock: Clock,
    port: int = 0,
    listen: str = "127.0.0.1",
    names: tuple[str, ...] = HOSTS,
) -> None:
    """Serve the page of a city until SIGTERM or SIGINT.

    The address is logged and stands in `<data>/centre/page.json`. Raises SetupError if the
    port is taken or the data folder cannot be written.
    """
    try:
        door = socket.create_server((listen, port))
    except OSError as error:
        raise SetupError(
            f"port: {listen}:{port} for the page: {error.strerror or error}; name another with"
            " --port, or 0 for any that is free"
        ) from error
    url = f"http://127.0.0.1:{door.getsockname()[1]}/"
    registry = CollectorRegistry()
    metrics = CentreMetrics(registry)
    state = CityState(city)
    alerts = AlertView(data / "centre" / "alerts.sqlite")
    answers = Answers()
    feed = Feed(kafka, state, alerts, metrics, answers, clock)
    desk = Desk(kafka, city.id, answers, clock)
    people = People(data)
    people.owner_token(owner_name(), clock())
    ring = Ring(secrets.token_hex(4))
    metrics.watch_alerts(state.active)

    def health() -> Health:
        stalled = clock() - feed.polled_ms > STALLED_MS
        waiting = state.waiting or ("broker" if stalled else "")
        return Health(
            ok=state.ready and not waiting,
            waiting=waiting,
            progress_ms=feed.polled_ms,
            facts={"page": url, "event": ring.last_id},
        )

    centre = Centre(
        city, state, ring, alerts, History(data / "history"), metrics, clock, health, desk, people
    )
    server = _Server(
        uvicorn.Config(
            application(centre, names),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
            server_header=False,
            timeout_keep_alive=30,
        )
    )
    page = data / "centre" / "page.json"
    stop = stop_event()
    with running("centre", data, registry, health):
        page.write_text(json.dumps({"url": url}))
        _logger.info("the page is at", url=url)
        try:
            async with asyncio.TaskGroup() as tasks:
                web = tasks.create_task(server.serve([door]))
                others = [
                    tasks.create_task(feed.run()),
                    tasks.create_task(_flush(state, ring, metrics, clock)),
                    tasks.create_task(_look_around(data, state)),
                ]
                await stop.wait()
                await ring.close()
                server.should_exit = True
                await web
                for task in others:
                    task.cancel()
        finally:
            await desk.close()
            page.unlink(missing_ok=True)
            alerts.close()


async def _flush(state: CityState, ring: Ring, metrics: CentreMetrics, clock: Clock) -> None:
    """Put what changed on the stream, a few times a second, for all pages at once."""
    ready = False
    last_ms = 0
    while True:
        now_ms = clock()
        event = None
        if state.ready:
            changes = state.changes(now_ms)
            # After catching up everything may have changed: one event that says all.
            event = changes if ready else state.snapshot(now_ms)
        ready = state.ready
        if event is None and now_ms - last_ms >= PULSE_MS:
            event = state.pulse(now_ms)
        if event is not None:
            last_ms = now_ms
            await ring.append(msgspec.json.encode(event))
            metrics.events.inc()
            for fate, readings in event.figures.counts.items():
                metrics.accounts.labels(fate).set(readings)
            metrics.unexplained.set(state.book().unexplained)
            for shard, through_ms in state.through_ms().items():
                metrics.data_age.labels(shard).set((now_ms - through_ms) / 1000)
        await asyncio.sleep(FLUSH_S)


async def _look_around(data: Path, state: CityState) -> None:
    while True:
        write_targets(data)
        state.past = past_share(data)
        await asyncio.sleep(TARGETS_S)
