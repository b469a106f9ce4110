"""The controller at the street: shows lamps, knows its push buttons."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from citybrain.signals import Junction, Lamp


class Street(Protocol):
    """As little of a controller as the arbiter needs.

    An NTCIP 1202 controller does the same with objects of its phase control group: `show`
    holds, forces off and omits phases, `calls` reads the pedestrian detectors' status.
    """

    def show(self, lamps: Mapping[str, Lamp]) -> None:
        """Show these lamps, by signal group."""

    def calls(self) -> Collection[str]:
        """Pedestrian groups whose button was pressed since the last look."""


class SumoStreet:
    """A light of a running SUMO simulation. A link that the table lacks stays red."""

    def __init__(self, sumo: Any, junction: Junction) -> None:
        self._sumo = sumo
        self._junction = junction
        self._size = len(sumo.trafficlight.getRedYellowGreenState(junction.id))
        self._owner = {link: g.id for g in junction.table.groups for link in g.links}
        self._pressed: set[str] = set()

    def show(self, lamps: Mapping[str, Lamp]) -> None:
        """G, or g for a link that gives way to one that is open."""
        state = "".join(self._letter(link, lamps) for link in range(self._size))
        self._sumo.trafficlight.setRedYellowGreenState(self._junction.id, state)

    def press(self, group: str) -> None:
        """Somebody pushes the button of a pedestrian group."""
        self._pressed.add(group)

    def calls(self) -> Collection[str]:
        """Buttons pressed since the last look."""
        pressed, self._pressed = self._pressed, set()
        return pressed

    def _letter(self, link: int, lamps: Mapping[str, Lamp]) -> str:
        lamp = self._lamp(link, lamps)
        if lamp != "green":
            return "r" if lamp == "red" else "y"
        before = self._junction.yields.get(str(link), ())
        return "g" if any(self._lamp(other, lamps) != "red" for other in before) else "G"

    def _lamp(self, link: int, lamps: Mapping[str, Lamp]) -> Lamp:
        group = self._owner.get(link)
        return lamps[group] if group is not None else "red"
