"""The sources of an edge agent: a table in the configuration is named like its line here."""

import importlib
from dataclasses import dataclass
from typing import Any

import msgspec

from citybrain.edge.sources.base import Source, SourceConfig
from citybrain.errors import UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a source is; imported only when it is used, so that its library may be absent."""

    module: str
    source: str
    config: str

    def load(self) -> tuple[type[Source], type[SourceConfig]]:
        """The source's class and that of its table."""
        module = importlib.import_module(self.module)
        return getattr(module, self.source), getattr(module, self.config)


SOURCES: dict[str, Entry] = {
    "http": Entry("citybrain.edge.sources.http", "HttpSource", "HttpConfig"),
    "mqtt": Entry("citybrain.edge.sources.mqtt", "MqttSource", "MqttConfig"),
    "recording": Entry("citybrain.edge.sources.recording", "RecordingSource", "RecordingConfig"),
}


def configured(name: str, table: dict[str, Any]) -> tuple[type[Source], SourceConfig]:
    """A source's class and its checked table. Raises UsageError naming the key."""
    if name not in SOURCES:
        raise UsageError(f"sources.{name}: not a source; known are {sorted(SOURCES)}")
    source, form = SOURCES[name].load()
    try:
        return source, msgspec.convert(table, form)
    except msgspec.ValidationError as error:
        raise UsageError(f"sources.{name}: {error}") from error
