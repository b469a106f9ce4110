"""What commands that speak to a running city have in common: which city, which cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from citybrain.city import City
    from citybrain.kafka import KafkaSettings
    from citybrain.settings import Settings


CityOption = Annotated[
    str | None, typer.Option("--city", help="Built-in city or the folder of a pack.")
]
DataOption = Annotated[str | None, typer.Option("--data", help="Data folder.")]
BrokerOption = Annotated[
    str | None,
    typer.Option("--broker", help="Kafka HOST:PORT; without it the one that `up` has started."),
]
PersonOption = Annotated[
    str | None, typer.Option("--person", help="Who says so; without it this system's user.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class Connection:
    """A city and how to reach its cluster. data: the data folder."""

    settings: "Settings"
    city: "City"
    kafka: "KafkaSettings"

    @property
    def data(self) -> Path:
        """The data folder."""
        return Path(self.settings.data)


def connect(city: str | None, data: str | None, broker: str | None) -> Connection:
    """The city and cluster that options, environment and settings file name.

    Raises UsageError if no broker is named and none was ever started in the data folder.
    """
    from citybrain import pack
    from citybrain.settings import resolve

    settings, _ = resolve({"city": city, "data": data, "broker": broker})
    return Connection(settings, pack.load(settings.city), cluster(settings))


def cluster(settings: "Settings") -> "KafkaSettings":
    """How to reach the cluster of these settings. Raises UsageError as `connect`."""
    from citybrain.broker import recorded
    from citybrain.errors import UsageError
    from citybrain.kafka import kafka_settings

    if settings.broker:
        return kafka_settings(settings)
    local = recorded(Path(settings.data) / "kafka")
    if local is None:
        raise UsageError(
            f"broker: not given, and no `citybrain up` has started one in {settings.data}/kafka;"
            " name one with --broker HOST:PORT, or the data folder with --data"
        )
    return local
