"""Any SUMO scenario, run with a controller in the loop: detectors, decisions, lamps, measures.

The decision code is the one that runs in a city: a controller of `citybrain.models.signals`,
stages turned into lamps by the sequencer, every change judged by the interlock. Detector
states are degraded as in life before the controller sees them.
"""

import math
import tempfile
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from citybrain.edge import junctions
from citybrain.edge.interlock import Interlock
from citybrain.edge.sequencer import Sequencer
from citybrain.models.signals import CONTROLLERS
from citybrain.models.signals.base import View
from citybrain.signals import Junction, Lamp, Refusal

_VEHICLE_M = 7.5
_STEP_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """How detectors fall short: delay, lost intervals, missed vehicles, and the interval."""

    interval_s: int = 5
    delay_s: int = 5
    lost: float = 0.05
    missed: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A network and its demand. Times in s; scale multiplies the demand."""

    net: Path
    routes: tuple[Path, ...]
    additional: tuple[Path, ...] = ()
    begin_s: int = 0
    end_s: int = 3_600
    scale: float = 1.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One run. Delays in s over every scheduled vehicle: time loss + departure delay; those
    still running count as at the end, those never let in count their whole wait."""

    controller: str
    seed: int
    vehicles: int
    arrived: int
    delays: list[float]
    stops: float
    side_p95_s: float
    pedestrian_p95_s: float
    gridlocked: bool
    refused: int = 0
    never_in: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def mean_delay_s(self) -> float:
        """Mean delay over all scheduled vehicles."""
        return float(np.mean(self.delays)) if self.delays else 0.0


def native(kind: str) -> bool:
    """Whether SUMO runs this controller by itself."""
    return kind in ("shipped", "actuated", "delay_based")


class _Site:
    """One junction in the loop: its controller, sequencer, interlock, and what it sees."""

    def __init__(self, junction: Junction, controller: str, now_ms: int, size: int) -> None:
        self.junction = junction
        self.controller = CONTROLLERS[controller](junction)
        self.sequencer = Sequencer(junction, now_ms)
        self.interlock = Interlock(junction.table, now_ms)
        self.size = size
        count = len(junction.movements)
        self.queue = np.zeros(count)
        self.coming = np.zeros(count)
        self.room = np.ones(count)
        self.age_s = np.full(count, np.nan)
        self.since_red_s = np.zeros(count)
        self.refusals: list[Refusal] = []

    def tick(self, now_ms: int) -> str:
        """Decide, change lamps; returns SUMO's state string."""
        lamps = self.interlock.lamps
        calls = (self.queue + self.coming) > 0
        for i, movement in enumerate(self.junction.movements):
            waiting = lamps[movement.group] != "green" and calls[i]
            self.since_red_s[i] = self.since_red_s[i] + _STEP_MS / 1000 if waiting else 0.0
        reached = self.sequencer.reached_ms
        decision = self.controller.decide(
            View(
                now_ms=now_ms,
                stage=self.sequencer.target,
                stage_s=(now_ms - reached) / 1000 if reached is not None else 0.0,
                changing=reached is None,
                queue=self.queue,
                coming=self.coming,
                room=self.room,
                waited_s=self.since_red_s,
                age_s=self.age_s,
            )
        )
        if decision is not None:
            self.sequencer.aim(decision.stage)
        wanted = self.sequencer.step(now_ms)
        verdict = self.interlock.change(now_ms, wanted)
        self.refusals.extend(verdict.refusals)
        self.sequencer.shown(now_ms, verdict.lamps)
        return self._state(verdict.lamps)

    def _state(self, lamps: Mapping[str, Lamp]) -> str:
        """SUMO's letters: G, or g for a link that gives way to one that is open."""
        shown = {link: lamps[g.id] for g in self.junction.table.groups for link in g.links}
        letters = []
        for link in range(self.size):
            lamp = shown.get(link, "green")
            if lamp != "green":
                letters.append("r" if lamp == "red" else "y")
                continue
            before = self.junction.yields.get(str(link), ())
            letters.append("g" if any(shown.get(o) != "red" for o in before) else "G")
        return "".join(letters)


class _Detectors:
    """Area detectors of all junctions, read every interval, degraded, delivered late."""

    def __init__(
        self, lengths: dict[str, float], degraded: Degraded, rng: np.random.Generator
    ) -> None:
        self.lengths = lengths
        self.degraded = degraded
        self.rng = rng
        self.known: dict[str, tuple[int, int, int]] = {}  # lane -> measured at, all, standing
        self._under_way: deque[tuple[int, dict[str, tuple[int, int, int]]]] = deque()

    def read(self, sumo: Any, now_s: int) -> bool:
        """Measure if an interval ends now, deliver what is due. True if something arrived."""
        told = self.degraded
        if now_s % told.interval_s == 0:
            found = {}
            for lane in self.lengths:
                if self.rng.random() < told.lost:
                    continue
                vehicles = sumo.lanearea.getLastStepVehicleNumber(f"q:{lane}")
                standing = sumo.lanearea.getLastStepHaltingNumber(f"q:{lane}")
                seen = int(self.rng.binomial(vehicles, 1 - told.missed))
                found[lane] = (now_s, seen, min(seen, standing))
            self._under_way.append((now_s + told.delay_s, found))
        arrived = False
        while self._under_way and self._under_way[0][0] <= now_s:
            self.known |= self._under_way.popleft()[1]
            arrived = True
        return arrived

    def fill(self, site: _Site, now_s: int) -> None:
        """What the junction's movements look like by what has arrived."""
        for i, movement in enumerate(site.junction.movements):
            queue = coming = 0.0
            age = 0.0
            for lane, share in zip(movement.detectors, movement.shares, strict=True):
                at, seen, standing = self.known.get(lane, (-1, 0, 0))
                age = math.nan if at < 0 else max(age, now_s - at)
                queue += share * standing
                coming += share * (seen - standing)
            site.queue[i], site.coming[i], site.age_s[i] = queue, coming, age
            room = 1.0
            for lane in movement.lanes_out:
                _, seen, _ = self.known.get(lane, (-1, 0, 0))
                length = self.lengths.get(lane, 1e9)
                room = min(room, max(0.0, 1.0 - seen * _VEHICLE_M / max(length, _VEHICLE_M)))
            site.room[i] = room


def run(
    scenario: Scenario, controller: str, seed: int, degraded: Degraded | None = None
) -> Outcome:
    """One run of a scenario. Controllers: those of the registry, or SUMO's own `shipped`
    (the program in the network), `actuated`, `delay_based`.

    Raises PackError if the network cannot be read, KeyError for an unknown controller.
    """
    import libsumo as sumo
    import sumolib

    degraded = degraded or Degraded()
    found = junctions.read(scenario.net)
    with tempfile.TemporaryDirectory() as folder:
        trips = Path(folder) / "trips.xml"
        extra = Path(folder) / "extra.add.xml"
        lengths = _lanes(scenario.net, found)
        _write_extra(extra, lengths, found, controller, scenario.net)
        sumo.start(
            [
                sumolib.checkBinary("sumo"), "-n", str(scenario.net),
                "-r", ",".join(map(str, scenario.routes)),
                "-a", ",".join(map(str, (*scenario.additional, extra))),
                "--begin", str(scenario.begin_s), "--end", str(scenario.end_s),
                "--scale", str(scenario.scale), "--seed", str(seed), "--time-to-teleport", "-1",
                "--tripinfo-output", str(trips), "--tripinfo-output.write-unfinished",
                "--tripinfo-output.write-undeparted", "--no-step-log", "--no-warnings",
                "--duration-log.disable", "--xml-validation", "never",
            ]
        )  # fmt: skip
        try:
            rng = np.random.default_rng(seed)
            detectors = _Detectors(lengths, degraded, rng)
            sites = [] if native(controller) else [
                _Site(j, controller, scenario.begin_s * 1000,
                      len(sumo.trafficlight.getRedYellowGreenState(j.id)))
                for j in found
            ]  # fmt: skip
            for now_s in range(scenario.begin_s, scenario.end_s):
                arrived = bool(sites) and detectors.read(sumo, now_s)
                for site in sites:
                    if arrived:
                        detectors.fill(site, now_s)
                    sumo.trafficlight.setRedYellowGreenState(
                        site.junction.id, site.tick(now_s * 1000)
                    )
                sumo.simulationStep()
            stuck = sum(
                sumo.vehicle.getAccumulatedWaitingTime(v) > 0
                and sumo.vehicle.getWaitingTime(v) > 300
                for v in sumo.vehicle.getIDList()
            )
            running = sumo.vehicle.getIDCount()
        finally:
            sumo.close()
        outcome = _measure(trips, controller, seed, found)
    outcome.gridlocked = running > 20 and stuck > 0.25 * running
    outcome.refusals = [refusal for site in sites for refusal in site.refusals]
    outcome.refused = len(outcome.refusals)
    return outcome


def _lanes(net_file: Path, found: Sequence[Junction]) -> dict[str, float]:
    """Lanes that need a detector -> their length."""
    import sumolib

    net = sumolib.net.readNet(str(net_file))
    wanted = {lane for j in found for m in j.movements for lane in (*m.detectors, *m.lanes_out)}
    lengths = {}
    for lane in sorted(wanted):
        if not lane.startswith(":"):
            lengths[lane] = float(net.getLane(lane).getLength())
    return lengths


def _write_extra(
    path: Path, lengths: dict[str, float], found: Sequence[Junction], controller: str, net: Path
) -> None:
    """Detectors, and SUMO's own controllers where one of those is wanted."""
    root = ET.Element("additional")
    for lane in lengths:
        ET.SubElement(
            root, "laneAreaDetector", id=f"q:{lane}", lane=lane, pos="0",
            endPos=f"{lengths[lane]:.2f}", period="86400", file="NUL", friendlyPos="true",
        )  # fmt: skip
    if controller in ("actuated", "delay_based"):
        for light in ET.parse(net).getroot().iter("tlLogic"):
            if light.get("id") not in {j.id for j in found}:
                continue
            logic = ET.SubElement(root, "tlLogic", id=str(light.get("id")), type=controller,
                                  programID=controller, offset="0")  # fmt: skip
            for phase in light.iter("phase"):
                state = str(phase.get("state"))
                told = {"duration": str(phase.get("duration")), "state": state}
                if "y" not in state.lower() and any(lamp in "Gg" for lamp in state):
                    told |= {"minDur": "5", "maxDur": "50"}
                ET.SubElement(logic, "phase", attrib=told)
    ET.ElementTree(root).write(path)


def _measure(trips: Path, controller: str, seed: int, found: Sequence[Junction]) -> Outcome:
    """Delays by vehicle from SUMO's trip records."""
    delays: list[float] = []
    arrived = never = 0
    stops = 0.0
    for trip in ET.parse(trips).getroot().iter("tripinfo"):
        delays.append(float(trip.get("timeLoss", 0)) + max(0.0, float(trip.get("departDelay", 0))))
        stops += float(trip.get("waitingCount", 0))
        arrived += float(trip.get("arrival", -1)) >= 0
        never += float(trip.get("depart", -1)) < 0
    return Outcome(
        controller=controller, seed=seed, vehicles=len(delays), arrived=arrived, delays=delays,
        stops=stops / max(1, len(delays)), side_p95_s=0.0, pedestrian_p95_s=0.0,
        gridlocked=False, never_in=never,
    )  # fmt: skip
