"""What controllers see and say."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from citybrain.signals import Junction

Row = npt.NDArray[np.float64]


@dataclass(slots=True)
class View:
    """A junction at one tick, by movement in the order of `Junction.movements`.

    queue: vehicles that stand on the way to the stop line. coming: vehicles that move towards
    it within reach. room: share of the space beyond the junction that is free, 0 to 1.
    waited_s: how long the oldest call has been waiting. calls: pedestrians or vehicles wait.
    age_s: how old the detector states are; NaN where nothing is known of a movement.
    stage: what is shown or being changed to; stage_s: for how long it has been fully shown.
    changing: the change to `stage` is under way.
    """

    now_ms: int
    stage: str
    stage_s: float
    changing: bool
    queue: Row
    coming: Row
    room: Row
    waited_s: Row
    age_s: Row
    blocked: frozenset[str] = frozenset()
    weight: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """A stage to go to or stay in, and why, in words for an engineer."""

    stage: str
    why: str


class Controller(Protocol):
    """Decides for one junction. Deterministic: state changes by `decide` alone."""

    def __init__(self, junction: Junction) -> None: ...

    def decide(self, view: View) -> Decision | None:
        """The stage wanted from now on; None leaves the junction to its local plan."""
