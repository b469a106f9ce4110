"""`signals.toml` of the built-in city: tables, stages and local plans of its road signals."""

import msgspec

from citybrain.edge import junctions
from citybrain.edge.world.network import network_file
from citybrain.signals import Control, Junction


def signals_file() -> str:
    """The file's text. The network's own programs, properly timed: yellow, all-red and the
    walkers' clearance from geometry, minimum greens, one cycle for the whole city."""
    found = junctions.read(network_file())
    head = "# Written by citybrain.edge.world.build. Source of the network: see NOTICE.\n\n"
    return (
        head
        + msgspec.toml.encode(
            {"control": msgspec.to_builtins(Control()), "junction": [_row(j) for j in found]}
        ).decode()
    )


def _row(junction: Junction) -> object:
    return msgspec.to_builtins(junction)
