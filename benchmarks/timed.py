"""A worker that says where its CPU time went: `python -m benchmarks.timed OUT <worker options>`.

The functions of each part, and each task of the event loop by the package that it comes from,
are wrapped in a clock of the thread's CPU time; time within a part that another part takes is
the other's alone. It costs some 5 microseconds a message, which are in the figures. Totals go
to OUT as JSON when the worker stops: seconds by part from the first record to the last.
"""

import asyncio
import json
import sys
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import psutil

from citybrain import batch, stats
from citybrain.cli.worker import worker
from citybrain.models.windows import Windows
from citybrain.streams import app, consumer
from citybrain.streams.gateways import Gateways
from citybrain.streams.outputs import Outputs
from citybrain.streams.series import Series
from citybrain.streams.shell import Shell

BY_PACKAGE = (("/aiokafka/", "produce"), ("/faust/", "framework"), ("/mode/", "framework"))
FUNCTIONS: tuple[tuple[Any, str, str], ...] = (
    (batch, "decode", "decode"),
    (Gateways, "take", "de-duplicate, watermark"),
    (Gateways, "speak", "de-duplicate, watermark"),
    (Series, "screen", "screen"),
    (Windows, "add", "window add"),
    (Windows, "advance", "close"),
    (stats, "encode", "encode"),
)


class Parts:
    """Seconds of the main thread's CPU time by part; the rest of the loop is its own part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack = ["event loop"]
        self._since = 0.0
        self.records = 0
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def enter(self, part: str) -> None:
        """What follows belongs to `part`."""
        self._book()
        self._stack.append(part)

    def leave(self) -> None:
        """Back to the part before."""
        self._book()
        self._stack.pop()

    def took(self) -> None:
        """A record was taken; the first one begins the account."""
        if not self.records:
            self.seconds.clear()
            self._first = _threads()
        self.records += 1
        if self.records % 64 == 0:
            self._last = _threads()

    def fetched(self) -> float:
        """CPU seconds of the consumer's own thread meanwhile."""
        return self._last.get(CONSUMER[0], 0.0) - self._first.get(CONSUMER[0], 0.0)

    def _book(self) -> None:
        now = time.thread_time()
        part = self._stack[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


PARTS = Parts()
CONSUMER = [""]


def _threads() -> dict[str, float]:
    return {str(t.id): t.user_time + t.system_time for t in psutil.Process().threads()}


@types.coroutine
def _stepped(of: Coroutine[Any, Any, Any], part: str) -> Generator[Any, Any, Any]:
    step, argument = of.send, None
    while True:
        PARTS.enter(part)
        try:
            yielded = step(argument)
        except StopIteration as stop:
            return stop.value
        finally:
            PARTS.leave()
        try:
            argument = yield yielded
            step = of.send
        except BaseException as error:  # noqa: BLE001  # handed on to where it belongs
            step, argument = of.throw, error


def _tasks(loop: asyncio.AbstractEventLoop, of: Any, **more: Any) -> "asyncio.Task[Any]":
    file = getattr(getattr(of, "cr_code", None), "co_filename", "")
    part = next((name for package, name in BY_PACKAGE if package in file), "shell")

    async def run() -> Any:
        return await _stepped(of, part)

    task = asyncio.Task(run(), loop=loop, **more)
    # One that is cancelled before its first step would leave it unawaited.
    task.add_done_callback(lambda _: of.close() if hasattr(of, "close") else None)
    return task


def _timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        PARTS.enter(part)
        try:
            return function(*args, **kwargs)
        finally:
            PARTS.leave()

    return timed


def _wrap() -> None:
    for owner, name, part in FUNCTIONS:
        setattr(owner, name, _timed(getattr(owner, name), part))
    for owner, name, part in (
        (Outputs, "publish", "produce"), (Shell, "take", "shell"), (Shell, "snapshot", "snapshot"),
    ):  # fmt: skip
        function = getattr(owner, name)

        def stepped(*args: Any, of: Any = function, part: str = part, **kwargs: Any) -> Any:
            if part == "shell":
                PARTS.took()
            return _awaited(of(*args, **kwargs), part)

        setattr(owner, name, stepped)
    fetch = consumer.Thread._fetch_records

    async def fetching(self: Any, *args: Any, **kwargs: Any) -> Any:
        CONSUMER[0] = str(threading.get_native_id())
        return await fetch(self, *args, **kwargs)

    consumer.Thread._fetch_records = fetching  # type: ignore[method-assign]  # that is the purpose
    run = app.Worker.run

    async def running(self: app.Worker, stop: asyncio.Event) -> None:
        asyncio.get_running_loop().set_task_factory(_tasks)
        await run(self, stop)

    app.Worker.run = running  # type: ignore[method-assign]  # as above


async def _awaited(of: Coroutine[Any, Any, Any], part: str) -> Any:
    return await _stepped(of, part)


def main() -> None:
    """See the module."""
    out, city, data, broker, stages = sys.argv[1:]
    _wrap()
    worker(city=city, data=data, broker=broker, stages=stages, name="worker", port=0)
    parts = {"fetch": PARTS.fetched(), **PARTS.seconds}
    Path(out).write_text(json.dumps({"records": PARTS.records, "seconds": parts}))


if __name__ == "__main__":
    main()
