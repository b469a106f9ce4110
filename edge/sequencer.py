"""From a wanted stage to lamps: closes what must close, waits, opens what may open.

Pure. Decides one change at a time and never more than its table allows; the interlock judges
every step of it all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from citybrain.errors import PackError
from citybrain.signals import Group, Junction, Lamp


@dataclass(slots=True)
class _State:
    group: Group
    lamp: Lamp
    since_ms: int


class Sequencer:
    """The lamps of one junction on their way from stage to stage. Starts all red.

    Raises PackError if a stage opens two groups that exclude each other.
    """

    def __init__(self, junction: Junction, now_ms: int) -> None:
        self._groups = {g.id: _State(g, "red", now_ms) for g in junction.table.groups}
        self._foes: dict[str, set[str]] = {name: set() for name in self._groups}
        for one, other in junction.table.conflicts:
            self._foes[one].add(other)
            self._foes[other].add(one)
        self.stages = {stage.name: frozenset(stage.green) for stage in junction.stages}
        for name, green in self.stages.items():
            for group in green:
                if clash := self._foes[group] & green:
                    raise PackError(
                        f"junction {junction.id}: stage {name}: {group} and {min(clash)} exclude"
                        " each other"
                    )
        self.target = junction.plan.steps[0].stage
        self.reached_ms: int | None = None
        """When all groups of the target were green, None while they are not."""

    def aim(self, stage: str) -> None:
        """Go to a stage. What is under way there goes on; a closing group closes first.

        Raises KeyError for a stage that the junction does not have.
        """
        if stage not in self.stages:
            raise KeyError(stage)
        if stage != self.target:
            self.target, self.reached_ms = stage, None

    def step(self, now_ms: int) -> Mapping[str, Lamp]:
        """The changes to ask for at `now_ms`; call `shown` if they were let through."""
        wanted: dict[str, Lamp] = {}
        green = self.stages[self.target]
        for name, state in self._groups.items():
            lasted = now_ms - state.since_ms
            group = state.group
            if state.lamp == "yellow" and lasted >= group.yellow_ms:
                wanted[name] = "red"
            elif state.lamp == "green" and name not in green and lasted >= group.min_green_ms:
                wanted[name] = "yellow" if group.yellow_ms else "red"
            elif state.lamp == "red" and name in green and self._clear(name, now_ms):
                wanted[name] = "green"
        return wanted

    def shown(self, now_ms: int, lamps: Mapping[str, Lamp]) -> None:
        """Take over what the lamps really show."""
        for name, lamp in lamps.items():
            state = self._groups[name]
            if state.lamp != lamp:
                state.lamp, state.since_ms = lamp, now_ms
        green = {name for name, state in self._groups.items() if state.lamp == "green"}
        if green == self.stages[self.target]:
            self.reached_ms = self.reached_ms if self.reached_ms is not None else now_ms
        else:
            self.reached_ms = None

    def _clear(self, name: str, now_ms: int) -> bool:
        return all(
            self._groups[foe].lamp == "red"
            and now_ms - self._groups[foe].since_ms >= self._groups[foe].group.clear_ms
            for foe in self._foes[name]
        )
