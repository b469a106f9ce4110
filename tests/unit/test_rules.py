"""Changing a rule's numbers while the city runs."""

from pathlib import Path

import pytest

from citybrain.errors import PackError, UsageError
from citybrain.pack import load
from citybrain.rules import Rule, adjusted, ancestors, inconsistency, numbers, with_number
from tests.packs import write_pack


def rule(name: str = "jam", **more: object) -> Rule:
    facts: dict[str, object] = {
        "name": name,
        "detector": "congestion",
        "cause": "congestion",
        "severity": 4,
        "advice": "jam",
        "zh": "拥堵",
        "en": "Jam",
        "raise_at": 0.45,
        "clear_at": 0.6,
        "below": True,
        "hold_s": 120,
        "levels": {"4": 0.45, "3": 0.3, "2": 0.15},
        "settings": {"share": 0.5, "standard": "HJ 633-2012"},
    }
    return Rule(**(facts | more))  # type: ignore[arg-type]  # fields are written out above


def test_only_numbers_of_a_rule_can_be_changed() -> None:
    assert set(numbers(rule())) == {
        "raise_at", "clear_at", "hold_s", "levels.4", "levels.3", "levels.2", "share",
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"jam\.cause: not a number of this rule; it has"):
        with_number(rule(), "cause", 1.0)
    with pytest.raises(UsageError, match=r"jam\.standard: not a number"):
        with_number(rule(), "standard", 1.0)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("raise_at", float("nan"), "not a finite number"),
        ("raise_at", 0.7, "never clears"),
        ("clear_at", 0.4, "never clears"),
        ("hold_s", -1.0, "whole number of seconds"),
        ("hold_s", 1.5, "whole number of seconds"),
        ("levels.3", 0.1, "do not grow towards severity 1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(
    field: str, value: float, complaint: str
) -> None:
    with pytest.raises(UsageError, match=rf"jam\.[a-z_]+.*{complaint}"):
        with_number(rule(), field, value)


def test_a_changed_number_reaches_the_rule_through_the_log() -> None:
    rules = {"jam": rule()}
    settings: dict[str, float | str | bool] = {
        "jam.raise_at": 0.4,
        "jam.hold_s": 60.0,
        "jam.levels.2": 0.1,
        "jam.share": 0.75,
        "maintenance.d1": True,
        "gone.raise_at": 3.0,
    }
    changed = adjusted(rules, settings)["jam"]
    assert (changed.raise_at, changed.hold_s) == (0.4, 60)
    assert changed.levels == {"4": 0.45, "3": 0.3, "2": 0.1}
    assert changed.settings == {"share": 0.75, "standard": "HJ 633-2012"}
    assert rules["jam"].raise_at == 0.45


def test_a_rule_knows_its_ancestors_even_in_a_circle() -> None:
    rules = {n: rule(n, parent=p) for n, p in (("a", "b"), ("b", "c"), ("c", ""))}
    assert ancestors(rules, "a") == ["b", "c"]
    assert ancestors({"a": rule("a", parent="b"), "b": rule("b", parent="a")}, "a") == ["b", "a"]


def test_levels_must_be_severities() -> None:
    assert "not severities" in inconsistency(rule(levels={"5": 0.1}))


TABLE = """
[{name}]
detector = "threshold"
cause = "heat"
severity = 3
advice = "heat"
zh = "高温"
en = "Heat"
raise_at = 35.0
"""


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        (TABLE.format(name="heat") + "clear_at = 36.0", r"\[heat\]: clear_at: 36.0 is above"),
        (TABLE.format(name="heat") + "levels = { 5 = 40.0 }", r"\[heat\]: levels: \['5'\]"),
        (TABLE.format(name="heat") + 'parent = "cold"', r"\[heat\]: parent: 'cold' is not a rule"),
        (
            TABLE.format(name="a") + 'parent = "b"' + TABLE.format(name="b") + 'parent = "a"',
            r"\[a\]: parent: is its own ancestor",
        ),
        (
            TABLE.format(name="a") + 'parent = "b"' + TABLE.format(name="b") + 'group = "sensor"',
            r"\[a\]: parent: 'b' groups by sensor, which cannot contain a zone",
        ),
    ],
)
def test_a_pack_with_a_rule_that_cannot_work_is_refused(
    tmp_path: Path, tables: str, complaint: str
) -> None:
    folder = write_pack(tmp_path)
    (folder / "rules.toml").write_text(tables, "utf-8")
    with pytest.raises(PackError, match=complaint):
        load(str(folder))
