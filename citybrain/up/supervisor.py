"""Keeps child processes running: restarts with back-off, stops in order, leaves none behind."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from citybrain import log
from citybrain.clock import wall_clock
from citybrain.process import Health

BACK_OFF_MS = (1_000, 2_000, 5_000, 10_000, 30_000)
STEADY_MS = 60_000
"""A child that lived so long is forgiven its earlier crashes."""

_PR_SET_PDEATHSIG = 1

OFTEN = 3
"""A child that was started again so often, and not lately ran steadily, is not well."""


@dataclass(slots=True)
class Child:
    """A process to keep alive. `argv` is run as it stands, its output goes to `log_file`."""

    name: str
    argv: Sequence[str]
    log_file: Path
    environment: dict[str, str] = field(default_factory=dict)
    grace_ms: int = 20_000
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None
    started_ms: int = 0
    failed: str = ""

    @property
    def pid(self) -> int | None:
        """Process id while it lives."""
        alive = self.process is not None and self.process.returncode is None
        return self.process.pid if alive and self.process else None


def command(*words: str) -> list[str]:
    """The argv of a citybrain command under this very interpreter."""
    return [sys.executable, "-m", "citybrain", *words]


class Supervisor:
    """Starts children and starts them again when they end by themselves.

    A child that ends with a code of `final` is not started again: it said that trying again
    is no use (wrong settings, a bad pack).
    """

    def __init__(self, final: Sequence[int] = (2, 3, 4)) -> None:
        self.children: dict[str, Child] = {}
        self._final = frozenset(final)
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._log = log.get("supervisor")

    async def start(self, child: Child) -> None:
        """Start a child and watch it until `stop`."""
        self.children[child.name] = child
        await self._spawn(child)
        self._watchers[child.name] = asyncio.create_task(
            self._watch(child), name=f"watch {child.name}"
        )

    async def stop(self, name: str) -> int | None:
        """SIGTERM, then SIGKILL after the child's grace. Returns its exit code."""
        watcher = self._watchers.pop(name, None)
        if watcher:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        child = self.children.get(name)
        if child is None or child.process is None:
            return None
        process = child.process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), child.grace_ms / 1000)
            except TimeoutError:
                self._log.error("killed", child=name, after_ms=child.grace_ms)
                child.failed = f"did not stop within {child.grace_ms} ms"
                process.kill()
                await process.wait()
        return process.returncode

    async def stop_all(self) -> None:
        """Stop in the reverse order of starting."""
        for name in reversed(list(self.children)):
            await self.stop(name)

    def health(self) -> Health:
        """Well while every child lives, and none keeps ending soon after its start."""
        children = list(self.children.values())
        failed = [f"{child.name} {child.failed}" for child in children if child.failed]
        failed += [
            f"{child.name} keeps ending; see {child.log_file}"
            for child in children
            if child.restarts >= OFTEN and wall_clock() - child.started_ms < STEADY_MS
        ]
        restarts = {f"{child.name}_restarts": child.restarts for child in children}
        return Health(
            ok=not failed,
            waiting="; ".join(failed),
            progress_ms=max((child.started_ms for child in children), default=0),
            facts={name: number for name, number in restarts.items() if number},
        )

    async def _spawn(self, child: Child) -> None:
        child.log_file.parent.mkdir(parents=True, exist_ok=True)
        with child.log_file.open("ab") as output:
            child.process = await asyncio.create_subprocess_exec(
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | child.environment,
                preexec_fn=_child_of(os.getpid()),
                # Ctrl-C in the terminal reaches the supervisor alone, which stops in order.
                start_new_session=True,
            )
        child.started_ms = wall_clock()
        self._log.info("started", child=child.name, pid=child.process.pid)

    async def _spawned(self, child: Child) -> bool:
        """Start it again; False, and said, if the system has nothing left to start it with."""
        try:
            await self._spawn(child)
        except OSError as error:
            child.failed = f"cannot be started: {error}"
            self._log.error("cannot be started", child=child.name, error=str(error))
            return False
        child.failed = ""
        return True

    async def _watch(self, child: Child) -> None:
        crashes = 0
        while child.process is not None:
            code = await child.process.wait()
            if code in self._final:
                said = _last_line(child.log_file)
                child.failed = f"ended with exit code {code}: {said}; see {child.log_file}"
                self._log.error("gave up", child=child.name, code=code, log=str(child.log_file))
                return
            if wall_clock() - child.started_ms > STEADY_MS:
                crashes = 0
            wait_ms = BACK_OFF_MS[min(crashes, len(BACK_OFF_MS) - 1)]
            crashes += 1
            child.restarts += 1
            self._log.warning("ended", child=child.name, code=code, again_in_ms=wait_ms)
            await asyncio.sleep(wait_ms / 1000)
            # The system sends no event when it has processes or files to give again.
            while not await self._spawned(child):  # noqa: ASYNC110
                await asyncio.sleep(BACK_OFF_MS[-1] / 1000)


def _last_line(path: Path) -> str:
    """The last line of a log, at most 300 characters of it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:  # the exit code is told all the same
        lines = []
    return lines[-1].strip()[:300] if lines else "no output"


def _child_of(parent: int) -> Callable[[], None]:
    """What the child does before it runs: see to it that it dies with the supervisor.

    Without this a supervisor that is killed with SIGKILL leaves its children behind. Linux
    only; elsewhere the children stay, and the next start names them by the run files.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return prepare
