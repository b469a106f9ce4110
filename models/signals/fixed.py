"""The local plan, for comparison in the same loop."""

from citybrain.models.signals.base import Decision, View
from citybrain.models.signals.timing import schedule
from citybrain.signals import Junction


class Fixed:
    """Follows the junction's local plan by the clock, so that offsets hold."""

    def __init__(self, junction: Junction) -> None:
        self._steps = [(stage, change + green) for stage, change, green in schedule(junction)]
        self._offset_ms = junction.plan.offset_ms
        self._cycle_ms = sum(length for _, length in self._steps)

    def decide(self, view: View) -> Decision:
        """The stage that the plan shows at this time."""
        return self.at(view.now_ms)

    def at(self, now_ms: int) -> Decision:
        """The stage that the plan shows at a time."""
        into = (now_ms - self._offset_ms) % self._cycle_ms
        for stage, length in self._steps:
            if into < length:
                return Decision(stage, "local plan", "本地方案")
            into -= length
        raise AssertionError("a cycle is the sum of its steps")
