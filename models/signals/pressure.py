"""Max-pressure (Varaiya 2013, doi 10.1016/j.trc.2013.08.014) from detectors, as a peer."""

import numpy as np

from citybrain.models.signals.base import Decision, View
from citybrain.models.signals.timing import useful_stages
from citybrain.signals import Junction


class MaxPressure:
    """Shows the stage with the largest queue that can leave; keeps it for a while."""

    MIN_S = 5.0
    MAX_RED_S = 100.0
    KEEP = 1.2

    def __init__(self, junction: Junction) -> None:
        useful = useful_stages(junction)
        self._served = {
            stage.name: np.array([m.group in stage.green for m in junction.movements])
            for stage in junction.stages
            if stage.name in useful
        }

    def decide(self, view: View) -> Decision | None:
        """Stay for the minimum; then the stage with the most pressure."""
        if view.changing or view.stage_s < self.MIN_S:
            return Decision(view.stage, "minimum green", "最短绿灯")
        pressure = (view.queue + view.coming[:, :12].sum(axis=1)) * view.room
        weight = {stage: float(pressure[served].sum()) for stage, served in self._served.items()}
        if view.stage in weight:
            weight[view.stage] *= self.KEEP
        worst = int(np.argmax(view.red_s))
        waiting = [stage for stage, served in self._served.items() if served[worst]]
        if waiting and view.red_s[worst] > self.MAX_RED_S:
            return Decision(max(waiting, key=lambda s: weight[s]), "red for too long", "红灯过长")
        best = max(weight, key=lambda s: (weight[s], s == view.stage))
        return Decision(best, f"pressure {weight[best]:.1f}", f"排队压力 {weight[best]:.1f}")
