"""Signal programs of a SUMO network, as the network and its additional files say them."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from citybrain.errors import PackError

_ROAD_TYPES = ("static", "actuated", "delay_based", "NEMA")


@dataclass(frozen=True, slots=True)
class Phase:
    """One line of a program: how long (s), and a letter for each link."""

    duration_s: float
    state: str

    @property
    def open(self) -> frozenset[int]:
        """Links that are green."""
        return frozenset(i for i, lamp in enumerate(self.state) if lamp in "Gg")

    @property
    def settled(self) -> bool:
        """Whether this is a stage and not a change between two."""
        return "y" not in self.state.lower() and bool(self.open)


@dataclass(frozen=True, slots=True)
class Program:
    """What one light shows, in a cycle. `offset_s`: when its first phase begins."""

    light: str
    kind: str
    offset_s: float
    phases: tuple[Phase, ...]

    @property
    def cycle_s(self) -> float:
        """Length of the cycle."""
        return sum(phase.duration_s for phase in self.phases)


def read(net_file: Path, additional: Iterable[Path] = ()) -> dict[str, Program]:
    """Light -> the program that SUMO runs: of several, the one that was loaded last.

    Rail signals are left out. Raises PackError if a file is no XML or a phase has no duration.
    """
    found: dict[str, Program] = {}
    for path in (net_file, *additional):
        for logic in _elements(path, "tlLogic"):
            if logic.get("type", "static") not in _ROAD_TYPES:
                found.pop(str(logic.get("id")), None)
                continue
            try:
                phases = tuple(
                    Phase(float(phase.get("duration", "")), str(phase.get("state")))
                    for phase in logic.iter("phase")
                )
                offset = float(logic.get("offset", 0))
            except ValueError as error:
                raise PackError(f"{path}: tlLogic {logic.get('id')}: {error}") from error
            if phases:
                light = str(logic.get("id"))
                found[light] = Program(light, logic.get("type", "static"), offset, phases)
    return found


def _elements(path: Path, tag: str) -> Iterator[ET.Element]:
    try:
        for _, element in ET.iterparse(path):
            if element.tag == tag:
                yield element
    except (ET.ParseError, OSError) as error:
        raise PackError(f"{path}: {error}") from error
