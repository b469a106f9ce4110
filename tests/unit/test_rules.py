"""Changing a rule's numbers while the city runs."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from citybrain.cli.rule import app
from citybrain.commands import command
from citybrain.errors import CityBrainError, PackError, UsageError
from citybrain.findings import SetThreshold
from citybrain.pack import load
from citybrain.rules import Rule, adjusted, ancestors, changeable, inconsistency, with_change
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


def test_only_what_a_detector_or_alert_can_change_at_once_can_be_changed() -> None:
    assert set(changeable(rule())) == {
        "raise_at", "clear_at", "hold_s", "enabled", "levels.4", "levels.3", "levels.2", "share",
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"jam\.cause: not a field of this rule that can"):
        with_change(rule(), "cause", 1.0)
    with pytest.raises(UsageError, match=r"jam\.standard: not a field"):
        with_change(rule(), "standard", 1.0)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("raise_at", float("nan"), "not a finite number"),
        ("raise_at", 0.7, "never clears"),
        ("clear_at", 0.4, "never clears"),
        ("hold_s", -1.0, "whole number of seconds"),
        ("hold_s", 1.5, "whole number of seconds"),
        ("levels.3", 0.1, "do not grow towards severity 1"),
        ("raise_at", True, "true is not a number"),
        ("enabled", 0.0, "0.0 is not true or false"),
        ("severity", 1.0, "not a field of this rule"),  # its levels decide
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(
    field: str, value: float | bool, complaint: str
) -> None:
    with pytest.raises(UsageError, match=rf"jam\.[a-z_]+.*{complaint}"):
        with_change(rule(), field, value)


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


@pytest.mark.parametrize("value", [0.0, 5.0, 2.5])
def test_a_severity_is_one_of_four(value: float) -> None:
    plain = rule(levels={})
    assert with_change(plain, "severity", 1.0).severity == 1
    with pytest.raises(UsageError, match=r"is not 1 \(red\) to 4 \(blue\)"):
        with_change(plain, "severity", value)


def test_a_rule_that_was_turned_off_is_off_through_the_log() -> None:
    changed = adjusted({"jam": rule(levels={})}, {"jam.enabled": False, "jam.severity": 1.0})["jam"]
    assert (changed.enabled, changed.severity) == (False, 1)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"raise_at": float("nan")}, "raise_at: nan is not a finite number"),
        ({"settings": {"share": float("inf")}}, "share: inf is not a finite number"),
        ({"levels": {"1": float("nan")}}, "levels.1: nan is not a finite number"),
        ({"hold_s": -1}, "hold_s: -1 is not a number of seconds >= 0"),
    ],
)
def test_a_number_with_which_a_rule_would_never_raise_is_refused(
    facts: dict[str, object], says: str
) -> None:
    assert inconsistency(rule(**facts)) == says


def test_a_number_that_no_log_can_carry_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UsageError, match="value: nan is not a finite number"):
        command(SetThreshold, "o", 0, rule="jam", field="raise_at", value=float("nan"))


def test_a_threshold_below_zero_can_be_given_on_the_command_line() -> None:
    told = CliRunner().invoke(app, ["set", "ice", "raise_at", "-5", "--help"])
    assert told.exit_code == 0
    # Without --help it goes on to the city, which is not there: the number itself was taken.
    told = CliRunner().invoke(app, ["set", "ice", "raise_at", "-5", "--city", "nowhere"])
    assert "No such option" not in told.output
    assert isinstance(told.exception, CityBrainError)
