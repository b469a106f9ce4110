"""Settings: flag > environment `CITYBRAIN_*` > settings file (TOML) > default.

`resolve` also says where each value came from. A process resolves once, at its start, and
passes the values on; nothing reads the environment later.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from citybrain.errors import TOML_ERRORS, UsageError


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a process may be told from outside.

    broker "" starts a local one where that makes sense (`up`, tests). webhooks: addresses that
    are told of new and worse alerts, with commas; they may hold tokens. edge_port: where `up`
    takes readings of devices; 0: 8040, or any other if that is taken.
    """

    city: str = "adlershof"
    data: str = "data"
    broker: str = ""
    security: str = "PLAINTEXT"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = ""
    workers: int = 1
    page_port: int = 0
    edge_port: int = 0
    webhooks: str = ""


SECRET = frozenset({"sasl_password", "webhooks"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from: `flag`, `environment`, `file` or `default`."""

    where: str
    name: str


def resolve(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> tuple[Settings, dict[str, Source]]:
    """Settings and the source of each. A flag that is None was not given.

    Raises UsageError naming the key, where it stands, and what was expected.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    sources = {f: Source("default", "") for f in Settings.__struct_fields__}
    file = file or (
        Path(environment["CITYBRAIN_SETTINGS"]) if "CITYBRAIN_SETTINGS" in environment else None
    )
    if file:
        try:
            found = tomllib.loads(file.read_text("utf-8"))
        except (OSError, *TOML_ERRORS) as error:
            raise UsageError(f"settings file {file}: {error}") from error
        for key in found:
            if key not in sources:
                raise UsageError(f"{file}: {key}: not a setting; known are {sorted(sources)}")
        values |= found
        sources |= {key: Source("file", str(file)) for key in found}
    for key in sources:
        name = f"CITYBRAIN_{key.upper()}"
        if name in environment:
            values[key] = environment[name]
            sources[key] = Source("environment", name)
    for key, value in flags.items():
        if value is not None:
            values[key] = value
            sources[key] = Source("flag", f"--{key.replace('_', '-')}")
    try:
        return msgspec.convert(values, Settings, strict=False), sources
    except msgspec.ValidationError as error:
        raise UsageError(f"settings: {error}") from error
