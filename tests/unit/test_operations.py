"""The operators' page says what the code does."""

import re
from pathlib import Path

from citybrain import errors
from citybrain.cli.main import COMMANDS
from citybrain.errors import CityBrainError

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")


def test_every_exit_code_is_documented_and_means_one_thing() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, CityBrainError)
    ]
    codes = sorted(kind.exit_code for kind in kinds)
    assert codes == list(range(1, len(kinds) + 1))
    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert documented == [0, *codes]


def test_every_command_on_the_page_exists() -> None:
    named = set(re.findall(r"citybrain ([a-z][a-z-]*)", PAGE))
    assert named <= set(COMMANDS)
    assert {"status", "doctor", "alert", "rule", "dead-letter", "topics", "outbox"} <= named
