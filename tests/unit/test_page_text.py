"""The page's words and libraries: both languages say all, and nothing comes from elsewhere."""

import json
import re
from pathlib import Path

import pytest

from citybrain import pack
from citybrain.city import BUILT_IN
from citybrain.dashboards import texts
from citybrain.kinds import KINDS

PAGE = Path(__file__).parents[2] / "dashboards" / "page"
LANGUAGES = ("zh-CN", "en")
WORDS = {name: json.loads((PAGE / "text" / f"{name}.json").read_text()) for name in LANGUAGES}
SCRIPTS = {path.name: path.read_text() for path in (PAGE / "app").glob("*.js")}


def test_both_languages_have_the_same_keys_and_none_is_empty() -> None:
    assert WORDS["zh-CN"].keys() == WORDS["en"].keys()
    assert all(text.strip() for words in WORDS.values() for text in words.values())


def test_both_languages_fill_in_the_same_values() -> None:
    for key in WORDS["en"]:
        slots = [set(re.findall(r"\{(\w+)\}", WORDS[name][key])) for name in LANGUAGES]
        assert slots[0] == slots[1], key


def test_every_rule_has_advice_that_the_terminal_shows_too() -> None:
    for folder in BUILT_IN.glob("*/city.toml"):
        for rule in pack.load(str(folder.parent)).rules.values():
            said = texts.advice(rule.advice)
            assert said == [WORDS[name][f"advice.{rule.advice}"] for name in LANGUAGES]
    assert texts.advice("no such thing") == [WORDS[name]["advice.unknown"] for name in LANGUAGES]


def test_every_word_that_a_script_asks_for_is_there() -> None:
    asked = {key for text in SCRIPTS.values() for key in re.findall(r'\bt\("([^"$]+)"', text)}
    assert len(asked) > 40
    assert asked <= WORDS["en"].keys()


def test_words_chosen_by_a_value_are_there_for_every_value() -> None:
    families = {
        "road": ["smooth", "slow", "jam", "heavy-jam", "unknown"],
        "severity": ["1", "2", "3", "4"],
        "state": ["live", "starting", "stale", "reconnecting"],
        "waiting": ["broker", "topics", "history"],
        "alerts": ["active", "aside", "cleared"],
    }
    wanted = {f"{family}.{value}" for family, values in families.items() for value in values}
    counts = {k.unit.strip("{}") for k in KINDS.values() if k.unit.startswith("{")}
    assert wanted | {f"unit.{count}" for count in counts} <= WORDS["en"].keys()


@pytest.mark.parametrize("city", sorted(p.parent.name for p in BUILT_IN.glob("*/city.toml")))
def test_every_rule_of_a_built_in_city_says_what_to_do_in_both_languages(city: str) -> None:
    for rule in pack.load(city).rules.values():
        for name in LANGUAGES:
            assert f"advice.{rule.advice}" in WORDS[name], rule.name


def test_markup_has_no_inline_script_or_style_and_nothing_from_another_host() -> None:
    text = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    for source in [text, *SCRIPTS.values()]:
        assert not re.search(r"""["'(]https?://(?!www\.w3\.org/2000/svg)""", source)


def test_scripts_never_turn_text_into_markup() -> None:
    for name, source in SCRIPTS.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", source), (
            name
        )


def test_readable_text_is_never_below_12_pixels() -> None:
    for path in (PAGE / "style").glob("*.css"):
        for size, unit in re.findall(r"font(?:-size)?:[^;]*?([\d.]+)(rem|px)", path.read_text()):
            assert float(size) * (16 if unit == "rem" else 1) >= 12, path.name


def test_libraries_are_pinned_by_hash_and_name_no_address() -> None:
    text = (PAGE / "package-lock.json").read_text()
    assert "resolved" not in text
    assert "http" not in re.sub(r'"funding": .*|"url": .*', "", text)
    packages = {k: v for k, v in json.loads(text)["packages"].items() if k}
    assert {"node_modules/maplibre-gl", "node_modules/uplot"} <= packages.keys()
    assert all(p["integrity"].startswith("sha512-") for p in packages.values())
