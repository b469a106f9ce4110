"""What controllers see and say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from citybrain.signals import Junction

Row = npt.NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class View:
    """A junction at one tick, by movement in the order of `Junction.movements`.

    stage: what is shown or being changed to; stage_s: for how long it has been fully shown;
    changing: the change to `stage` is under way. ready_s: stage -> the time until it would be
    fully shown if it were asked for now.

    queue: vehicles at the stop line now (pedestrians: who has called). coming: vehicles by
    second of arrival at the stop line, (movements, seconds). room: share of the space beyond
    the junction that is free, 0 to 1. waited_s: how long the oldest call has been waiting;
    red_s: how long the group has been red. age_s: how old the detector states are; NaN where
    nothing is known of a movement. served: share of its saturation flow that a movement was seen
    to use when it could. blocked: groups that must not open. weight: group -> how
    much more its waiting counts (1 if absent).
    """

    now_ms: int
    stage: str
    stage_s: float
    changing: bool
    ready_s: Callable[[str], float]
    queue: Row
    coming: Row
    room: Row
    waited_s: Row
    red_s: Row
    age_s: Row
    served: Row
    blocked: frozenset[str] = frozenset()
    weight: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """A stage to go to or stay in, and why, in English and Chinese, for an engineer. source: in
    whose name the plan for it is told."""

    stage: str
    why: str
    why_zh: str = ""
    source: Literal["adaptive", "emergency", "priority"] = "adaptive"


class Controller(Protocol):
    """Decides for one junction. Keeps nothing: the same view gives the same decision."""

    def __init__(self, junction: Junction) -> None: ...

    def decide(self, view: View) -> Decision | None:
        """The stage wanted from now on; None leaves the junction to its local plan."""
