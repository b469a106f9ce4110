"""Link states of a shard: when to say how a link flows, and until when that holds."""

from dataclasses import dataclass

import numpy as np

from citybrain.kinds import MINUTE
from citybrain.models.block import Array, Arrays, aligned
from citybrain.models.congestion import STATES, UNKNOWN, Flow, State, classes
from citybrain.models.detectors.base import Axis
from citybrain.models.seen import Seen


@dataclass(frozen=True, slots=True)
class Said:
    """One link's state as it is to be published."""

    link: str
    state: State
    ratio: float | None
    speed_kmh: float | None
    occupancy: float | None


class Links:
    """Folds windows into `Flow` and says what changed, or what would expire unsaid.

    kinds: what its sensors measure; the first decides when states are said. A state holds
    for two minutes or four windows; it is said again when half of that is over.
    """

    def __init__(self, axis: Axis, flow: Flow, pane_ms: int, kinds: tuple[str, ...]) -> None:
        self.axis = axis
        self.kinds = kinds
        self.holds_ms = max(2 * MINUTE, 4 * pane_ms)
        self._flow = flow
        self.state: Arrays = flow.fresh() | {
            "said": np.full(len(axis.names), -1, dtype=np.int64),
            "said_ms": np.full(len(axis.names), -1, dtype=np.int64),
        }

    def take(self, seen: Seen) -> None:
        """A window of `vehicle_speed` or `occupancy`."""
        self._flow.take(self.state, seen)

    def ratios(self) -> Array:
        """Speed over free speed by link now, NaN where unknown."""
        return self._flow.ratios(self.state)[0]

    def restore(self, arrays: Arrays, names: tuple[str, ...]) -> None:
        """Become the state of the links `names`; links that are new start unknown."""
        self.state.update(aligned(arrays, names, self.axis.names, self.state))

    def say(self, at_ms: int) -> list[Said]:
        """The states to publish at this time; remembers that they were."""
        ratio, speed, occupancy = self._flow.ratios(self.state)
        now = classes(ratio)
        due = (now != self.state["said"]) | (at_ms - self.state["said_ms"] >= self.holds_ms // 2)
        # What was never known need not be repeated: it is unknown already.
        due &= ~((now == UNKNOWN) & ((self.state["said"] < 0) | (self.state["said"] == UNKNOWN)))
        self.state["said"][due] = now[due]
        self.state["said_ms"][due] = at_ms
        return [
            Said(
                self.axis.names[i],
                STATES[int(now[i])],
                *(
                    None if np.isnan(v[i]) else round(float(v[i]), 3)
                    for v in (ratio, speed, occupancy)
                ),
            )
            for i in np.flatnonzero(due)
        ]
