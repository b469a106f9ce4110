"""An event loop without time: whatever is ready may run next, as the seed says.

Coroutines, tasks, futures and locks are asyncio's own, so what runs here is the engine's
code and not a model of it. Each callback belongs to a process (a context variable says to
which) or to the world outside. A dead process runs no more; a frozen one keeps what it was
about to do until it is woken.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from typing import Any


class Stalled(AssertionError):
    """Something waits for ever, or never comes to an end."""


class Process:
    """A process of the simulated machine room."""

    def __init__(self, name: str, world: Any) -> None:
        self.name, self.world = name, world
        self.dead = self.frozen = False
        self.parked: list[tuple[Any, ...]] = []
        self.producers: list[Any] = []
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, self)


OWNER: contextvars.ContextVar[Process | None] = contextvars.ContextVar("owner", default=None)


class Loop(asyncio.AbstractEventLoop):
    """Runs one ready callback after the other, drawn by `rng`, until none is left."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.steps = 0
        self._halted = False
        self._ready: list[tuple[Any, ...]] = []

    def call_soon(  # type: ignore[override]  # nobody here cancels a handle
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> None:
        if context is None:
            context = contextvars.copy_context()
        self._ready.append((context.get(OWNER), context, callback, args))

    def outside(self, callback: Callable[..., object], *args: Any) -> None:
        """Let the world (the network, a supervisor) do something sooner or later."""
        self._ready.append((None, _OUTSIDE, callback, args))

    def spawn(self, process: Process, work: Coroutine[Any, Any, object]) -> "asyncio.Task[object]":
        """A task of a process."""
        return asyncio.Task(work, loop=self, context=process.context.copy())

    def run(self, each: Callable[[], None], most: int = 200_000) -> None:
        """Until nothing is ready. each: called before every step. Raises Stalled."""
        ready, draw = self._ready, self.rng.random
        asyncio._set_running_loop(self)
        try:
            while ready and not self._halted:
                each()
                place = int(draw() * len(ready))
                item = ready[place]
                ready[place] = ready[-1]
                ready.pop()
                owner, context, callback, args = item
                if owner is not None:
                    if owner.dead:
                        continue
                    if owner.frozen:
                        owner.parked.append(item)
                        continue
                self.steps += 1
                if self.steps > most:
                    raise Stalled(f"no end after {most} steps")
                context.run(callback, *args)
        finally:
            asyncio._set_running_loop(None)

    @property
    def busy(self) -> bool:
        """Whether anything is ready."""
        return bool(self._ready)

    def halt(self) -> None:
        """Nothing more is to happen."""
        self._halted = True

    def wake(self, process: Process) -> None:
        """A frozen process goes on where it was."""
        process.frozen = False
        self._ready += process.parked
        process.parked = []

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        return asyncio.Task(coro, loop=self, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: Any) -> None:
        """Futures that nobody awaits any more belong to processes that have ended."""

    async def pause(self) -> None:
        """Let others go first."""
        future = self.create_future()
        self.call_soon(_set, future)
        await future


_OUTSIDE = contextvars.Context()


def _set(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_result(None)
