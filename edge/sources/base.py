"""What a source is, and what it is given."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from citybrain.city import City
from citybrain.clock import Clock
from citybrain.edge.intake import Intake
from citybrain.edge.metrics import EdgeMetrics
from citybrain.edge.relay import Relay
from citybrain.edge.tokens import Tokens
from citybrain.process import Health


@dataclass(frozen=True, slots=True)
class Context:
    """What the agent lends a source. folder: the agent's own; config paths are beside it.
    relay: for signal controllers, None in a city without any."""

    city: City
    intake: Intake
    tokens: Tokens
    clock: Clock
    metrics: EdgeMetrics
    folder: Path
    gateways: frozenset[str]
    health: Any
    relay: Relay | None = None


class Source(Protocol):
    """One way in. Made from its table of the configuration and the agent's context."""

    pushes: bool
    """Whether devices decide what comes when; a recording says its own watermarks."""

    def __init__(self, config: Any, context: Context) -> None: ...

    async def run(self, ready: asyncio.Event) -> None:
        """Take readings until cancelled (or the recording ends); sets `ready` once it does.

        Raises SetupError for a port or file that it cannot have.
        """

    def health(self) -> Health:
        """Whether it can take readings."""


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sources' tables."""
