"""The living world: one second of simulation a second, readings to the edge agent as they come."""

import asyncio
from contextlib import suppress

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from citybrain.city import City
from citybrain.clock import Clock, wall_clock
from citybrain.edge.world import schedule
from citybrain.edge.world.folder import GO_ON_S, Folder, write
from citybrain.edge.world.options import Options
from citybrain.edge.world.past import PastProcess
from citybrain.edge.world.post import Post
from citybrain.edge.world.streets import INTERVAL_S
from citybrain.edge.world.world import World
from citybrain.process import Health, running, stop_event

WARM_UP_S = 240
# Readings of this much of the time before the start are sent at once, so that the first
# windows close without waiting for them to fill.
HEAD_START_S = 60
STATE_EVERY_S = 60
FAREWELL_S = 3.0


async def live(city: City, options: Options, clock: Clock = wall_clock) -> None:
    """Run until SIGTERM or SIGINT. Raises SetupError if tokens or the simulator are missing."""
    stop = stop_event()
    folder = Folder(options.data / "world")
    gateways = sorted({s.gateway for s in city.sensors.values()})
    registry = CollectorRegistry()
    post = Post(options.edge, folder.tokens(gateways), registry, clock=clock)
    post.take_up(folder.path / "unsent.msgpack")
    begun_ms = clock()
    offset_ms = (options.start_ms or begun_ms) - begun_ms
    start = (begun_ms + offset_ms) // 1000 // INTERVAL_S * INTERVAL_S

    def now_s() -> float:
        return (begun_ms + offset_ms + (clock() - begun_ms) * options.speed) / 1000

    lag = Gauge("citybrain_world_lag_seconds", "How far the world is behind.", registry=registry)
    steps = Counter("citybrain_world_steps", "Simulated seconds.", registry=registry)
    last = [0]

    def health() -> Health:
        behind = now_s() - last[0] if last[0] else 0.0
        ok = bool(last[0]) and behind < 30 * options.speed and not post.stalled()
        waiting = "" if ok else ("the edge agent" if last[0] else "the simulator")
        facts: dict[str, float | int | str] = {
            "pending": post.counts.pending,
            "behind_s": round(behind, 1),
        }
        return Health(ok=ok, waiting=waiting, progress_ms=post.reached_ms, facts=facts)

    with running("world", options.data, registry, health, options.port):
        sending = asyncio.create_task(post.run())
        world = _enter(city, options, folder, start)
        Gauge(
            "citybrain_world_vehicles", "Vehicles on the streets.", registry=registry
        ).set_function(world.streets.running)
        Gauge(
            "citybrain_world_teleports_total", "Vehicles that stood too long and were moved on.",
            registry=registry,
        ).set_function(lambda: world.streets.totals.teleported)  # fmt: skip
        past: PastProcess | None = None
        try:
            first = world.second
            spans = folder.spans()
            if options.days:
                past = PastProcess(city, options, first * 1000)
            changes = -1
            while not stop.is_set():
                while world.second + 1 <= now_s() and not stop.is_set():
                    for gateway, readings in world.step().items():
                        post.put(gateway, readings)
                    steps.inc()
                    last[0] = world.second
                    if world.changes != changes:
                        changes = world.changes
                        schedule.write(folder.path / "events.json", list(world.events.values()))
                    if world.second % INTERVAL_S == 0:
                        folder.write_spans([*spans, (first * 1000, world.second * 1000)])
                    if world.second % STATE_EVERY_S == 0:
                        world.save(folder.state_file(world.second))
                        folder.forget_state(world.second - STATE_EVERY_S)
                    await asyncio.sleep(0)
                    if sending.done():
                        sending.result()
                lag.set(max(0.0, now_s() - world.second))
                with suppress(TimeoutError):
                    rest = (world.second + 1 - now_s()) / options.speed
                    await asyncio.wait_for(stop.wait(), max(0.005, rest))
        finally:
            if past:
                past.end()
            with suppress(TimeoutError):
                await asyncio.wait_for(post.drained(), FAREWELL_S)
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            post.leave(folder.path / "unsent.msgpack")
            write(folder.path / "sent.json", msgspec.to_builtins(post.counts))
            world.close()


def _enter(city: City, options: Options, folder: Folder, start: int) -> World:
    """The world at the second from which it reports.

    That of the last stop if it was just now, with the very same cars; else shortly before the
    start, after a warm-up that fills the streets.
    """
    last = max((end // 1000 for _, end in folder.spans()), default=0)
    saved = folder.state(last) if start - GO_ON_S <= last <= start else None
    first = last if saved else start - HEAD_START_S
    state, second = saved or (None, first - WARM_UP_S)
    world = World(city, options.seed, second, state=state, by_chance=options.given is None)
    while world.second < first:
        world.step()
    events = options.given
    if events is None:
        events = schedule.opening(options.seed, start * 1000, world.stage)
    world.events |= {event.id: event for event in events}
    return world
