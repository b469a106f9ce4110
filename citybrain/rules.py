"""Alert rules as a pack states them (`rules.toml`), one table a rule.

A rule names what is looked for (`detector` and its numbers), how findings become one alert
(`cause`, `group`), how bad it is (`severity`) and what to do (`advice`).
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from citybrain.errors import UsageError

_FIELDS = ("raise_at", "clear_at", "hold_s", "enabled")


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule. Durations in seconds, as people write them.

    detector: a name in the detector registry. kinds: which kinds it watches. window_s: on
    which window (0: the kind's analysed window). raise_at, clear_at: threshold with
    hysteresis in the detector's scale. hold_s: how long it must last before it raises.
    cause: hazard class; findings of one cause within `group` become one alert. parent: a
    rule whose active alert at the same place makes this one its consequence.
    levels: severity -> value in the detector's scale, for rules with several levels.
    """

    name: str
    detector: str
    cause: str
    severity: Literal[1, 2, 3, 4]
    advice: str
    zh: str
    en: str
    kinds: list[str] = []
    window_s: int = 0
    raise_at: float = 0.0
    clear_at: float | None = None
    below: bool = False
    hold_s: int = 0
    group: Literal["sensor", "link", "zone", "city"] = "zone"
    parent: str = ""
    levels: dict[str, float] = {}
    settings: dict[str, float | str] = {}
    enabled: bool = True


def changeable(rule: Rule) -> dict[str, float | bool | None]:
    """The fields of a rule that can be changed while it works, with their values.

    They are raise_at, clear_at, hold_s, enabled, the numbers of `settings`, and what decides
    how bad it is: `levels.<severity>`, or severity where the rule has no levels.
    """
    fields: dict[str, float | bool | None] = {name: getattr(rule, name) for name in _FIELDS}
    if not rule.levels:
        fields["severity"] = rule.severity
    fields |= {f"levels.{severity}": value for severity, value in rule.levels.items()}
    return fields | {k: v for k, v in rule.settings.items() if isinstance(v, int | float)}


def with_change(rule: Rule, field: str, value: float | bool) -> Rule:
    """The rule with one field changed and everything checked.

    Raises UsageError naming the field, the value and what was expected.
    """
    known = changeable(rule)
    if field not in known:
        raise UsageError(
            f"{rule.name}.{field}: not a field of this rule that can be changed while it works;"
            f" those are {sorted(known)}"
        )
    if isinstance(value, bool) != (field == "enabled"):
        expected = "true or false" if field == "enabled" else "a number"
        raise UsageError(f"{rule.name}.{field}: {str(value).lower()} is not {expected}")
    if not math.isfinite(value):
        raise UsageError(f"{rule.name}.{field}: {value} is not a finite number")
    if field == "hold_s" and (value < 0 or value != int(value)):
        raise UsageError(f"{rule.name}.hold_s: {value} is not a whole number of seconds >= 0")
    if field == "severity" and value not in (1, 2, 3, 4):
        raise UsageError(f"{rule.name}.severity: {value:g} is not 1 (red) to 4 (blue)")
    changed = _replaced(rule, field, value)
    problem = inconsistency(changed)
    if problem:
        raise UsageError(f"{rule.name}.{problem}")
    return changed


def inconsistency(rule: Rule) -> str:
    """What does not fit together in a rule's numbers, or ""."""
    sign = -1.0 if rule.below else 1.0
    for field, value in changeable(rule).items():
        if value is not None and not math.isfinite(value):
            return f"{field}: {value} is not a finite number"
    if rule.hold_s < 0:
        return f"hold_s: {rule.hold_s} is not a number of seconds >= 0"
    if rule.clear_at is not None and sign * rule.clear_at > sign * rule.raise_at:
        side = "below" if rule.below else "above"
        return f"clear_at: {rule.clear_at} is {side} raise_at = {rule.raise_at}: never clears"
    if not set(rule.levels) <= set("1234"):
        return f"levels: {sorted(rule.levels)} are not severities from 1 (red) to 4 (blue)"
    ladder = [sign * rule.levels[severity] for severity in sorted(rule.levels)]
    if ladder != sorted(ladder, reverse=True):
        return f"levels: {rule.levels} do not grow towards severity 1"
    return ""


def ancestors(rules: Mapping[str, Rule], name: str) -> list[str]:
    """The parent of a rule, its parent's parent, and so on; a circle is gone round once."""
    line: list[str] = []
    parent = rules[name].parent
    while parent and parent not in line:
        line.append(parent)
        parent = rules[parent].parent
    return line


def adjusted(
    rules: Mapping[str, Rule], settings: Mapping[str, float | str | bool]
) -> dict[str, Rule]:
    """The rules of a pack under the changed fields of a `stats.Rules` record.

    Keys of settings that are not `<rule>.<field>` are passed over: the record also says
    other things, and a field may belong to a rule that the pack no longer has.
    """
    result = dict(rules)
    for key, value in settings.items():
        name, _, field = key.partition(".")
        if name in result and field in changeable(result[name]):
            result[name] = _replaced(result[name], field, value)
    return result


def _replaced(rule: Rule, field: str, value: float | str | bool) -> Rule:
    kinds: dict[str, type] = {"hold_s": int, "severity": int, "enabled": bool}
    change: dict[str, Any] = {field: kinds.get(field, float)(value)}
    if field.startswith("levels."):
        change = {"levels": rule.levels | {field.removeprefix("levels."): float(value)}}
    elif field not in (*_FIELDS, "severity"):
        change = {"settings": rule.settings | {field: float(value)}}
    return msgspec.structs.replace(rule, **change)
