"""The page's texts, for whoever else speaks to the same people."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

LANGUAGES = ("zh-CN", "en")


@cache
def texts(language: str) -> dict[str, Any]:
    """All texts of a language, by key. Raises FileNotFoundError for one that is not there."""
    file = files("citybrain.dashboards").joinpath("page", "text", f"{language}.json")
    found: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    return found


def advice(key: str) -> list[str]:
    """What to do, once in each language; what to do where no advice was written, if it is
    unknown."""
    known = f"advice.{key}" if f"advice.{key}" in texts("en") else "advice.unknown"
    return [texts(language)[known] for language in LANGUAGES]
