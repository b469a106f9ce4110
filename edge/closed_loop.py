"""Any SUMO scenario, run with a controller in the loop: detectors, decisions, lamps, measures.

The decision code is the one that runs in a city: a controller of `citybrain.models.signals`,
stages turned into lamps by the sequencer, every change judged by the interlock. Detector
states are degraded as in life before the controller sees them.
"""

import os
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from citybrain.edge import junctions, programs
from citybrain.edge.area_detectors import AreaDetectors
from citybrain.edge.interlock import Interlock
from citybrain.edge.outcome import Outcome, measure, percentile
from citybrain.edge.programs import Program
from citybrain.edge.sequencer import Sequencer
from citybrain.edge.street import SumoStreet
from citybrain.edge.walkers import Walkers
from citybrain.edge.world.network import sumo_home
from citybrain.models.signals.base import Decision
from citybrain.models.signals.fixed import Fixed
from citybrain.models.signals.site import Site
from citybrain.signals import Degraded, DetectorState, Junction, Refusal

_STEP_MS = 1_000
_STUCK_S = 300.0

NATIVE = ("shipped", "actuated", "delay_based")
"""Controllers that SUMO runs by itself, without interlock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A network and its demand. Times in s; scale multiplies the demand; options: further
    ones for SUMO's command line."""

    net: Path
    routes: tuple[Path, ...]
    additional: tuple[Path, ...] = ()
    begin_s: int = 0
    end_s: int = 3_600
    scale: float = 1.0
    options: tuple[str, ...] = ()


class Loop:
    """One junction in the loop: who decides for it, its sequencer, interlock and street."""

    def __init__(
        self, junction: Junction, controller: str, now_ms: int, street: SumoStreet
    ) -> None:
        self.junction = junction
        self._fixed = controller in ("fixed", "retimed")
        self.site = None if self._fixed else Site(junction, controller)
        self.sequencer = Sequencer(junction, now_ms)
        self.interlock = Interlock(junction.table, now_ms)
        self.street = street
        self.local = Fixed(junction)
        self.refusals: list[Refusal] = []
        self._first: Callable[[int, Site], Decision | None] | None = None

    def give_way(self, first: Callable[[int, Site], Decision | None]) -> None:
        """Ask somebody before the controller at each second: who has priority here."""
        self._first = first
        self.site = self.site or Site(self.junction, "fixed")

    def tick(self, now_ms: int, states: Mapping[str, DetectorState]) -> None:
        """Decide, change lamps."""
        sequencer = self.sequencer
        sequencer.calls.update(self.street.calls())
        decision = None
        if self.site is not None:
            self.site.see(sequencer.report(now_ms, now_ms, "adaptive"))
            self.site.learn(states)
            decision = self.site.decide(now_ms)
            if self._fixed:
                decision = None
            if self._first is not None:
                decision = self._first(now_ms, self.site) or decision
        sequencer.recall = decision is None
        sequencer.aim((decision or self.local.at(now_ms)).stage)
        verdict = self.interlock.change(now_ms, sequencer.step(now_ms))
        self.refusals.extend(verdict.refusals)
        sequencer.shown(now_ms, verdict.lamps)
        self.street.show(verdict.lamps)


class Guest(Protocol):
    """Somebody who takes part in a run: emergency vehicles."""

    def begin(self, sumo: Any, loops: Mapping[str, Loop]) -> None:
        """The simulation stands at its first second."""

    def step(self, now_s: int) -> None:
        """A second begins, before any junction decides."""

    def end(self, trips: Path) -> None:
        """The run is over; SUMO's trips are in this file."""


def run(
    scenario: Scenario,
    controller: str,
    seed: int,
    degraded: Degraded | None = None,
    found: Sequence[Junction] | None = None,
    guest: Guest | None = None,
) -> Outcome:
    """One run of a scenario. Controllers: those of the registry, or one of `NATIVE` (shipped
    is the program in the network). found: the junctions, if they are read already. guest: who
    takes part beside the demand.

    Raises PackError if the network cannot be read, KeyError for an unknown controller.
    """
    sumo_home()
    import libsumo as sumo

    begun = time.perf_counter()
    degraded = degraded or Degraded()
    shipped = programs.read(scenario.net, scenario.additional)
    if found is None:
        found = junctions.read(scenario.net, scenario.additional)
    loop = controller not in NATIVE
    with tempfile.TemporaryDirectory() as folder:
        trips, routes, extra = (Path(folder) / n for n in ("trips.xml", "routes.xml", "add.xml"))
        _write_extra(extra, found if loop else (), controller, shipped, degraded.interval_s)
        sumo.start(_command(scenario, seed, trips, routes, extra))
        try:
            detectors = AreaDetectors(
                [area for j in found for area in j.areas] if loop else [],
                degraded,
                np.random.default_rng(seed),
            )
            walkers = Walkers(found)
            sites = {
                j.id: Loop(j, controller, scenario.begin_s * 1000, SumoStreet(sumo, j))
                for j in (found if loop else ())
            }
            if guest is not None:
                guest.begin(sumo, sites)
            for now_s in range(scenario.begin_s, scenario.end_s):
                if guest is not None:
                    guest.step(now_s)
                states = detectors.read(sumo, now_s) if loop else {}
                by_site: dict[str, dict[str, DetectorState]] = {}
                for name, state in states.items():
                    by_site.setdefault(name.partition(":")[0], {})[name] = state
                for junction, group in walkers.look(sumo, now_s):
                    if loop:
                        sites[junction].street.press(group)
                for name, site in sites.items():
                    site.tick(now_s * 1000, by_site.get(name, {}))
                sumo.simulationStep()
            waits = walkers.end(scenario.end_s)
            gridlocked = _gridlocked(sumo)
        finally:
            sumo.close()
        if guest is not None:
            guest.end(trips)
        outcome = measure(trips, routes, controller, seed, found, _free_s(scenario.net))
    outcome.pedestrian_p95_s = percentile(waits)
    outcome.gridlocked = gridlocked
    outcome.refusals = [refusal for site in sites.values() for refusal in site.refusals]
    outcome.seconds = time.perf_counter() - begun
    return outcome


def _command(scenario: Scenario, seed: int, trips: Path, routes: Path, extra: Path) -> list[str]:
    import sumolib

    return [
        sumolib.checkBinary("sumo"), "-n", str(scenario.net),
        "-r", ",".join(map(str, scenario.routes)),
        "-a", ",".join(map(str, (*scenario.additional, extra))),
        "--begin", str(scenario.begin_s), "--end", str(scenario.end_s),
        "--scale", str(scenario.scale), "--seed", str(seed), "--time-to-teleport", "-1",
        "--tripinfo-output", str(trips), "--tripinfo-output.write-unfinished",
        "--tripinfo-output.write-undeparted", "--vehroute-output", str(routes),
        "--vehroute-output.exit-times", "--vehroute-output.write-unfinished", "--no-step-log",
        "--no-warnings", "--duration-log.disable", "--xml-validation", "never",
        *scenario.options,
    ]  # fmt: skip


def _gridlocked(sumo: Any) -> bool:
    """Whether more than a quarter of the vehicles (and 20 at least run) has not moved for long."""
    running = sumo.vehicle.getIDList()
    stuck = sum(sumo.vehicle.getWaitingTime(v) > _STUCK_S for v in running)
    return len(running) > 20 and stuck > 0.25 * len(running)


def _free_s(net_file: Path) -> dict[str, float]:
    """Edge -> its length over its speed."""
    import sumolib

    net = sumolib.net.readNet(str(net_file))
    return {
        edge.getID(): float(edge.getLength()) / max(1.0, float(edge.getSpeed()))
        for edge in net.getEdges()
    }


def _write_extra(
    path: Path,
    found: Iterable[Junction],
    controller: str,
    shipped: Mapping[str, Program],
    interval_s: int,
) -> None:
    """Detectors, and SUMO's own controllers where one of those is wanted."""
    root = ET.Element("additional")
    for junction in found:
        for area in junction.areas:
            ET.SubElement(
                root, "laneAreaDetector", id=area.id, lane=area.lane, pos=str(area.begin_m),
                endPos=str(area.end_m), period=str(interval_s), file=os.devnull, friendlyPos="true",
            )  # fmt: skip
    if controller in ("actuated", "delay_based"):
        for program in shipped.values():
            if program.kind != controller and len({p.open for p in program.phases}) > 1:
                _write_program(root, program, controller)
    ET.ElementTree(root).write(path)


def _write_program(root: ET.Element, program: Program, kind: str) -> None:
    """The same phases for one of SUMO's controllers; neighbours that look alike are one."""
    logic = ET.SubElement(root, "tlLogic", id=program.light, type=kind, programID=kind, offset="0")
    rows: list[tuple[float, str, bool]] = []
    for phase in program.phases:
        if rows and rows[-1][1] == phase.state:
            rows[-1] = (rows[-1][0] + phase.duration_s, phase.state, phase.settled)
        else:
            rows.append((phase.duration_s, phase.state, phase.settled))
    for duration, state, settled in rows:
        told = {"duration": str(duration), "state": state}
        if settled:
            told |= {"minDur": str(min(5.0, duration)), "maxDur": "50"}
        ET.SubElement(logic, "phase", attrib=told)
