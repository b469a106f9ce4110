"""The whole world of a city: streets, weather, air, and what goes wrong, second by second."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from citybrain.city import City
from citybrain.edge.cabinets import Cabinets
from citybrain.edge.world.air import Air, Traffic
from citybrain.edge.world.crashes import AHEAD_M
from citybrain.edge.world.demand import Demand, Surge
from citybrain.edge.world.faults import Faults, Reading
from citybrain.edge.world.fleet import Fleet
from citybrain.edge.world.memory import Memory, memory_file
from citybrain.edge.world.plan import Plan
from citybrain.edge.world.rain import Cell, cloudburst
from citybrain.edge.world.schedule import HOUR_MS, Event, Spot, Stage, hour
from citybrain.edge.world.streets import INTERVAL_S, Streets
from citybrain.edge.world.weather import Weather

Array = npt.NDArray[np.float64]
MINUTE_S = 60
REMEMBER_MS = 6 * HOUR_MS
BUS_HEADWAY_S = 600
# Where things go wrong there is traffic to notice it by: vehicles an hour at the morning peak.
BUSY_FLOW = 120


class World:
    """A city's world from one second on. Same pack, seed, start and events: same readings.

    state: saved by `save` at that second. by_chance: events come by themselves; others are
    given to `plan_events`. signals_key: of the plans that its signal controllers follow;
    without it the simulator's own programs run. second: a multiple of ten, as detectors report.
    """

    def __init__(
        self,
        city: City,
        seed: int,
        second: int,
        *,
        state: Path | None = None,
        by_chance: bool = True,
        signals_key: bytes = b"",
    ) -> None:
        if second % INTERVAL_S:
            raise ValueError(f"second: {second} is not a multiple of {INTERVAL_S}")
        self.city, self._seed = city, seed
        self.plan = Plan.read(city.folder)
        self.stage = stage_of(city, self.plan)
        self._events: dict[str, Event] = {}
        self._news = False
        self._by_chance, self._drawn_ms = by_chance, -1
        self._kinds = {s.id: frozenset(s.kinds) for s in city.sensors.values()}
        self._gateway = {s.id: s.gateway for s in city.sensors.values()}
        ends = (self.plan.entries, self.plan.exits, self.plan.inside, self.plan.paths)
        self._demand = Demand(seed, *ends)
        self._faults = Faults(seed)
        weather = [s for s in city.sensors.values() if "precipitation" in s.kinds]
        air = [s for s in city.sensors.values() if "pm25" in s.kinds]
        self._weather_ids, self._air_ids = [s.id for s in weather], [s.id for s in air]
        self._weather = Weather(seed, *self._places(self._weather_ids))
        self._over_air = Weather(seed, *self._places(self._air_ids))
        junctions = city.signals if signals_key else {}
        self.streets = Streets(self.plan, seed, second, state, junctions, city.signal_control)
        self.cabinets: Cabinets | None = None
        """The controllers at the street; without them the simulator's own programs run."""
        if junctions:
            sumo, control = self.streets.sumo, city.signal_control
            self.cabinets = Cabinets(sumo, junctions, control, signals_key, seed, second)
        self.fleet: Fleet | None = None
        """Responders, who need signal controllers only for their wire."""
        if junctions and city.emergency.responder:
            self.fleet = Fleet(self.streets.sumo, city)
        self._air = Air(seed, self.streets.box_lengths())
        if state is not None:
            self._take_up(memory_file(state))
        self._local = self._local_time(second)

    def close(self) -> None:
        """End the simulation."""
        self.streets.close()

    @property
    def second(self) -> int:
        """The UTC second that has been reached."""
        return self.streets.second

    @property
    def events(self) -> list[Event]:
        """What happens and has happened, as far as it is not forgotten."""
        return list(self._events.values())

    def plan_events(self, events: Iterable[Event]) -> None:
        """Let these happen too; those that are known already go on as they are."""
        kept = self.second * 1000 - REMEMBER_MS
        self._events = {e.id: e for e in self._events.values() if e.to_ms >= kept}
        for event in events:
            self._events.setdefault(event.id, event)
        self._news = True

    def take_news(self) -> bool:
        """Whether the events have changed since this was last asked."""
        news, self._news = self._news, False
        return news

    def save(self, path: Path) -> None:
        """Save everything that the next second depends on; `path` ends in .xml.gz."""
        memory = Memory(
            boxes={name: box.tolist() for name, box in self._air.boxes.items()},
            traffic=self.streets.traffic.to_lists(),
            samples=self.streets.traffic.samples,
            held=self._faults.held,
            streets=self.streets.memory,
            events=[e for e in self._events.values() if e.to_ms > self.second * 1000],
        )
        memory_file(path).write_bytes(msgspec.json.encode(memory))
        self.streets.save(path)

    def _take_up(self, path: Path) -> None:
        memory = Memory.read(path)
        self._air.boxes = {name: np.array(box) for name, box in memory.boxes.items()}
        nox, pm, co, energy = np.array(memory.traffic)
        self.streets.traffic = Traffic(nox, pm, co, energy, memory.samples)
        self._faults.held = memory.held
        self.streets.recall(memory.streets)
        self._events |= {event.id: event for event in memory.events}

    def step(self) -> dict[str, list[Reading]]:
        """Let a second pass; readings by gateway if devices report at its end, else nothing."""
        now = self.second
        if now % MINUTE_S == 0:
            self._local = self._local_time(now)
        hour_of_day, free = self._local
        active = [e for e in self._happening(now * 1000) if e.active(now * 1000)]
        surges = [Surge(self.plan.stadium.edge, e.strength) for e in active if e.what == "surge"]
        trips = self._demand.trips(now, hour_of_day, free, surges)
        buses = now % BUS_HEADWAY_S == 0 and not 1.5 <= hour_of_day < 4.5
        if self.cabinets:
            self.cabinets.tick(now)
        self.streets.step(trips, buses)
        if self.cabinets:
            self.cabinets.look()
        if self.fleet:
            self.fleet.step(self.second)
        for event in active:
            waits = event.what == "crash" and not self.streets.crashes.happen(event, now)
            if event.happened_ms is None and not waits:
                self._happened(event, now * 1000)
        now += 1
        if now % INTERVAL_S:
            return {}
        self.streets.smell_and_listen(INTERVAL_S)
        readings = [r for r in self.streets.readings() if r[1] in self._kinds[r[0]]]
        readings += self._gauges(now * 1000)
        if now % MINUTE_S == 0:
            readings += self._stations(now * 1000)
        bent = self._faults.bend(readings, self._happening(now * 1000))
        by_gateway: dict[str, list[Reading]] = {}
        for reading in bent:
            by_gateway.setdefault(self._gateway[reading[0]], []).append(reading)
        return by_gateway

    def _happened(self, event: Event, at_ms: int) -> None:
        self._events[event.id] = replace(event, happened_ms=at_ms)
        self._news = True

    def _happening(self, now_ms: int) -> list[Event]:
        """Events that last, or ended within the second before. Draws an hour's when it comes."""
        this = now_ms // HOUR_MS * HOUR_MS
        if self._by_chance and this != self._drawn_ms:
            for start in (this - HOUR_MS, this):
                local = datetime.fromtimestamp(start / 1000, self.city.zone_info)
                match = local.hour == 18 and local.weekday() in (2, 5)
                self.plan_events(hour(self._seed, start, self.stage, match))
            self._drawn_ms = this
        return [e for e in self._events.values() if e.from_ms <= now_ms < e.to_ms + 1000]

    def _gauges(self, time_ms: int) -> list[Reading]:
        fell = self._weather.rain(time_ms, self._cells(time_ms)) * INTERVAL_S / 3600
        pairs = zip(self._weather_ids, np.round(fell, 3).tolist(), strict=True)
        return [(sensor, "precipitation", time_ms, value) for sensor, value in pairs]

    def _stations(self, time_ms: int) -> list[Reading]:
        hour_of_day, _ = self._local
        cells = self._cells(time_ms)
        out: list[Reading] = []
        measured = self._weather.at(time_ms, hour_of_day, cells)
        for kind, values in measured.items():
            pairs = zip(self._weather_ids, values.tolist(), strict=True)
            out += [(sensor, kind, time_ms, value) for sensor, value in pairs]
        rain = self._over_air.rain(time_ms, cells)
        wind = self._weather.wind(time_ms, hour_of_day)
        temperature = self._weather.temperature(time_ms, hour_of_day)
        traffic = self.streets.traffic
        self._air.step(traffic, MINUTE_S, wind, rain)
        air = self._air.values(time_ms, hour_of_day, temperature, wind, rain, traffic)
        for kind, values in air.items():
            pairs = zip(self._air_ids, values.tolist(), strict=True)
            out += [(sensor, kind, time_ms, value) for sensor, value in pairs]
        self.streets.traffic = Traffic.none(len(self._air_ids))
        return out

    def _cells(self, now_ms: int) -> list[Cell]:
        return [
            cloudburst(e.from_ms, e.to_ms, e.x, e.y, e.strength)
            for e in self._happening(now_ms)
            if e.what == "cloudburst"
        ]

    def _places(self, sensors: list[str]) -> tuple[Array, Array]:
        at = [self.plan.sensors[s] for s in sensors]
        return np.array([d.x for d in at]), np.array([d.y for d in at])

    def _local_time(self, second: int) -> tuple[float, bool]:
        local = datetime.fromtimestamp(second, self.city.zone_info)
        return local.hour + local.minute / 60, self.city.calendar.is_free(local.date())


def stage_of(city: City, plan: Plan) -> Stage:
    """Where things may happen, from a pack."""
    busy = []
    for sensor, device in plan.sensors.items():
        if device.flow >= BUSY_FLOW:
            place = city.sensors[sensor]
            busy.append(
                Spot(sensor, place.zone, place.link, device.lane, device.pos_m, device.x, device.y)
            )
    stadium = plan.stadium
    zone = city.links[stadium.edge].zone
    stations = [
        Spot(s.id, s.zone, "", "", 0.0, plan.sensors[s.id].x, plan.sensors[s.id].y)
        for s in city.sensors.values()
        if "precipitation" in s.kinds
    ]
    return Stage(
        crash_sites=[s for s in busy if city.links[s.link].lanes > 1 and _room(city, s)],
        detectors=busy,
        stadium=Spot("", zone, stadium.edge, "", 0.0, stadium.x, stadium.y),
        stations=stations,
    )


def _room(city: City, spot: Spot) -> bool:
    """Whether a car can stand ahead of the loop and a queue on it."""
    return spot.pos_m >= 25 and city.links[spot.link].length_m - spot.pos_m >= AHEAD_M + 5
