"""Max-pressure (Varaiya 2013, doi 10.1016/j.trc.2013.08.014) from detectors, semi-cyclic."""

import numpy as np

from citybrain.models.signals.base import Decision, View
from citybrain.signals import Junction


class MaxPressure:
    """Shows the stage with the largest queue that can leave; keeps it for a while."""

    MIN_S = 5.0
    MAX_WAIT_S = 110.0
    KEEP = 1.2

    def __init__(self, junction: Junction) -> None:
        self._served = stages(junction)

    def decide(self, view: View) -> Decision | None:
        """Stay for the minimum; then the stage with the most pressure."""
        if view.changing or view.stage_s < self.MIN_S:
            return Decision(view.stage, "minimum")
        pressure = (view.queue + view.coming) * view.room
        weight = {stage: float(pressure[served].sum()) for stage, served in self._served.items()}
        weight[view.stage] *= self.KEEP
        overdue = np.flatnonzero(view.waited_s > self.MAX_WAIT_S)
        if len(overdue):
            worst = overdue[np.argmax(view.waited_s[overdue])]
            waiting = [s for s, served in self._served.items() if served[worst]]
            return Decision(max(waiting, key=lambda s: weight[s]), "waited too long")
        best = max(weight, key=lambda s: (weight[s], s == view.stage))
        return Decision(best, f"pressure {weight[best]:.1f}")


def stages(junction: Junction) -> dict[str, np.ndarray]:
    """Stage -> which movements it opens (boolean, in the order of `junction.movements`)."""
    return {
        stage.name: np.array([m.group in stage.green for m in junction.movements])
        for stage in junction.stages
    }
