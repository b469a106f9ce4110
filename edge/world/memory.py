"""What belongs to a saved state of the world beside the simulator's own."""

from pathlib import Path

import msgspec

from citybrain.edge.world.crashes import CrashMemory
from citybrain.edge.world.schedule import Event

VERSION = 1


class StreetsMemory(msgspec.Struct):
    """What SUMO does not keep in its state.

    on: walkers on each counted crossing; walked: how many came onto it since the last reading.
    """

    crashes: CrashMemory
    on: dict[str, set[str]]
    walked: dict[str, int]


class Memory(msgspec.Struct, kw_only=True):
    """Contents of the air's boxes, emissions of the running minute, stuck values, events."""

    version: int = VERSION
    boxes: dict[str, list[float]]
    traffic: list[list[float]]
    samples: int
    held: dict[str, dict[str, float]]
    streets: StreetsMemory
    events: list[Event]

    @classmethod
    def read(cls, path: Path) -> "Memory":
        """Raises msgspec.MsgspecError if it is of another form."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def memory_file(state: Path) -> Path:
    """Where the memory of a saved state is."""
    return state.with_name(state.name.removesuffix(".xml.gz") + ".json")


def readable(state: Path) -> bool:
    """Whether this version can go on from a saved state. Another one's is not guessed at."""
    try:
        return state.is_file() and Memory.read(memory_file(state)).version == VERSION
    except (OSError, msgspec.MsgspecError):
        return False
