"""Who waits at which signalled crossing of a simulation: the push buttons, and how long it took."""

from collections.abc import Iterable
from typing import Any

from citybrain.edge.outcome import edge_of
from citybrain.signals import Junction


class Walkers:
    """Looks for people on foot who stand before a crossing that has a light."""

    def __init__(self, found: Iterable[Junction]) -> None:
        self._crossings: dict[str, list[tuple[str, str]]] = {}
        for junction in found:
            walks = {g.id for g in junction.table.groups if g.kind == "pedestrian"}
            for move in junction.movements:
                for lane in move.lanes_out if move.group in walks else ():
                    at = self._crossings.setdefault(edge_of(lane), [])
                    at.append((junction.id, move.group))
        self._since: dict[tuple[str, str], int] = {}
        self.waits: list[float] = []
        """Waits in s that have ended, in the order in which they did."""

    def look(self, sumo: Any, now_s: int) -> set[tuple[str, str]]:
        """(junction, group) of the buttons that somebody stands at."""
        if not self._crossings:
            return set()
        pressed: set[tuple[str, str]] = set()
        here: set[tuple[str, str]] = set()
        for person in sumo.person.getIDList():
            if not sumo.person.getRoadID(person).startswith(":"):
                continue
            crossing = sumo.person.getNextEdge(person)
            groups = self._crossings.get(crossing)
            if groups and sumo.person.getSpeed(person) < 0.1:
                pressed.update(groups)
                here.add((person, crossing))
        for gone in self._since.keys() - here:
            self.waits.append(float(now_s - self._since.pop(gone)))
        for new in here - self._since.keys():
            self._since[new] = now_s
        return pressed

    def end(self, now_s: int) -> list[float]:
        """All waits; those that have not ended count as at the end."""
        return self.waits + [float(now_s - since) for since in self._since.values()]
