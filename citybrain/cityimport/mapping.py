"""Mapping files: how a city's tables become readings (docs/cities.md shows each field)."""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from citybrain.errors import TOML_ERRORS, PackError
from citybrain.kinds import KINDS

BUILT_IN = Path(__file__).parents[1] / "cities" / "mappings"
_TERM = r"\s*[A-Za-z_][\w .]*?\s*(<=|>=|!=|=|<|>)\s*(-?\d+(\.\d+)?|[A-Za-z_][\w .]*?)\s*"
_WHERE = re.compile(f"{_TERM}( and {_TERM})*")


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column of a wide table. value = column * factor + offset, in the kind's unit; only rows
    where `where` holds (`count > 0 and speed <= limit`)."""

    kind: str
    factor: float = 1.0
    offset: float = 0.0
    where: str = ""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of readings (CSV, CSV.gz or Parquet).

    time: column. time_format: strptime pattern, or `s` / `ms` since 1970; "" = ISO 8601 or the
    file's own type. time_zone: of times without one; "" = the city's. sensor: column, or a
    constant with sensor_name. Wide tables have `values`; long ones a `kind` and a `value`
    column, with `kinds` for names and units that are not the engine's.
    """

    file: str
    time: str = "time"
    time_format: str = ""
    time_zone: str = ""
    sensor: str = "sensor"
    sensor_name: str = ""
    sensor_prefix: str = ""
    gateway: str = ""
    values: dict[str, Value] = {}
    kind: str = "kind"
    value: str = "value"
    kinds: dict[str, Value] = {}


class Positions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where sensors are: columns of a table. zone: column, "" puts all into one zone."""

    file: str
    sensor: str = "sensor"
    lon: str = "lon"
    lat: str = "lat"
    name: str = ""
    zone: str = ""
    sensor_prefix: str = ""


class Links(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Roads as lines between end points; a sensor with a link's id lies on it."""

    file: str
    id: str
    from_lon: str
    from_lat: str
    to_lon: str
    to_lat: str
    name: str = ""
    zone: str = ""
    length_m: str = ""
    speed_kmh: str = ""
    lanes: str = ""
    sensor_prefix: str = ""


class Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name in the page's languages."""

    zh: str
    en: str


class CityPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the pack says of the city. lon, lat: where sensors without a position are shown."""

    id: str
    zh: str
    en: str
    time_zone: str
    lon: float | None = None
    lat: float | None = None
    cadence_s: dict[str, float] = {}
    holidays: list[date] = []
    working_days: list[date] = []
    zones: dict[str, Name] = {}
    source: str = ""


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole mapping file. base: folder of the data, relative to the file."""

    city: CityPart
    tables: list[Table]
    base: str = ""
    positions: list[Positions] = []
    links: Links | None = None
    rules: dict[str, dict[str, Any]] = {}


def find(name: str) -> Path:
    """The file of a built-in mapping or of a path. Raises PackError if there is none."""
    for path in (BUILT_IN / f"{name}.toml", Path(name)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in BUILT_IN.glob("*.toml"))
    raise PackError(f"mapping: {name!r} is neither built in ({known}) nor a file")


def load(path: Path) -> Mapping:
    """The checked mapping. Raises PackError naming the file, the field and the value."""
    try:
        mapping = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Mapping)
    except (
        OSError, *TOML_ERRORS, msgspec.ValidationError,
    ) as error:  # fmt: skip
        raise PackError(f"{path}: {error}") from error
    if not mapping.tables:
        raise PackError(f"{path}: tables: none; expected at least one [[tables]]")
    zone(f"{path}: city.time_zone", mapping.city.time_zone)
    for kind in mapping.city.cadence_s:
        _check_kind(f"{path}: city.cadence_s", kind)
    for i, table in enumerate(mapping.tables):
        where = f"{path}: tables[{i}] ({table.file})"
        if table.time_zone:
            zone(f"{where}: time_zone", table.time_zone)
        for column, value in (table.values | table.kinds).items():
            _check_kind(f"{where}: {column}.kind", value.kind)
            if value.where and not _WHERE.fullmatch(value.where):
                raise PackError(
                    f"{where}: {column}.where: {value.where!r}: expected comparisons of a column"
                    " with a number or a column, joined by 'and'"
                )
    return mapping


def zone(where: str, name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises PackError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise PackError(f"{where}: {name!r} is not in the IANA time zone database") from error


def condition(where: str) -> str:
    """A `where` as SQL, with its columns quoted."""
    terms = []
    for term in where.split(" and "):
        left, operator, right = re.split(r"(<=|>=|!=|=|<|>)", term.strip(), maxsplit=1)
        terms.append(f"{_operand(left)} {operator} {_operand(right)}")
    return " and ".join(terms)


def _operand(text: str) -> str:
    text = text.strip()
    return text if re.fullmatch(r"-?\d+(\.\d+)?", text) else '"' + text.replace('"', '""') + '"'


def _check_kind(where: str, kind: str) -> None:
    if kind not in KINDS:
        raise PackError(f"{where}: {kind!r} is not a kind; known are {sorted(KINDS)}")
