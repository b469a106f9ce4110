"""The controllers' side of a simulated city: an arbiter, detectors and lamps at every junction.

What a controller cabinet at the street does with real lamps: it follows the plans that reach
it, reports what its detectors see and its lamps show, and runs its local plan when nobody says
better. It knows nothing of Kafka; plans come in and reports go out through the edge agent.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from citybrain.edge.arbiter import Arbiter
from citybrain.edge.area_detectors import AreaDetectors
from citybrain.edge.measures import Measures
from citybrain.edge.phase_measures import PhaseMeterer
from citybrain.edge.street import SumoStreet
from citybrain.edge.walkers import Walkers
from citybrain.signal_log import GATEWAY, Detections, Measured, PhaseMeasures, Report
from citybrain.signals import Control, DetectorState, Junction, Plan, Refusal

Utc = Callable[[int], int]
"""The controllers' time of day in ms, at a simulated second."""

_REFUSALS = 1_000


def simulated(second: int) -> int:
    """The time of day that the simulation itself has."""
    return second * 1_000


class Cabinets:
    """All controllers of a running simulation. `tick` comes before each of its steps.

    second: UTC second at which they are switched on, all red. key: of the plans' signatures.
    Raises PackError for a junction that does not hold together.
    """

    def __init__(
        self,
        sumo: Any,
        junctions: Mapping[str, Junction],
        control: Control,
        key: bytes,
        seed: int,
        second: int,
    ) -> None:
        self._sumo = sumo
        self._junctions = junctions
        self._measures: Measures | None = None
        self._meterers: list[PhaseMeterer] = []
        self._begun_s = second
        self._second = second
        self.utc: Utc = simulated
        self.arbiters = {
            name: Arbiter(junction, key, simulated(second)) for name, junction in junctions.items()
        }
        self._streets = {name: SumoStreet(sumo, j) for name, j in junctions.items()}
        areas = [area for junction in junctions.values() for area in junction.areas]
        rng = np.random.default_rng((seed, second))
        self._detectors = AreaDetectors(areas, control.detectors, rng)
        self.walkers = Walkers(junctions.values())
        self._detections: list[Detections] = []
        self._refusals: list[Refusal] = []
        self.refused: Counter[str] = Counter()
        """Plans and changes of lamps that were turned down, by rule."""
        self.plans: Counter[str] = Counter()
        """Plans that were taken, by source."""

    def tick(self, second: int) -> None:
        """A second begins: look, decide whom to follow, change lamps."""
        self._second = second
        now_ms, up_ms = self.utc(second), (second - self._begun_s) * 1_000
        arrived = self._detectors.read(self._sumo, second)
        if arrived:
            self._detections.append(_columns(arrived, now_ms - simulated(second)))
        for junction, group in self.walkers.look(self._sumo, second):
            self._streets[junction].press(group)
        for name, arbiter in self.arbiters.items():
            street = self._streets[name]
            verdict = arbiter.tick(now_ms, up_ms, street.calls())
            street.show(verdict.lamps)
            self._collect(arbiter)

    def measure(self) -> None:
        """From now on measure what the lamps do to people."""
        self._measures = Measures(self._junctions.values())
        self._meterers = [PhaseMeterer(junction) for junction in self._junctions.values()]
        self.walkers.waits.clear()

    def look(self) -> None:
        """A step of the simulation has been made: measure it."""
        if self._measures is None:
            return
        waits = self.walkers.waits
        self._measures.look(self._sumo, self.utc(self._second + 1), waits)
        waits.clear()
        for meterer in self._meterers:
            lamps = self.arbiters[meterer.junction].interlock.lamps
            meterer.look(self._sumo, self._second, lamps)

    def measured(self, run: str) -> Measured:
        """What has been measured. `measure` comes before."""
        assert self._measures is not None
        return self._measures.figures(
            run, self.utc(self._second + 1), self._sumo.vehicle.getIDCount(),
            len(self._sumo.simulation.getPendingVehicles()),
        )  # fmt: skip

    def phases(self) -> list[PhaseMeasures]:
        """The measures of each junction."""
        return [meterer.figures() for meterer in self._meterers]

    def take(self, plans: Iterable[Plan]) -> None:
        """Plans have arrived, for whichever junction they say."""
        now_ms = self.utc(self._second)
        for plan in plans:
            arbiter = self.arbiters.get(plan.junction)
            if arbiter is None:
                why = f"junction: {plan.junction!r} is not one of ours"
                self._refuse(Refusal(plan.junction, now_ms, "junction", why))
            elif arbiter.take(now_ms, plan) is None:
                self.plans[plan.source] += 1
            else:
                self._collect(arbiter)

    def report(self) -> Report:
        """What there is to say since the last report."""
        detections, self._detections = self._detections, []
        refusals, self._refusals = self._refusals, []
        return Report(
            gateway=GATEWAY,
            at_ms=self.utc(self._second),
            shown=[arbiter.report() for arbiter in self.arbiters.values()],
            detections=detections[-2:],
            refusals=refusals,
            generated=True,
        )

    def _collect(self, arbiter: Arbiter) -> None:
        while arbiter.refusals:
            self._refuse(arbiter.refusals.popleft())

    def _refuse(self, refusal: Refusal) -> None:
        self.refused[refusal.rule] += 1
        if len(self._refusals) < _REFUSALS:
            self._refusals.append(refusal)


def _columns(states: Mapping[str, DetectorState], ahead_ms: int) -> Detections:
    """States as one record. ahead_ms: the controllers' clock less the simulation's."""
    told = list(states.values())
    return Detections(
        at_ms=max(state.at_ms for state in told) + ahead_ms,
        expires_ms=max(state.expires_ms for state in told) + ahead_ms,
        detectors=[state.detector for state in told],
        passed=[state.passed for state in told],
        present=[state.present for state in told],
        waiting=[state.waiting for state in told],
    )
