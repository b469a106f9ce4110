"""From a wanted stage to lamps: closes what must close, waits, opens what may open.

Pure. Decides one change at a time and never more than its table allows; the interlock judges
every step of it all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from citybrain.errors import PackError
from citybrain.signal_log import Shown
from citybrain.signals import Group, Junction, Lamp


@dataclass(slots=True)
class _State:
    group: Group
    lamp: Lamp
    since_ms: int

    def closed_in_ms(self, now_ms: int) -> int:
        """How long until a foe may open, if this group starts to close now."""
        group, lasted = self.group, now_ms - self.since_ms
        if self.lamp == "green":
            rest = max(0, group.min_green_ms - lasted)
            return rest + group.yellow_ms + group.clear_ms
        if self.lamp == "yellow":
            return max(0, group.yellow_ms - lasted) + group.clear_ms
        return max(0, group.clear_ms - lasted)


class Sequencer:
    """The lamps of one junction on their way from stage to stage. Starts all red.

    A pedestrian group of the stage opens when somebody has called for it, and closes after its
    minimum green, so that its long clearance stands in nobody's way; with `recall` it is
    open throughout the stage. A vehicle group that has to close waits until the pedestrians
    that need longer have cleared.

    Raises PackError if a stage opens two groups that exclude each other.
    """

    def __init__(self, junction: Junction, now_ms: int) -> None:
        self._junction = junction.id
        self._groups = {g.id: _State(g, "red", now_ms) for g in junction.table.groups}
        self._foes: dict[str, set[str]] = {name: set() for name in self._groups}
        for one, other in junction.table.conflicts:
            self._foes[one].add(other)
            self._foes[other].add(one)
        self.stages = {stage.name: frozenset(stage.green) for stage in junction.stages}
        for name, green in self.stages.items():
            for group in sorted(green):
                if clash := self._foes[group] & green:
                    raise PackError(
                        f"junction {junction.id}: stage {name}: {group} and {min(clash)} exclude"
                        " each other"
                    )
        self.walks = frozenset(g.id for g in junction.table.groups if g.kind == "pedestrian")
        """The pedestrian groups."""
        self.target = junction.plan.steps[0].stage
        self.recall = False
        self.calls: set[str] = set()
        """Pedestrian groups that somebody waits at; kept until they are green."""
        self.reached_ms: int | None = None
        """When all vehicle groups of the target and no others were green, None before."""

    def aim(self, stage: str) -> None:
        """Go to a stage. What is under way there goes on; a closing group closes first.

        Raises KeyError for a stage that the junction does not have.
        """
        if stage not in self.stages:
            raise KeyError(stage)
        if stage != self.target:
            self.target, self.reached_ms = stage, None

    def report(self, now_ms: int, utc_ms: int, source: str) -> Shown:
        """What is shown, for whoever decides. now_ms: as in `step`; utc_ms: the time of day."""
        reached = self.reached_ms
        return Shown(
            junction=self._junction,
            at_ms=utc_ms,
            source=source,
            stage=self.target,
            stage_ms=-1 if reached is None else now_ms - reached,
            lamps="".join(state.lamp[0] for state in self._groups.values()),
            ready_ms=[self.ready_in_ms(now_ms, stage) for stage in self.stages],
            calls=sorted(self.calls),
            lamp_ms=[now_ms - state.since_ms for state in self._groups.values()],
        )

    def restart(self, now_ms: int) -> None:
        """The lamps' history is unknown (the clock has jumped): every time starts anew."""
        for state in self._groups.values():
            state.since_ms = now_ms

    def ready_in_ms(self, now_ms: int, stage: str) -> int:
        """How long until all vehicle groups of a stage are green, if it is aimed for now."""
        green = self.stages[stage]
        return max(
            (
                self._open_in_ms(name, green, now_ms)
                for name in green
                if self._groups[name].lamp != "green" and name not in self.walks
            ),
            default=0,
        )

    def step(self, now_ms: int) -> Mapping[str, Lamp]:
        """The changes to ask for at `now_ms`; call `shown` if they were let through."""
        wanted: dict[str, Lamp] = {}
        green = self._wanted(now_ms)
        opening = {
            name: self._open_in_ms(name, green, now_ms)
            for name in green
            if self._groups[name].lamp == "red"
        }
        for name, state in self._groups.items():
            lasted = now_ms - state.since_ms
            group = state.group
            if state.lamp == "yellow" and lasted >= group.yellow_ms:
                wanted[name] = "red"
            elif state.lamp == "green" and name not in green and lasted >= group.min_green_ms:
                needed = group.yellow_ms + group.clear_ms
                waiting = [ms for other, ms in opening.items() if other in self._foes[name]]
                if name in self.walks or not waiting or min(waiting) <= needed:
                    wanted[name] = "yellow" if group.yellow_ms else "red"
            elif state.lamp == "red" and name in green and opening[name] == 0:
                wanted[name] = "green"
        return wanted

    def shown(self, now_ms: int, lamps: Mapping[str, Lamp]) -> None:
        """Take over what the lamps really show."""
        for name, lamp in lamps.items():
            state = self._groups[name]
            if state.lamp != lamp:
                state.lamp, state.since_ms = lamp, now_ms
            if lamp == "green":
                self.calls.discard(name)
        green = {name for name, state in self._groups.items() if state.lamp == "green"}
        if green - self.walks == self.stages[self.target] - self.walks:
            self.reached_ms = self.reached_ms if self.reached_ms is not None else now_ms
        else:
            self.reached_ms = None

    def _wanted(self, now_ms: int) -> frozenset[str]:
        """Groups of the target that should be green now: pedestrians only for who walks."""
        green = self.stages[self.target]
        if self.recall:
            return green
        called = set()
        for name in green & self.walks:
            state = self._groups[name]
            fresh = now_ms - state.since_ms < state.group.min_green_ms
            if name in self.calls or (state.lamp == "green" and fresh):
                called.add(name)
        return (green - self.walks) | called

    def _open_in_ms(self, name: str, green: frozenset[str], now_ms: int) -> int:
        """How long until a red group may open: its foes have closed and cleared."""
        return max(
            (
                self._groups[foe].closed_in_ms(now_ms)
                for foe in self._foes[name]
                if foe not in green
            ),
            default=0,
        )
