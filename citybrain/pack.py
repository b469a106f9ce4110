"""Reading and checking a city pack. Every complaint names the file, the place in it, the value."""

import csv
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from sys import intern
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from citybrain import emergency_file, signals_file
from citybrain.city import Calendar, City, Link, Sensor, find
from citybrain.errors import TOML_ERRORS, PackError
from citybrain.kinds import FLOW, KINDS, Kind
from citybrain.rules import Rule, ancestors, inconsistency

_T = TypeVar("_T")
_WIDTH = {"sensor": 0, "link": 1, "zone": 2, "city": 3}

FILES = ("city.toml", "sensors.csv", "roads.geojson", "rules.toml", "calendar.toml")


class _KindRow(msgspec.Struct, forbid_unknown_fields=True):
    cadence_s: float


class _Name(msgspec.Struct, forbid_unknown_fields=True):
    zh: str
    en: str


class _CityFile(msgspec.Struct, forbid_unknown_fields=True):
    """city.toml. shards: shard -> its zone and partition."""

    id: str
    name: _Name
    time_zone: str
    partitions: int
    zones: dict[str, _Name]
    shards: dict[str, int]
    generated: bool = False
    kinds: dict[str, _KindRow] = {}
    settings: dict[str, Any] = {}


class _CalendarFile(msgspec.Struct, forbid_unknown_fields=True):
    holidays: list[date] = []
    working_days: list[date] = []


def load(name: str) -> City:
    """The checked pack of a built-in city or a folder.

    Raises PackError naming the file, the field, the value and what was expected.
    """
    folder = find(name)
    for file in FILES:
        if not (folder / file).is_file():
            raise PackError(f"{folder / file}: missing; a pack has {', '.join(FILES)}")
    top = _toml(folder / "city.toml", _CityFile)
    where = folder / "city.toml"
    if not top.id.replace("-", "").isalnum() or not top.id.islower() or not top.id.isascii():
        raise PackError(f"{where}: id: {top.id!r} must be lower-case letters, digits and hyphens")
    try:
        zone_info = ZoneInfo(top.time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise PackError(
            f"{where}: time_zone: {top.time_zone!r} is not in the IANA time zone database"
        ) from error
    if not 1 <= top.partitions <= 1000:
        raise PackError(f"{where}: partitions: {top.partitions} is not within 1 to 1000")
    for shard, partition in top.shards.items():
        if not 0 <= partition < top.partitions:
            raise PackError(
                f"{where}: shards.{shard}: {partition} is not a partition (0 to"
                f" {top.partitions - 1})"
            )
    taken = sorted(top.shards.values())
    if len(set(taken)) != len(taken):
        raise PackError(f"{where}: shards: two shards share a partition: {top.shards}")
    kinds = _kinds(where, top.kinds)
    sensors = _sensors(folder / "sensors.csv", top, kinds)
    links = _links(folder / "roads.geojson", top.zones)
    for sensor in sensors.values():
        if sensor.link and sensor.link not in links:
            raise PackError(
                f"{folder / 'sensors.csv'}: {sensor.id}: link {sensor.link!r} is not in"
                " roads.geojson"
            )
    junctions, control = signals_file.read(folder / "signals.toml")
    _check_writers(folder / "sensors.csv", sensors)
    used = {kind for sensor in sensors.values() for kind in sensor.kinds}
    days = _toml(folder / "calendar.toml", _CalendarFile)
    return City(
        id=top.id,
        zh=top.name.zh,
        en=top.name.en,
        zone_info=zone_info,
        generated=top.generated,
        kinds={name: kind for name, kind in kinds.items() if name in used},
        zones={zone: (label.zh, label.en) for zone, label in top.zones.items()},
        shards=top.shards,
        partitions=top.partitions,
        sensors=sensors,
        links=links,
        rules=_rules(folder / "rules.toml", kinds),
        calendar=Calendar(frozenset(days.holidays), frozenset(days.working_days)),
        version=_version(folder),
        folder=folder,
        settings=top.settings,
        signals=junctions,
        signal_control=control,
        emergency=emergency_file.read(
            folder / "emergency.toml", {link.id: link.length_m for link in links.values()}
        ),
    )


def _toml(path: Path, form: type[_T]) -> _T:
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), form)
    except (*TOML_ERRORS, msgspec.ValidationError) as error:
        raise PackError(f"{path}: {error}") from error


def _kinds(path: Path, rows: Mapping[str, _KindRow]) -> dict[str, Kind]:
    kinds = dict(KINDS)
    for name, row in rows.items():
        if name not in KINDS:
            raise PackError(f"{path}: kinds.{name}: not a kind; known are {sorted(KINDS)}")
        kinds[name] = KINDS[name].at_cadence(round(row.cadence_s * 1000))
    return kinds


def _sensors(path: Path, top: _CityFile, kinds: Mapping[str, Kind]) -> dict[str, Sensor]:
    sensors: dict[str, Sensor] = {}
    # A million sensors stand in few zones and at few gateways: one text for all, half the memory.
    kinds_of: dict[str, tuple[str, ...]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in _rows(path, file):
            line = f"{path}: line {len(sensors) + 2}"
            try:
                sensor = Sensor(
                    id=row["sensor"],
                    kinds=kinds_of.setdefault(row["kinds"], tuple(row["kinds"].split(";"))),
                    zone=intern(row["zone"]),
                    shard=intern(row["shard"]),
                    gateway=intern(row["gateway"]),
                    lon=float(row["lon"]),
                    lat=float(row["lat"]),
                    link=intern(row.get("link") or ""),
                    name=row.get("name") or "",
                )
            except (KeyError, TypeError, AttributeError) as error:
                raise PackError(f"{line}: column {error} is missing") from error
            except ValueError as error:
                raise PackError(f"{line}: lon, lat: {error}") from error
            _check_sensor(line, sensor, top, kinds, sensors)
            sensors[sensor.id] = sensor
    if not sensors:
        raise PackError(f"{path}: no sensor in it")
    return sensors


_NEEDED = frozenset({"sensor", "kinds", "zone", "shard", "gateway", "lon", "lat"})
"""Columns of sensors.csv; link and name may be left out."""


def _check_writers(path: Path, sensors: Mapping[str, Sensor]) -> None:
    """A link's state has one writer: the shard of its sensors."""
    first: dict[str, Sensor] = {}
    for sensor in sensors.values():
        if not sensor.link or not set(FLOW) & set(sensor.kinds):
            continue
        other = first.setdefault(sensor.link, sensor)
        if other.shard != sensor.shard:
            raise PackError(
                f"{path}: link {sensor.link!r}: {other.id} is in shard {other.shard!r} and"
                f" {sensor.id} in {sensor.shard!r}; all sensors of a link that measure"
                f" {' or '.join(FLOW)} belong in one shard"
            )


def _rows(path: Path, file: Iterable[str]) -> Iterator[dict[str, Any]]:
    try:
        for number, row in enumerate(csv.DictReader(file, strict=True), 2):
            lacking = [name for name, value in row.items() if value is None and name in _NEEDED]
            if lacking:
                raise PackError(f"{path}: line {number}: ends before {lacking[0]}")
            yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise PackError(f"{path}: not a readable CSV file in UTF-8: {error}") from error


def _check_sensor(
    line: str,
    sensor: Sensor,
    top: _CityFile,
    kinds: Mapping[str, Kind],
    before: Mapping[str, Sensor],
) -> None:
    if not sensor.id or sensor.id in before:
        raise PackError(f"{line}: sensor: {sensor.id!r} is empty or stands here twice")
    if sensor.zone not in top.zones:
        raise PackError(f"{line}: zone: {sensor.zone!r} is not one of {sorted(top.zones)}")
    if sensor.shard not in top.shards:
        raise PackError(f"{line}: shard: {sensor.shard!r} is not one of {sorted(top.shards)}")
    if not sensor.gateway:
        raise PackError(f"{line}: gateway: is empty")
    for kind in sensor.kinds:
        if kind not in kinds:
            raise PackError(f"{line}: kinds: {kind!r} is not a kind; known are {sorted(kinds)}")
    if not (-180 <= sensor.lon <= 180 and -90 <= sensor.lat <= 90):
        raise PackError(f"{line}: lon, lat: {sensor.lon}, {sensor.lat} are not WGS-84 degrees")


def _links(path: Path, zones: Iterable[str]) -> dict[str, Link]:
    links: dict[str, Link] = {}
    try:
        features = json.loads(path.read_text("utf-8"))["features"]
        for feature in features:
            facts = feature["properties"]
            link = Link(
                id=facts["id"],
                name=facts.get("name", ""),
                zone=facts["zone"],
                length_m=float(facts["length_m"]),
                speed_kmh=float(facts["speed_kmh"]),
                lanes=int(facts["lanes"]),
                line=tuple((float(x), float(y)) for x, y in feature["geometry"]["coordinates"]),
                next=tuple(facts["next"]) if "next" in facts else None,
            )
            _check_link(path, link, zones, links)
            links[link.id] = link
        for link in links.values():
            for beyond in link.next or ():
                if beyond not in links:
                    raise PackError(f"{path}: {link.id}: next: {beyond!r} is not a link")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise PackError(f"{path}: feature {len(links)}: {error!r}") from error
    return links


def _check_link(path: Path, link: Link, zones: Iterable[str], before: Mapping[str, Link]) -> None:
    if link.id in before:
        raise PackError(f"{path}: {link.id}: stands here twice")
    if link.zone not in zones:
        raise PackError(f"{path}: {link.id}: zone: {link.zone!r} is not in city.toml")
    for name, value in (("length_m", link.length_m), ("speed_kmh", link.speed_kmh)):
        if not 0 < value < math.inf:
            raise PackError(f"{path}: {link.id}: {name}: {value} is not above 0")
    if link.lanes < 1:
        raise PackError(f"{path}: {link.id}: lanes: {link.lanes} is not 1 or more")
    if len(link.line) < 2 or not all(abs(x) <= 180 and abs(y) <= 90 for x, y in link.line):
        raise PackError(
            f"{path}: {link.id}: coordinates: expected two or more points in WGS-84 degrees"
        )


def _rules(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Rule]:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except TOML_ERRORS as error:
        raise PackError(f"{path}: {error}") from error
    rules: dict[str, Rule] = {}
    for name, table in tables.items():
        try:
            rules[name] = msgspec.convert(table | {"name": name}, Rule)
        except (msgspec.ValidationError, TypeError) as error:
            raise PackError(f"{path}: [{name}]: {error}") from error
        for kind in rules[name].kinds:
            if kind not in kinds:
                raise PackError(f"{path}: [{name}]: kinds: {kind!r} is not a kind")
        problem = inconsistency(rules[name])
        if problem:
            raise PackError(f"{path}: [{name}]: {problem}")
    for rule in rules.values():
        if rule.parent and rule.parent not in rules:
            raise PackError(f"{path}: [{rule.name}]: parent: {rule.parent!r} is not a rule")
        if rule.parent and _WIDTH[rules[rule.parent].group] < _WIDTH[rule.group]:
            raise PackError(
                f"{path}: [{rule.name}]: parent: {rule.parent!r} groups by"
                f" {rules[rule.parent].group}, which cannot contain a {rule.group}"
            )
        if rule.name in ancestors(rules, rule.name):
            raise PackError(f"{path}: [{rule.name}]: parent: is its own ancestor")
    return rules


def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
