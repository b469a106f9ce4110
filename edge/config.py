"""The configuration of an edge agent: one TOML file; an error names the key.

name = "north"                  # its folder under <data>/edge/
gateways = ["g1", "g2"]         # default: all of the pack
max_delay_s = 5.0               # how late its devices usually deliver
[spool]
max_mb = 1024
overflow = "drop-oldest"        # or "refuse-newest"
[sources.http]
port = 8040
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from citybrain.errors import TOML_ERRORS, UsageError

Positive = Annotated[float, msgspec.Meta(gt=0)]


class SpoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[spool]"""

    max_mb: Annotated[float, msgspec.Meta(ge=1)] = 1024
    overflow: Literal["drop-oldest", "refuse-newest"] = "drop-oldest"


class EdgeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of the file. city, data, broker: as the settings of that name, which they override.

    future_s: how far a reading's time may be ahead of the clock. past_days: how far behind.
    linger_ms: how long readings may wait for others before they are stored together.
    """

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]*$")] = "edge"
    city: str | None = None
    data: str | None = None
    broker: str | None = None
    gateways: list[str] = []
    max_delay_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    future_s: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    past_days: Positive = 400.0
    linger_ms: Annotated[int, msgspec.Meta(ge=0, le=200)] = 100
    memory_mb: Positive = 32.0
    spool: SpoolConfig = SpoolConfig()
    sources: dict[str, dict[str, Any]]


def read(path: Path) -> EdgeConfig:
    """The configuration in a file. Raises UsageError naming the file and the key."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), EdgeConfig)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (*TOML_ERRORS, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}") from error
