"""Which alert a finding belongs to, and how bad it is: by the rule's group and levels."""

from collections.abc import Iterable, Mapping

import msgspec

from citybrain.findings import Finding, Place
from citybrain.rules import Rule

_STATES = {"raised": 0, "updated": 1, "cleared": 2}


def rule_of(rules: Mapping[str, Rule], finding: Finding) -> Rule | None:
    """The rule that a finding names, or the only one with its detector and kind."""
    if finding.rule:
        return rules.get(finding.rule)
    fitting = [
        rule
        for rule in rules.values()
        if rule.detector == finding.detector and (not rule.kinds or finding.kind in rule.kinds)
    ]
    return fitting[0] if len(fitting) == 1 else None


def place_of(group: str, place: Place) -> Place:
    """The place of the alert, as wide as the group says.

    Where the group's own name is missing (a weather station is on no link) the narrowest
    known place stands for it. Zone "" is the whole city.
    """
    if group == "city":
        return Place(zone="")
    if group == "zone" or not (place.link or place.sensor):
        return Place(zone=place.zone)
    if group == "link" and place.link:
        return msgspec.structs.replace(place, sensor="")
    return place


def name_of(place: Place) -> str:
    """What an alert id calls a place: the sensor, else the link, else the zone, else `city`."""
    return place.sensor or place.link or place.zone or "city"


def contains(outer: Place, inner: Place) -> bool:
    """Whether all of `inner` lies in `outer`."""
    if outer.sensor:
        return inner.sensor == outer.sensor
    if outer.link:
        return inner.link == outer.link
    return not outer.zone or outer.zone == inner.zone


def severity_of(rule: Rule, finding: Finding) -> int:
    """The worst level that the score has reached; the rule's own severity without levels."""
    reached = (
        int(severity)
        for severity, level in rule.levels.items()
        if (finding.score <= level if rule.below else finding.score >= level)
    )
    return min(reached, default=rule.severity)


def worst(rule: Rule, findings: Iterable[Finding]) -> Finding:
    """The finding that speaks for an alert: most severe, then furthest out, then by id."""
    sign = 1.0 if rule.below else -1.0
    return min(findings, key=lambda f: (severity_of(rule, f), sign * f.score, f.id))


def order(finding: Finding) -> tuple[int, str, int]:
    """The order in which findings are taken: the same whichever shard was first."""
    return finding.at_ms, finding.id, _STATES[finding.state]
