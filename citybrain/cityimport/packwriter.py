"""Writing a city pack from what an import has found."""

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

from citybrain.city import BUILT_IN
from citybrain.cityimport.mapping import Mapping
from citybrain.cityimport.places import Places
from citybrain.kinds import KINDS

SMALL = 1_000


def write_pack(folder: Path, mapping: Mapping, where: Places, kinds: dict[str, list[str]]) -> None:
    """All files of a pack. kinds: sensor -> its kinds.

    A city of up to SMALL sensors is one shard; in a larger one each zone is a shard.
    """
    shards = where.zones if len(kinds) > SMALL else [mapping.city.id]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "city.toml").write_text(_city(mapping, where, shards), "utf-8")
    with (folder / "sensors.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["sensor", "kinds", "zone", "shard", "gateway", "lon", "lat", "link", "name"])
        for name, s in where.sensors.items():
            if name in kinds:
                shard = s.zone if s.zone in shards else shards[0]
                rows.writerow([
                    name, ";".join(kinds[name]), s.zone, shard, s.gateway,
                    round(s.lon, 6), round(s.lat, 6), s.link, s.name,
                ])  # fmt: skip
    (folder / "roads.geojson").write_text(_roads(where), "utf-8")
    used = {kind for mine in kinds.values() for kind in mine}
    (folder / "rules.toml").write_text(_rules(mapping, used), "utf-8")
    days = {
        name: "[" + ", ".join(day.isoformat() for day in getattr(mapping.city, name)) + "]"
        for name in ("holidays", "working_days")
    }
    text = "".join(f"{name} = {listed}\n" for name, listed in days.items())
    (folder / "calendar.toml").write_text(text, "utf-8")


def toml(value: Any) -> str:
    """A value in TOML. Its basic strings escape as JSON's do."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _key(name: str) -> str:
    plain = name.replace("-", "").replace("_", "")
    return name if plain.isalnum() and plain.isascii() else toml(name)


def _city(mapping: Mapping, where: Places, shards: list[str]) -> str:
    city = mapping.city
    partitions = max(4, 2 * len(shards))
    lines = ["# Written by `citybrain city import`."]
    lines += [f"# Source of the data: {line}" for line in city.source.splitlines()]
    lines += [
        f"id = {toml(city.id)}", f"time_zone = {toml(city.time_zone)}",
        f"partitions = {partitions}", "", "[name]", f"zh = {toml(city.zh)}",
        f"en = {toml(city.en)}", "", "[shards]",
    ]  # fmt: skip
    lines += [f"{_key(zone)} = {i}" for i, zone in enumerate(shards)]
    for zone in where.zones:
        label = city.zones.get(zone)
        lines += ["", f"[zones.{_key(zone)}]"]
        lines += [f"zh = {toml(label.zh if label else zone)}"]
        lines += [f"en = {toml(label.en if label else zone)}"]
    for kind, seconds in city.cadence_s.items():
        lines += ["", f"[kinds.{kind}]", f"cadence_s = {seconds}"]
    return "\n".join(lines) + "\n"


def _roads(where: Places) -> str:
    features = [
        json.dumps(
            {
                "type": "Feature",
                "properties": {
                    "id": link.id, "name": link.name, "zone": link.zone,
                    "length_m": round(link.length_m, 1), "speed_kmh": link.speed_kmh,
                    "lanes": link.lanes,
                },
                "geometry": {
                    "type": "LineString",
                    "coordinates": [[round(x, 6), round(y, 6)] for x, y in link.line],
                },
            },
            ensure_ascii=False,
        )
        for link in where.links
    ]  # fmt: skip
    return '{"type":"FeatureCollection","features":[\n' + ",\n".join(features) + "\n]}\n"


def _rules(mapping: Mapping, used: set[str]) -> str:
    """The mapping's rules, or those of the built-in city that fit this one's kinds."""
    rules = mapping.rules
    if not rules:
        standard = tomllib.loads((BUILT_IN / "adlershof" / "rules.toml").read_text("utf-8"))
        rules = {name: rule for name, rule in standard.items() if _fits(rule, mapping, used)}
        for rule in rules.values():
            if rule.get("kinds"):
                rule["kinds"] = [kind for kind in rule["kinds"] if kind in used]
            if rule.get("parent") not in rules:
                rule.pop("parent", None)
    lines = []
    for name, rule in rules.items():
        lines.append(f"[{_key(name)}]")
        lines += [f"{_key(field)} = {toml(value)}" for field, value in rule.items()]
        lines.append("")
    return "\n".join(lines)


def _fits(rule: dict[str, Any], mapping: Mapping, used: set[str]) -> bool:
    """Whether a kind of the rule is here, with the window that the rule looks at."""
    kinds = [kind for kind in rule.get("kinds", []) if kind in used]
    window_ms = rule.get("window_s", 0) * 1000
    if not rule.get("kinds"):
        return True
    for kind in kinds:
        row = KINDS[kind]
        if kind in mapping.city.cadence_s:
            row = row.at_cadence(round(mapping.city.cadence_s[kind] * 1000))
        if not window_ms or window_ms in (*row.windows_ms, *row.rolling_ms):
            return True
    return False
