"""Findings, rules and a city for the tests of alerting."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from citybrain.city import City
from citybrain.findings import Finding, Place
from citybrain.kinds import MINUTE
from citybrain.pack import load
from citybrain.rules import Rule
from tests.packs import CITY, write_pack

_TABLES = ("levels", "settings")
T0 = 1_800_000_000_000
"""15 January 2027, 08:00 UTC."""


def rule(name: str, **more: Any) -> Rule:
    """A rule with severity 3, grouped by zone, unless told otherwise."""
    facts = {
        "detector": name, "cause": name, "severity": 3, "advice": name, "zh": name, "en": name,
        "raise_at": 1.0,
    }  # fmt: skip
    return Rule(name=name, **(facts | more))


RULES = {
    r.name: r
    for r in (
        rule("outage", group="zone", severity=2),
        rule("silent", group="sensor", severity=3, parent="outage"),
        rule("rain", group="city", severity=4, levels={"4": 1.0, "3": 2.0, "2": 3.0, "1": 4.0}),
        rule("jam", group="link", severity=4, levels={"4": 0.4, "2": 0.2}, below=True),
        rule("anomaly", group="link", severity=4, parent="jam"),
    )
}


def finding(
    rule: str,
    sensor: str = "d1",
    at_min: float = 0.0,
    state: str = "raised",
    score: float = 1.5,
    onset: int = 0,
    **more: Any,
) -> Finding:
    """A finding of a rule at a sensor, `at_min` minutes after T0."""
    zone = "south" if sensor in ("d3", "d4", "w2") else "north"
    link = f"link-{sensor}" if rule in ("jam", "anomaly") else ""
    facts: dict[str, Any] = {
        "id": f"{rule}/vehicle_count/{sensor}/{T0 + onset}",
        "detector": rule,
        "rule": rule,
        "state": state,
        "kind": "vehicle_count",
        "place": Place(zone=zone, sensor=sensor, link=link, lon=116.4, lat=39.9),
        "onset_ms": T0 + onset,
        "at_ms": T0 + round(at_min * MINUTE),
        "score": score,
        "threshold": 1.0,
        "observed": score,
        "expected": 0.0,
        "unit": "1",
    }
    return Finding(**(facts | more))


def small_city(folder: Path, city_id: str = "small") -> City:
    """Two zones, two shards, and the rules of this module, in `folder`."""
    pack = write_pack(folder / city_id, city=CITY.replace('"small"', f'"{city_id}"'))
    tables = ["\n".join([f"[{rule.name}]", *_fields(rule)]) for rule in RULES.values()]
    (pack / "rules.toml").write_text("\n".join(tables), "utf-8")
    city = load(str(pack))
    assert city.rules == RULES
    return city


def _fields(rule: Rule) -> Iterator[str]:
    for field, value in msgspec.structs.asdict(rule).items():
        if field != "name" and value is not None:
            pairs = ", ".join(f"{k} = {v}" for k, v in value.items()) if field == "levels" else ""
            yield f"{field} = " + ("{" + pairs + "}" if field in _TABLES else json.dumps(value))
