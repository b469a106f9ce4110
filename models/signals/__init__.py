"""Signal controllers: which stage a junction should show next, from what detectors say.

A controller decides for one junction on ticks. It knows nothing of lamps, yellow or clearance:
the arbiter at the junction turns its stages into safe lamps. A new one is one file and one
line in `CONTROLLERS`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from citybrain.models.signals import horizon
from citybrain.models.signals.base import Controller, Decision, View
from citybrain.models.signals.fixed import Fixed
from citybrain.models.signals.horizon import Horizon
from citybrain.models.signals.pressure import MaxPressure
from citybrain.signals import Junction

CONTROLLERS: dict[str, Callable[[Junction], Controller]] = {
    "fixed": Fixed,
    "max-pressure": MaxPressure,
    "horizon": Horizon,
}
"""Name -> how to make one for a junction."""

TOGETHER: dict[str, Callable[[Sequence[tuple[Any, View]]], list[Decision | None]]] = {
    "horizon": horizon.decide_all,
}
"""Controllers that decide faster for many junctions at once, with the same decisions."""
