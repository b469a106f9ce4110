"""The local plan, for comparison in the same loop."""

from citybrain.models.signals.base import Decision, View
from citybrain.signals import Junction


class Fixed:
    """Follows the junction's local plan by the clock, so that offsets hold."""

    def __init__(self, junction: Junction) -> None:
        self._steps = [
            (step.stage, step.green_ms + _lost_ms(junction)) for step in junction.plan.steps
        ]
        self._offset_ms = junction.plan.offset_ms
        self._cycle_ms = sum(length for _, length in self._steps)

    def decide(self, view: View) -> Decision | None:
        """The stage that the plan shows at this time."""
        into = (view.now_ms - self._offset_ms) % self._cycle_ms
        for stage, length in self._steps:
            if into < length:
                return Decision(stage, "local plan")
            into -= length
        return None


def _lost_ms(junction: Junction) -> int:
    """Time between two stages: the longest yellow of the junction."""
    return max(group.yellow_ms for group in junction.table.groups)
