"""What every process of citybrain does alike: logs, /metrics, /health, a run file, signals."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, make_wsgi_app

from citybrain import log
from citybrain.clock import wall_clock
from citybrain.errors import SetupError, UsageError


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a process makes progress (not merely lives), and what it waits for if not.

    ok: it did its work lately, or has none. waiting: what it waits for, in words.
    progress_ms: wall clock of the last piece of work, 0 for none yet.
    """

    ok: bool
    waiting: str = ""
    progress_ms: int = 0
    facts: dict[str, float | int | str] = {}


@dataclass(frozen=True, slots=True)
class RunFile:
    """What `<data>/run/<process>.json` says of a living process."""

    process: str
    pid: int
    port: int
    started_ms: int


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""


def metrics_door(text: str) -> tuple[str, int]:
    """Address and port in `ADDRESS:PORT`; 127.0.0.1 and any free one for "".

    Raises UsageError.
    """
    address, _, port = (text or "127.0.0.1:0").rpartition(":")
    if not (address and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"CITYBRAIN_METRICS: {text!r}: expected ADDRESS:PORT")
    return address, int(port)


@contextmanager
def running(
    process: str,
    data: Path | None,
    registry: CollectorRegistry,
    health: Callable[[], Health],
    port: int = 0,
) -> Iterator[RunFile]:
    """While this lasts: logs are set up, /metrics and /health are served on 127.0.0.1 (port 0
    takes a free one), and the run file says so (with `data` None there is none).

    `CITYBRAIN_METRICS=ADDRESS:PORT` puts them elsewhere: in a container, another one scrapes.
    Every process tells its memory, CPU and start time, and whether its health is well.

    /health answers 200 or 503 with the JSON of `Health`.
    Raises SetupError if the port is taken or the folder cannot be written.
    """
    log.configure(process)
    metrics = make_wsgi_app(registry)
    healthy = Gauge(
        "citybrain_healthy", "1 while /health answers that work goes on.", registry=None
    )
    healthy.set_function(lambda: float(health().ok))
    ours = (ProcessCollector(registry=None), healthy)
    address, told = metrics_door(os.environ.get("CITYBRAIN_METRICS", ""))
    port = port or told

    def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/health":
            return cast(Iterable[bytes], metrics(environ, start))
        state = health()
        start("200 OK" if state.ok else "503 Service Unavailable",
              [("Content-Type", "application/json; charset=utf-8")])  # fmt: skip
        return [msgspec.json.encode(state)]

    try:
        server = make_server(address, port, serve, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise SetupError(f"port: {address}:{port} for /metrics of {process}: {error}") from error
    for collector in ours:
        registry.register(collector)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    run = RunFile(process, os.getpid(), int(server.server_port), wall_clock())
    path = data / "run" / f"{process}.json" if data else None
    try:
        if path:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(asdict(run)))
            except OSError as error:
                raise SetupError(f"data: {path}: {error}") from error
        yield run
    finally:
        server.shutdown()
        server.server_close()
        for collector in ours:
            registry.unregister(collector)
        if path:
            path.unlink(missing_ok=True)


def living(data: Path) -> list[RunFile]:
    """The run files of processes that live, by name; files of dead ones are passed over."""
    found = []
    for path in sorted((data / "run").glob("*.json")):
        run = RunFile(**json.loads(path.read_text()))
        try:
            os.kill(run.pid, 0)
        except ProcessLookupError:
            continue
        found.append(run)
    return found


def stop_event() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event
