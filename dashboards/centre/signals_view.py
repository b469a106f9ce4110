"""What the page shows of the signals: each junction, who decides there, and the comparison."""

from collections.abc import Iterable
from typing import Any

import msgspec

from citybrain.city import City
from citybrain.signal_log import Measured, PhaseMeasures, Report
from citybrain.signals import Because, Junction, Plan


class JunctionView(msgspec.Struct, frozen=True, kw_only=True):
    """One junction. lamps: r, y or g by group; plan_ms: when the last plan was issued, 0 for
    none; why, why_zh, because: of the plan that is followed."""

    junction: str
    at_ms: int
    source: str
    stage: str
    changing: bool
    lamps: str
    calls: list[str] = []
    plan_ms: int = 0
    why: str = ""
    why_zh: str = ""
    because: list[Because] = []
    phases: PhaseMeasures | None = None


class SignalsView(msgspec.Struct, frozen=True, kw_only=True):
    """What is new of the signals."""

    junctions: list[JunctionView] = []
    measured: list[Measured] = []


class SignalsState:
    """The latest of every junction of a city. Bounded by the pack."""

    def __init__(self, city: City) -> None:
        self._known = frozenset(city.signals)
        self._views: dict[str, JunctionView] = {}
        self._plans: dict[tuple[str, str], Plan] = {}
        self._phases: dict[str, PhaseMeasures] = {}
        self._measured: dict[str, Measured] = {}
        self._new: set[str] = set()
        self._new_runs: set[str] = set()

    def take_report(self, report: Report) -> None:
        """What controllers say; the latest holds."""
        for phases in report.phases:
            self._phases[phases.junction] = phases
        for run in report.measured:
            self._measured[run.run] = run
            self._new_runs.add(run.run)
        for shown in report.shown:
            before = self._views.get(shown.junction)
            if shown.junction not in self._known or (before and before.at_ms >= shown.at_ms):
                continue
            view = JunctionView(
                junction=shown.junction, at_ms=shown.at_ms, source=shown.source,
                stage=shown.stage, changing=shown.stage_ms < 0, lamps=shown.lamps,
                calls=shown.calls,
            )  # fmt: skip
            self._views[shown.junction] = view
            self._new.add(shown.junction)

    def take_plan(self, plan: Plan) -> None:
        """A plan was told."""
        if plan.junction in self._known:
            self._plans[plan.junction, plan.source] = plan
            self._new.add(plan.junction)

    def changes(self) -> SignalsView | None:
        """What is new since the last call."""
        if not (self._new or self._new_runs):
            return None
        view = self._view(self._new, self._new_runs)
        self._new, self._new_runs = set(), set()
        return view

    def snapshot(self) -> SignalsView:
        """Everything."""
        return self._view(self._views, self._measured)

    def _view(self, junctions: Iterable[str], runs: Iterable[str]) -> SignalsView:
        views = [self._views[name] for name in sorted(junctions) if name in self._views]
        return SignalsView(
            junctions=[self._explained(view) for view in views],
            measured=[self._measured[run] for run in sorted(runs)],
        )

    def _explained(self, view: JunctionView) -> JunctionView:
        plan = self._plans.get((view.junction, view.source))
        phases = self._phases.get(view.junction)
        if plan is None:
            return msgspec.structs.replace(view, phases=phases)
        return msgspec.structs.replace(
            view, plan_ms=plan.issued_ms, why=plan.why, why_zh=plan.why_zh, because=plan.because,
            phases=phases,
        )  # fmt: skip


def junctions(city: City) -> dict[str, Any]:
    """What of the pack's junctions the page needs: where they are, their groups and roads."""
    return {name: _junction(city, junction) for name, junction in city.signals.items()}


def _junction(city: City, junction: Junction) -> dict[str, Any]:
    links = {lane.rpartition("_")[0] for m in junction.movements for lane in m.lanes_in}
    roads = [city.links[link] for link in sorted(links) if link in city.links]
    ends = [road.line[-1] for road in roads]
    names = list(dict.fromkeys(road.name for road in roads if road.name))
    return {
        "lon": sum(lon for lon, _ in ends) / len(ends) if ends else None,
        "lat": sum(lat for _, lat in ends) / len(ends) if ends else None,
        "roads": names,
        "groups": [{"id": group.id, "kind": group.kind} for group in junction.table.groups],
    }
