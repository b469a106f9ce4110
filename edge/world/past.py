"""The past: days that nobody lived through, simulated at full speed in a process of its own.

Full microsimulation, as the living world; its readings take the backfill lane. It goes on
where it was stopped: what is done, the simulator's state there, and readings that the agent
has not taken yet are kept at every flush.
"""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Gauge

from citybrain.city import City
from citybrain.clock import wall_clock
from citybrain.edge.world.faults import Reading
from citybrain.edge.world.folder import Folder, Span, gaps, joined, write
from citybrain.edge.world.options import Options
from citybrain.edge.world.post import Post
from citybrain.edge.world.streets import INTERVAL_S
from citybrain.edge.world.world import World
from citybrain.pack import load
from citybrain.process import Health, running, stop_event

FLUSH_S = 1800
SLICE_S = 60
WARM_UP_S = 240
NICE = 15


class _Job(msgspec.Struct):
    """What the child process is told."""

    city: str
    data: str
    edge: str
    seed: int
    from_ms: int
    to_ms: int
    share: float
    by_chance: bool


class PastProcess:
    """The child that fills the days before `to_ms`. End it before the data folder is left."""

    def __init__(self, city: City, options: Options, to_ms: int) -> None:
        whole = INTERVAL_S * 1000
        from_ms = to_ms - round(options.days * 86_400_000 / whole) * whole
        job = _Job(
            str(city.folder), str(options.data), options.edge, options.seed, from_ms, to_ms,
            options.past_share, options.given is None,
        )  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "citybrain.edge.world.past", msgspec.json.encode(job).decode()]
        )

    def end(self) -> None:
        """Stop it; what it has not flushed is simulated again, the same, next time."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Past:
    """One run over the open times of a job, oldest first."""

    def __init__(self, job: _Job, city: City, registry: CollectorRegistry) -> None:
        self._job, self._city = job, city
        self._folder = Folder(Path(job.data) / "world")
        self._unsent = self._folder.path / "unsent-past.msgpack"
        gateways = sorted({s.gateway for s in city.sensors.values()})
        tokens = self._folder.tokens(gateways, Path(job.data), wall_clock())
        self.post = Post(job.edge, tokens, registry, lane="backfill", bound=10_000_000)
        self._lived = self._folder.spans()
        self._progress = self._folder.progress()
        self._progress.from_ms, self._progress.to_ms = job.from_ms, job.to_ms
        self._parent = os.getppid()
        self._stop = stop_event()
        Gauge(
            "citybrain_world_past_done_ratio", "Of the simulated past, what is done.",
            registry=registry,
        ).set_function(self._done)  # fmt: skip

    def health(self) -> Health:
        """Progress means that the edge agent takes what is simulated."""
        stalled = self.post.stalled()
        return Health(
            ok=not stalled, waiting="the edge agent" if stalled else "",
            progress_ms=self.post.reached_ms, facts={"done": round(self._done(), 3)},
        )  # fmt: skip

    async def run(self) -> None:
        """Until all is done, or somebody says stop, or the parent is gone."""
        self.post.take_up(self._unsent)
        await self.post.drained(self._stopped)
        for gap in self._open():
            self._keep(gap[0])
            await self._fill(gap)
        self._keep(self._progress.through_ms)

    def _open(self) -> list[Span]:
        whole = (self._job.from_ms, self._job.to_ms)
        return gaps(whole, [*self._lived, *self._progress.done])

    def _done(self) -> float:
        left = sum(end - start for start, end in self._open())
        return 1.0 - left / max(1, self._job.to_ms - self._job.from_ms)

    def _stopped(self) -> bool:
        return self._stop.is_set() or os.getppid() != self._parent

    async def _fill(self, gap: Span) -> None:
        if self._stopped():
            return
        start, end = gap[0] // 1000, gap[1] // 1000
        saved = self._folder.state(start)
        state, begin = saved or (None, start - WARM_UP_S)
        by_chance = self._job.by_chance
        world = World(self._city, self._job.seed, begin, state=state, by_chance=by_chance)
        try:
            while world.second < start:
                world.step()
            while world.second < end and not self._stopped():
                await self._flush(world, min(end, world.second + FLUSH_S))
        finally:
            world.close()

    async def _flush(self, world: World, until: int) -> None:
        """Simulate until then, keep it and that it is done, and have it all taken."""
        begun = world.second
        sent: dict[str, list[Reading]] = {}
        while world.second < until:
            busy = time.process_time()
            for _ in range(min(SLICE_S, until - world.second)):
                for gateway, readings in world.step().items():
                    sent.setdefault(gateway, []).extend(readings)
            rest = (time.process_time() - busy) * (1 / self._job.share - 1)
            await asyncio.sleep(rest)
            if self._stopped():
                return
        for gateway, readings in sent.items():
            self.post.put(gateway, readings)
        # From here on these readings exist, taken or not: simulated again they would differ.
        self.post.leave(self._unsent)
        world.save(self._folder.state_file(until))
        self._progress.done = joined([*self._progress.done, (begun * 1000, until * 1000)])
        self._progress.readings += sum(map(len, sent.values()))
        self._keep(until * 1000)
        self._folder.forget_state(begun)
        await self.post.drained(self._stopped)
        self.post.leave(self._unsent)

    def _keep(self, through_ms: int) -> None:
        self._progress.through_ms = through_ms
        self._progress.finished = not self._open()
        self._folder.write_progress(self._progress)


async def _main(job: _Job) -> None:
    registry = CollectorRegistry()
    past = _Past(job, load(job.city), registry)
    with running("world-past", Path(job.data), registry, past.health):
        sending = asyncio.create_task(past.post.run())
        try:
            await past.run()
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
    write(Path(job.data) / "world" / "sent-past.json", msgspec.to_builtins(past.post.counts))


if __name__ == "__main__":
    os.nice(NICE)
    asyncio.run(_main(msgspec.json.decode(sys.argv[1], type=_Job)))
