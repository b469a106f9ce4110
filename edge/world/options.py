"""How a world is run, as the command line says it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from citybrain.edge.world.schedule import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a living world is run.

    edge: URL of the agent. days: how much past to fill, 0 for none. speed: simulated seconds a
    second; above 1 the world begins `days` ago (or where it stopped) and lives through them at
    that speed until it has caught up with the clock, instead of filling them beside.
    past_share: of one core, for the past. mqtt: host and port of an MQTT broker that the
    weather stations publish to. given: what happens instead of chance. twin: run the same
    streets without anybody's plans beside.
    """

    data: Path
    edge: str
    seed: int
    speed: float = 1.0
    days: float = 3.0
    past_share: float = 0.7
    port: int = 0
    mqtt: tuple[str, int] | None = None
    given: Sequence[Event] | None = None
    twin: bool = True
