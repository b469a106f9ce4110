"""The living world: one second of simulation a second, readings to the edge agent as they come."""

import asyncio
from contextlib import suppress

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from citybrain import plan_keys
from citybrain.city import City
from citybrain.clock import Clock, wall_clock
from citybrain.edge import junctions
from citybrain.edge.cabinets import Cabinets
from citybrain.edge.signal_metrics import SignalMetrics
from citybrain.edge.world import schedule
from citybrain.edge.world.folder import GO_ON_S, Folder, Span, write
from citybrain.edge.world.network import network_file
from citybrain.edge.world.options import Options
from citybrain.edge.world.past import PastProcess
from citybrain.edge.world.post import Post
from citybrain.edge.world.streets import INTERVAL_S
from citybrain.edge.world.twin import Entry, Twin, enter
from citybrain.edge.world.wire import Wire
from citybrain.edge.world.world import World
from citybrain.emergency import Order
from citybrain.process import Health, running, stop_event
from citybrain.signal_log import GATEWAY, Orders, Report

WARM_UP_S = 240
# Entering the simulation takes about so long; the first report is of the interval that ends
# nearest to it, so that nobody waits ten seconds for a sign of life.
ENTER_S = 2
STATE_EVERY_S = 60
MEASURED_EVERY_S = 5
BEHIND_S = 30
FAREWELL_S = 3.0


async def live(city: City, options: Options, clock: Clock = wall_clock) -> None:
    """Run until SIGTERM or SIGINT. Raises SetupError if tokens or the simulator are missing,
    PackError for a junction whose table does not fit the network."""
    registry = CollectorRegistry()
    world = _Live(city, options, clock, registry)
    with running("world", options.data, registry, world.health, options.port):
        await world.run(stop_event())


class _Live:
    """A world and its post, from its start to its stop."""

    def __init__(
        self, city: City, options: Options, clock: Clock, registry: CollectorRegistry
    ) -> None:
        self._city, self._options, self._clock = city, options, clock
        self._folder = Folder(options.data / "world")
        self._unsent = self._folder.path / "unsent.msgpack"
        gateways = sorted({s.gateway for s in city.sensors.values()})
        tokens = self._folder.tokens([*gateways, GATEWAY], options.data, clock())
        signs = tokens.pop(GATEWAY)
        self._post = Post(options.edge, tokens, registry, clock=clock, mqtt=options.mqtt)
        self._begun_ms = clock()
        self._start_ms = self._begun_ms
        if options.speed > 1:
            lived = max((end for _, end in self._folder.spans()), default=0)
            self._start_ms = max(lived, self._begun_ms - round(options.days * 86_400_000))
        self._world: World | None = None
        junctions.agree(city.signals.values(), network_file())
        self._key = plan_keys.key(options.data) if city.signals else b""
        self._twin: Twin | None = None
        self._signals = SignalMetrics(registry)
        self._orders: list[Order] = []
        self._wire = Wire(options.edge, signs, self._hand, registry)
        self._reached = 0
        self._saved = 0
        self._spans: list[Span] = []
        lag = Gauge("citybrain_world_lag_seconds", "How far the world is behind the clock.",
                    registry=registry)  # fmt: skip
        lag.set_function(self._behind_s)
        self._steps = Counter("citybrain_world_steps", "Simulated seconds.", registry=registry)
        vehicles = Gauge("citybrain_world_vehicles", "Vehicles on the streets.", registry=registry)
        vehicles.set_function(lambda: self._world.streets.totals.running if self._world else 0)
        moved = Gauge("citybrain_world_teleports", "Vehicles that stood too long, moved on.",
                      registry=registry)  # fmt: skip
        moved.set_function(lambda: self._world.streets.totals.teleported if self._world else 0)

    def health(self) -> Health:
        """Progress: the simulation keeps up with the clock, and the edge agent takes readings."""
        waiting = ""
        if not self._reached or self._behind_s() > BEHIND_S:
            waiting = "the simulator"
        elif self._post.stalled():
            waiting = "the edge agent"
        facts: dict[str, float | int | str] = {
            "behind_s": round(self._behind_s(), 1), "pending": self._post.counts.pending,
        }  # fmt: skip
        return Health(
            ok=not waiting, waiting=waiting, progress_ms=self._post.reached_ms, facts=facts
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Enter, live, and leave so that a later run can go on."""
        self._post.take_up(self._unsent)
        sending = asyncio.create_task(self._post.run())
        tasks = [sending, asyncio.create_task(self._wire.run())]
        past: PastProcess | None = None
        try:
            world = self._world = self._enter()
            first = world.second
            if self._twin:
                tasks.append(asyncio.create_task(self._twin.run()))
            self._spans = self._folder.spans()
            if self._options.days and self._options.speed <= 1:
                past = PastProcess(self._city, self._options, first * 1000)
            while not stop.is_set():
                if world.second + 1 <= self._now_s():
                    self._second(world, first)
                    await asyncio.sleep(0)
                    for task in tasks:
                        if task.done():
                            task.result()
                else:
                    wait = (world.second + 1 - self._now_s()) / self._options.speed
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), max(0.005, wait))
        finally:
            if past:
                past.end()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._post.drained(), FAREWELL_S)
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self._post.leave(self._unsent)
            write(self._folder.path / "sent.json", msgspec.to_builtins(self._post.counts))
            if self._world:
                self._world.close()

    def _enter(self) -> World:
        """The world shortly before now.

        With the very same cars as at the last stop, if that was just now; else after a warm-up
        that fills the streets.
        """
        first = int(self._now_s() + ENTER_S) // INTERVAL_S * INTERVAL_S - INTERVAL_S
        last = max((end // 1000 for _, end in self._folder.spans()), default=0)
        if first < last <= self._now_s():
            first = last  # a stop of a few seconds: what was told is not told again
        saved = self._folder.state(last) if first - GO_ON_S <= last <= first else None
        state, second = saved or (None, first - WARM_UP_S)
        given = self._options.given
        entry = Entry(
            city=str(self._city.folder), seed=self._options.seed, second=second, first=first,
            state=str(state or ""), given=None if given is None else list(given),
        )  # fmt: skip
        world = enter(self._city, entry, self._key)
        if world.cabinets and self._options.speed <= 1:
            # From here on plans come, issued by the clock of those who send them.
            world.cabinets.utc = lambda second: self._clock()
            self._twin = Twin(entry) if self._options.twin else None
        return world

    def _second(self, world: World, first: int) -> None:
        """One second passes, and what is due on disk is written."""
        for gateway, readings in world.step().items():
            self._post.put(gateway, readings)
        self._steps.inc()
        if self._twin:
            self._twin.follow(world.second, self._orders)
        if world.cabinets:
            self._wire.put(self._report(world.cabinets, world.second))
        now = self._reached = world.second
        if world.take_news():
            schedule.write(self._folder.path / "events.json", world.events)
        if now % INTERVAL_S == 0:
            # In this order a killed world neither forgets readings nor makes them up anew.
            self._post.leave(self._unsent)
            self._folder.write_spans([*self._spans, (first * 1000, now * 1000)])
        if now % STATE_EVERY_S == 0:
            world.save(self._folder.state_file(now))
            self._folder.forget_state(self._saved)
            self._saved = now

    def _report(self, cabinets: Cabinets, second: int) -> Report:
        """What the controllers say, now and then with what was measured of them."""
        report = cabinets.report()
        fleet = self._world.fleet if self._world else None
        if fleet:
            at_ms = cabinets.utc(second)
            positions = fleet.positions(second, at_ms)
            report = msgspec.structs.replace(report, positions=positions)
        if second % MEASURED_EVERY_S:
            return report
        responses = fleet.responses if fleet else {}
        runs = [msgspec.structs.replace(cabinets.measured("live"), responses=responses)]
        if self._twin and self._twin.measured:
            runs.append(self._twin.measured)
        self._signals.observe(runs, cabinets)
        return msgspec.structs.replace(report, measured=runs, phases=cabinets.phases())

    def _hand(self, orders: Orders) -> None:
        if self._world and self._world.cabinets:
            self._world.cabinets.take(orders.plans)
        if self._world and self._world.fleet:
            self._world.fleet.take(orders.dispatches)
            self._orders = orders.dispatches

    def _now_s(self) -> float:
        now = self._clock()
        lived = self._start_ms + (now - self._begun_ms) * self._options.speed
        return min(now, lived) / 1000

    def _behind_s(self) -> float:
        """Wall seconds that the simulation would need at its speed to reach the present."""
        return max(0.0, self._now_s() - self._reached) / self._options.speed if self._reached else 0
