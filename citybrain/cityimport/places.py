"""Where an imported city's sensors and roads are."""

import math
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import Any

from citybrain.city import Link
from citybrain.cityimport.mapping import Mapping
from citybrain.cityimport.tables import Source, quoted
from citybrain.errors import PackError

EARTH_M = 6_371_008.8
"""Mean radius of the earth (IUGG)."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Place of one sensor."""

    lon: float
    lat: float
    zone: str
    link: str
    name: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Places:
    """Sensors by id, links, and the zones that they lie in."""

    sensors: dict[str, Spot]
    links: list[Link]
    zones: list[str]


def places(source: Source, mapping: Mapping, gateways: MappingOf[str, str]) -> Places:
    """Place every sensor of `gateways` (sensor -> gateway): by a positions table, else in the
    middle of its link, else at the city's own place. Raises PackError for one with none."""
    links = _links(source, mapping)
    known: dict[str, dict[str, Any]] = {}
    for table in mapping.positions:
        wanted = {"id": table.sensor, "lon": table.lon, "lat": table.lat}
        wanted |= {k: v for k, v in (("name", table.name), ("zone", table.zone)) if v}
        for row in _records(source, table.file, wanted):
            known[f"{table.sensor_prefix}{row['id']}"] = row
    prefix = mapping.links.sensor_prefix if mapping.links else ""
    by_sensor = {f"{prefix}{link.id}": link for link in links}
    only = _zone(next(iter(mapping.city.zones), mapping.city.id))
    sensors: dict[str, Spot] = {}
    for sensor, gateway in sorted(gateways.items()):
        link, found = by_sensor.get(sensor), known.get(sensor)
        if found is not None:
            lon, lat = float(found["lon"]), float(found["lat"])
            zone, name = _zone(found.get("zone") or only), str(found.get("name") or "")
        elif link is not None:
            (x0, y0), (x1, y1) = link.line[0], link.line[-1]
            lon, lat, zone, name = (x0 + x1) / 2, (y0 + y1) / 2, link.zone, link.name
        elif mapping.city.lon is not None and mapping.city.lat is not None:
            lon, lat, zone, name = mapping.city.lon, mapping.city.lat, only, ""
        else:
            raise PackError(
                f"positions: {sensor!r} is in no positions or links table; add it there, or give"
                " the city lon and lat"
            )
        spot = Spot(lon, lat, zone, link.id if link else "", name, gateway)
        sensors[sensor] = spot
    zones = sorted({s.zone for s in sensors.values()} | {link.zone for link in links})
    return Places(sensors, links, zones)


def _links(source: Source, mapping: Mapping) -> list[Link]:
    table = mapping.links
    if table is None:
        return []
    wanted = {
        "id": table.id, "x0": table.from_lon, "y0": table.from_lat, "x1": table.to_lon,
        "y1": table.to_lat,
    }  # fmt: skip
    for name in ("name", "zone", "length_m", "speed_kmh", "lanes"):
        if getattr(table, name):
            wanted[name] = getattr(table, name)
    only = next(iter(mapping.city.zones), mapping.city.id)
    links: dict[str, Link] = {}
    for row in _records(source, table.file, wanted):
        line = ((float(row["x0"]), float(row["y0"])), (float(row["x1"]), float(row["y1"])))
        link = Link(
            id=str(row["id"]), name=str(row.get("name") or ""),
            zone=_zone(row.get("zone") or only),
            length_m=float(row.get("length_m") or distance_m(*line[0], *line[1])),
            speed_kmh=float(row.get("speed_kmh") or 50.0), lanes=int(row.get("lanes") or 1),
            line=line,
        )  # fmt: skip
        if link.id in links:
            raise PackError(f"{table.file}: {table.id}: {link.id!r} stands there twice")
        links[link.id] = link
    return [links[name] for name in sorted(links)]


def distance_m(lon0: float, lat0: float, lon1: float, lat1: float) -> float:
    """Great-circle distance by the haversine formula, in metres.

    >>> round(distance_m(0.0, 0.0, 1.0, 0.0))
    111195
    """
    a, b = math.radians(lat0), math.radians(lat1)
    half = math.sin((b - a) / 2) ** 2
    half += math.cos(a) * math.cos(b) * math.sin(math.radians(lon1 - lon0) / 2) ** 2
    return 2 * EARTH_M * math.asin(math.sqrt(half))


def _records(source: Source, file: str, wanted: dict[str, str]) -> list[dict[str, Any]]:
    source.need(file, **wanted)
    rows = source.rows(file, {name: quoted(column) for name, column in wanted.items()})
    return list(rows.to_pylist())


def _zone(value: object) -> str:
    """A zone's id: lower-case letters, digits and hyphens."""
    text = "".join(c if c.isalnum() else "-" for c in str(value).lower())
    return text.strip("-") or "zone"
