"""The twin: the same streets, demand and random numbers, with nothing but the local plans.

A process of its own (one simulator a process). It starts from the same second and the same
saved state as the living world, goes as far as that says on its standard input, a second a
line, and answers with what it measured. It tells nobody else anything.
"""

import asyncio
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from citybrain import log
from citybrain.city import City
from citybrain.edge.world import schedule
from citybrain.edge.world.schedule import Event
from citybrain.edge.world.streets import INTERVAL_S
from citybrain.edge.world.world import World
from citybrain.emergency import Order
from citybrain.errors import JSON_ERRORS
from citybrain.pack import load
from citybrain.signal_log import Measured

NICE = 10
EVERY_S = 5
_log = log.get(__name__)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where a world and its twin begin. second: of the saved state, or before the warm-up.
    first: from which on people are told. given: what happens instead of chance."""

    city: str
    seed: int
    second: int
    first: int
    state: str = ""
    given: list[Event] | None = None


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """What the living world tells its twin each second."""

    second: int
    orders: list[Order] = []


def enter(city: City, entry: Entry, key: bytes) -> World:
    """A world at `entry.first`, the same for everybody who enters so."""
    state = Path(entry.state) if entry.state else None
    world = World(
        city, entry.seed, entry.second, state=state, by_chance=entry.given is None, signals_key=key
    )
    while world.second < entry.first:
        world.step()
    events = entry.given
    if events is not None:
        lanes = {d.lane: city.sensors[s].link for s, d in world.plan.sensors.items()}
        schedule.check(events, city.sensors, lanes)
    else:
        events = schedule.opening(entry.seed, (entry.first + INTERVAL_S) * 1000, world.stage)
    world.plan_events(events)
    if world.cabinets:
        world.cabinets.measure()
    return world


class Twin:
    """The child process, and what it said last."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._process: asyncio.subprocess.Process | None = None
        self.measured: Measured | None = None
        self.failed = ""

    async def run(self) -> None:
        """Start it and listen until cancelled. The living world goes on if it fails."""
        words = ["-m", "citybrain.edge.world.twin", msgspec.json.encode(self._entry).decode()]
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                with suppress(*JSON_ERRORS):
                    self.measured = msgspec.json.decode(line, type=Measured)
            self.failed = f"ended with exit code {await process.wait()}"
            self.measured = None
            _log.error("the twin is gone", why=self.failed)
            await asyncio.Event().wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()

    def follow(self, second: int, orders: Iterable[Order] = ()) -> None:
        """Go on to this second, where responders are ordered to the same places."""
        process = self._process
        if process is not None and process.stdin is not None and not self.failed:
            step = msgspec.json.encode(_Step(second=second, orders=list(orders)))
            process.stdin.write(step + b"\n")


def _main(entry: Entry) -> None:
    # Any key will do: nobody sends plans to a twin.
    world = enter(load(entry.city), entry, os.urandom(32))
    cabinets = world.cabinets
    assert cabinets is not None
    try:
        for line in sys.stdin:
            step = msgspec.json.decode(line, type=_Step)
            if world.fleet:
                world.fleet.take(step.orders)
            while world.second < step.second:
                world.step()
                if world.second % EVERY_S == 0:
                    responses = world.fleet.responses if world.fleet else {}
                    measured = cabinets.measured("twin")
                    told = msgspec.json.encode(
                        msgspec.structs.replace(measured, responses=responses)
                    )
                    sys.stdout.buffer.write(told + b"\n")
                    sys.stdout.buffer.flush()
    finally:
        world.close()


if __name__ == "__main__":
    os.nice(NICE)
    _main(msgspec.json.decode(sys.argv[1], type=Entry))
