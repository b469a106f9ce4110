"""The simulated world's side of a pack: `world.toml`, read and checked."""

import tomllib
from pathlib import Path

import msgspec
import numpy as np

from citybrain.edge.world.demand import Ends
from citybrain.errors import TOML_ERRORS, PackError


class _Ends(msgspec.Struct, forbid_unknown_fields=True):
    edges: list[str]
    weights: list[float]
    x: list[float]
    y: list[float]

    def to_ends(self) -> Ends:
        return Ends(tuple(self.edges), *(np.array(c) for c in (self.weights, self.x, self.y)))


class Stadium(msgspec.Struct, forbid_unknown_fields=True):
    """Where crowds go."""

    edge: str
    x: float
    y: float


class Bus(msgspec.Struct, forbid_unknown_fields=True):
    """A line: its whole way, and the edges on which it stops."""

    name: str
    edges: list[str]
    stops: list[str]


class Device(msgspec.Struct, forbid_unknown_fields=True):
    """A sensor in the simulator: a loop has a lane, a counter or air station an edge.

    flow: vehicles an hour that the loop saw in a simulated morning peak.
    """

    x: float
    y: float
    lane: str = ""
    pos_m: float = 0.0
    flow: int = 0
    edge: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    entries: _Ends
    exits: _Ends
    inside: _Ends
    paths: _Ends
    stadium: Stadium
    lights: dict[str, str]
    buses: list[Bus]
    sensors: dict[str, Device]


class Plan(msgspec.Struct, frozen=True):
    """A checked world.toml. lights: controller's gateway -> the simulator's signal."""

    entries: Ends
    exits: Ends
    inside: Ends
    paths: Ends
    stadium: Stadium
    lights: dict[str, str]
    buses: list[Bus]
    sensors: dict[str, Device]

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Of a pack's folder. Raises PackError if the city has no simulated world."""
        path = folder / "world.toml"
        if not path.is_file():
            raise PackError(f"{path}: missing; this city has no simulated world")
        try:
            file = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File)
        except (*TOML_ERRORS, msgspec.ValidationError) as error:
            raise PackError(f"{path}: {error}") from error
        return cls(
            entries=file.entries.to_ends(),
            exits=file.exits.to_ends(),
            inside=file.inside.to_ends(),
            paths=file.paths.to_ends(),
            stadium=file.stadium,
            lights=file.lights,
            buses=file.buses,
            sensors=file.sensors,
        )
