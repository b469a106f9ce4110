"""Alert rules as a pack states them (`rules.toml`), one table a rule.

A rule names what is looked for (`detector` and its numbers), how findings become one alert
(`cause`, `group`), how bad it is (`severity`) and what to do (`advice`).
"""

from typing import Literal

import msgspec


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
