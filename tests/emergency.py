"""A small grid of streets with responders, and an emergency log before its stage."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from citybrain import emergency
from citybrain.city import City
from citybrain.emergency import Incident, Order, ReportIncident, ResponderState
from citybrain.findings import CommandResult, Place
from citybrain.pack import load
from citybrain.signal_log import PriorityRequest
from citybrain.stage import Out, Record
from citybrain.streams.emergency import Emergencies
from tests.alerting import T0
from tests.packs import write_pack

SIDE = 4
STEP = 0.002
"""Degrees between corners: 170 m east, 222 m north. Streets are two-way, at 36 km/h."""
LENGTH_M = 200.0

EMERGENCY = """\
[alerts.incident]
kind = "crash"
confidence = 0.6
[needs]
crash = ["ambulance"]
fire = ["fire-engine", "ambulance"]
[[station]]
id = "west"
link = "0,0>1,0"
pos_m = 20.0
lon = 116.4002
lat = 39.9
zh = "西站"
en = "West"
[[station]]
id = "east"
link = "3,3>2,3"
pos_m = 20.0
lon = 116.4058
lat = 39.906
zh = "东站"
en = "East"
[[responder]]
id = "amb-1"
kind = "ambulance"
station = "west"
[[responder]]
id = "amb-2"
kind = "ambulance"
station = "east"
[[responder]]
id = "fire-1"
kind = "fire-engine"
station = "west"
"""


def corner(x: int, y: int) -> tuple[float, float]:
    return round(116.4 + x * STEP, 6), round(39.9 + y * STEP, 6)


def grid_links() -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Link -> its corners."""
    found = {}
    for x in range(SIDE):
        for y in range(SIDE):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                to = (x + dx, y + dy)
                if all(0 <= c < SIDE for c in to):
                    found[f"{x},{y}>{to[0]},{to[1]}"] = ((x, y), to)
    return found


def grid_city(folder: Path, text: str = EMERGENCY) -> City:
    pack = write_pack(folder / "grid")
    links = grid_links()
    features = [
        {
            "type": "Feature",
            "properties": {
                "id": name, "name": name, "zone": "north", "length_m": LENGTH_M,
                "speed_kmh": 36.0, "lanes": 1,
                "next": sorted(n for n, (a, b) in links.items() if a == end and b != start),
            },
            "geometry": {"type": "LineString", "coordinates": [corner(*start), corner(*end)]},
        }
        for name, (start, end) in links.items()
    ]  # fmt: skip
    (pack / "roads.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    (pack / "emergency.toml").write_text(text)
    return load(str(pack))


def on(link: str, share: float = 0.5) -> tuple[float, float]:
    """A point on a link."""
    start, end = (corner(*c) for c in grid_links()[link])
    return tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))  # type: ignore[return-value]  # two of them


def command(kind: type[Any], number: int, at_s: float = 0.0, /, **facts: Any) -> Any:
    now = T0 + round(at_s * 1000)
    return kind(
        id=f"c{number}", person="operator-1", issued_ms=now, expires_ms=now + 15_000, **facts
    )


def crash(number: int, link: str, at_s: float = 0.0, **facts: Any) -> ReportIncident:
    place = Place(zone="north", link=link)
    told = {"kind": "crash", "place": place, "incident": f"i{number}"} | facts
    report: ReportIncident = command(ReportIncident, number, at_s, **told)
    return report


class Log:
    """An emergency log in memory before a stage."""

    def __init__(self, city: City) -> None:
        self.city = city
        self.stage = Emergencies(city)
        self.records: list[Record] = []
        self.outs: list[Out] = []

    def write(self, *entries: msgspec.Struct | bytes, wall_ms: int = T0) -> list[Out]:
        got: list[Out] = []
        for entry in entries:
            value = entry if isinstance(entry, bytes) else emergency.encode(entry)
            record = Record("emergency", 0, len(self.records), wall_ms, value)
            self.records.append(record)
            got += self.stage.apply(record)
        self.outs += got
        return got

    def incidents(self) -> dict[str, Incident]:
        return {i.id: i for i in decoded(self.outs, "incidents", Incident)}

    def orders(self) -> dict[str, Order]:
        return {o.id: o for o in decoded(self.outs, "dispatches", Order)}

    def responders(self) -> dict[str, ResponderState]:
        return {r.id: r for r in decoded(self.outs, "responders", ResponderState)}


def decoded(outs: Iterable[Out], topic: str, kind: type[Any]) -> list[Any]:
    return [msgspec.json.decode(o.value, type=kind) for o in outs if o.topic == topic and o.value]


def answers(outs: Iterable[Out]) -> list[CommandResult]:
    return decoded(outs, "command-results", CommandResult)


def asked(outs: Iterable[Out]) -> list[PriorityRequest]:
    return decoded(outs, "priority-requests", PriorityRequest)
