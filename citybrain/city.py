"""City packs: a folder that holds all that is particular to a place.

    city.toml       id, names, time zone, generated?, kinds (cadence), zones, shards
    sensors.csv     sensor,kinds,zone,shard,gateway,lon,lat,link,name
    roads.geojson   LineString features with id, name, zone, length_m, speed_kmh, lanes
    rules.toml      alert rules
    calendar.toml   holidays and swapped working days
    signals.toml    (optional) how signals are controlled; local plans and safety tables
    emergency.toml  (optional) stations, responders, hospitals, who is needed for what

Wherever a city's name is accepted, a folder is too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from citybrain.emergency_file import Emergency
from citybrain.errors import PackError
from citybrain.kinds import Kind
from citybrain.rules import Rule
from citybrain.signals import Control, Junction

BUILT_IN = Path(__file__).parent / "cities"


@dataclass(frozen=True, slots=True)
class Sensor:
    """One measuring point. A (sensor, kind) pair is a series. Coordinates are WGS-84."""

    id: str
    kinds: tuple[str, ...]
    zone: str
    shard: str
    gateway: str
    lon: float
    lat: float
    link: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A stretch of road in one direction; `line` is WGS-84 (lon, lat) pairs.

    next: links that may be driven on to from its end; None if the pack does not say.
    """

    id: str
    name: str
    zone: str
    length_m: float
    speed_kmh: float
    lanes: int
    line: tuple[tuple[float, float], ...]
    next: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Calendar:
    """Days on which the city does not follow the weekday: holidays, swapped working days."""

    holidays: frozenset[date] = frozenset()
    working_days: frozenset[date] = frozenset()

    def is_free(self, day: date) -> bool:
        """Whether a day lives like a weekend."""
        if day in self.working_days:
            return False
        return day in self.holidays or day.weekday() >= 5


@dataclass(frozen=True, slots=True)
class City:
    """A checked pack. `version` is the hash of its files' contents."""

    id: str
    zh: str
    en: str
    zone_info: ZoneInfo
    generated: bool
    kinds: Mapping[str, Kind]
    zones: Mapping[str, tuple[str, str]]
    shards: Mapping[str, int]
    partitions: int
    sensors: Mapping[str, Sensor]
    links: Mapping[str, Link]
    rules: Mapping[str, Rule]
    calendar: Calendar
    version: str
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    signals: Mapping[str, Junction] = field(default_factory=dict)
    signal_control: Control = Control()  # noqa: RUF009  # frozen
    emergency: Emergency = field(default_factory=Emergency)

    def roster(self, shard: str, kind: str) -> tuple[str, ...]:
        """Sensors of a shard that report a kind: by gateway, in the order of sensors.csv."""
        mine = [s for s in self.sensors.values() if s.shard == shard and kind in s.kinds]
        return tuple(s.id for s in sorted(mine, key=lambda s: s.gateway))


def find(name: str) -> Path:
    """The folder of a built-in city or of a path. Raises PackError if there is none."""
    for folder in (BUILT_IN / name, Path(name)):
        if (folder / "city.toml").is_file():
            return folder
    known = sorted(p.parent.name for p in BUILT_IN.glob("*/city.toml"))
    raise PackError(f"city: {name!r} is neither built in ({known}) nor a folder with a city.toml")
