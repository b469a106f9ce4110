"""The street network that ships in the `eclipse-sumo` wheel, read for the pack and the world."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from citybrain.errors import SetupError

NETWORK = Path("tools/game/DRT/osm.net.xml")
CAR = "passenger"
"""The simulator's class of cars."""


def sumo_home() -> Path:
    """The installed SUMO's folder; makes its projection data known to this process.

    Raises SetupError if the `world` extra is not installed.
    """
    try:
        import sumo
    except ImportError as error:
        raise SetupError("sumo: not installed; install citybrain[world]") from error
    home = Path(sumo.__file__).parent
    os.environ["PROJ_DATA"] = str(home / "data" / "proj")
    os.environ["SUMO_HOME"] = str(home)
    # libsumo brings an Arrow of its own and warns of a pyarrow beside it. The world's
    # processes never load pyarrow.
    os.environ["LIBSUMO_AS_TRACI"] = "quiet"
    return home


def network_file() -> Path:
    """The network's file. Raises SetupError as `sumo_home`, or if the wheel lacks the file."""
    path = sumo_home() / NETWORK
    if not path.is_file():
        raise SetupError(f"{path}: missing; this eclipse-sumo wheel holds no such network")
    return path


def plain(edge: str) -> str:
    """An edge's id as a name that needs no quoting: `-72230304#1` -> `72230304.1r`."""
    forward = edge.removeprefix("-").replace("#", ".")
    return forward + "r" if edge.startswith("-") else forward


@dataclass(frozen=True)
class Network:
    """A read network. Edges and lights are sumolib's own objects."""

    net: Any

    @classmethod
    def read(cls) -> "Network":
        """From the installed wheel."""
        path = network_file()
        import sumolib

        return cls(sumolib.net.readNet(str(path), withInternal=True, withPrograms=True))

    @cached_property
    def roads(self) -> list[Any]:
        """Edges that cars may use, by id."""
        edges = (e for e in self.net.getEdges() if e.allows(CAR) and not e.getFunction())
        return sorted(edges, key=lambda e: str(e.getID()))

    @cached_property
    def lights(self) -> dict[str, list[Any]]:
        """Road signal -> lanes that cars reach it on, by id. Signals without any are left out."""
        found = {}
        for light in sorted(self.net.getTrafficLights(), key=lambda t: str(t.getID())):
            lanes = {
                str(a.getID()): a
                for a, _, _ in light.getConnections()
                if a.allows(CAR) and not a.getEdge().getFunction()
            }
            if light.getPrograms() and lanes:
                found[str(light.getID())] = [lanes[key] for key in sorted(lanes)]
        return found

    def crossings(self, light: str) -> list[Any]:
        """Pedestrian crossings that a signal controls, by id."""
        nodes = {a.getEdge().getToNode().getID() for a in self.lights[light]}
        found = [
            e
            for e in self.net.getEdges()
            if e.getFunction() == "crossing" and e.getID()[1:].rpartition("_c")[0] in nodes
        ]
        return sorted(found, key=lambda e: str(e.getID()))

    @cached_property
    def entries(self) -> list[Any]:
        """Edges on which cars enter the city from outside."""
        return [e for e in self.roads if not _others(e, e.getFromNode().getIncoming())]

    @cached_property
    def exits(self) -> list[Any]:
        """Edges on which cars leave the city."""
        return [e for e in self.roads if not _others(e, e.getToNode().getOutgoing())]


def car_lanes(edge: Any) -> list[Any]:
    """Lanes of an edge that cars may use."""
    return [lane for lane in edge.getLanes() if lane.allows(CAR)]


def middle(edge: Any) -> tuple[float, float]:
    """The point half-way along an edge."""
    import sumolib

    x, y = sumolib.geomhelper.positionAtShapeOffset(edge.getShape(), edge.getLength() / 2)
    return float(x), float(y)


def _others(edge: Any, neighbours: list[Any]) -> list[Any]:
    """Car edges among an edge's neighbours at one end, its own way back not counted."""
    back = (edge.getToNode(), edge.getFromNode())
    return [
        e
        for e in neighbours
        if e.allows(CAR) and not e.getFunction() and (e.getFromNode(), e.getToNode()) != back
    ]
