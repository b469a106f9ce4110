"""What every detector has: the windows it takes, its places, its scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from citybrain.errors import PackError
from citybrain.kinds import MINUTE, Kind
from citybrain.models.block import Array, Arrays
from citybrain.models.daytime import Daytime
from citybrain.models.episodes import Limits
from citybrain.models.seen import Seen
from citybrain.rules import Rule


@dataclass(frozen=True, slots=True)
class Axis:
    """The places a detector sees, in order: sensors with their gateways, or links.

    gateway_of [n]: index into `gateways` for each name.
    """

    names: tuple[str, ...]
    gateways: tuple[str, ...]
    gateway_of: Array
    daytime: Daytime


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the detector's places at one window, in its scale; NaN where unknown.

    facts: further words about one place, for its finding.
    """

    score: Array
    observed: Array
    expected: Array | None = None
    facts: Callable[[int], dict[str, str | float]] = lambda row: {}


class Detector(Protocol):
    """One rule on one kind in one shard. `names` are its places, `limits` its thresholds."""

    names: tuple[str, ...]
    limits: Limits

    def takes(self, window_ms: int) -> bool:
        """Whether it works on windows of this length."""

    def fresh(self) -> Arrays:
        """Its state before the first window; the place is the first axis."""

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """Scores of this window. Changes `state` in place and nothing else."""


Create = Callable[[Rule, Kind, Axis], Detector | None]


def limits(rule: Rule, raise_at: float, clear_share: float = 1.0, **defaults: object) -> Limits:
    """A rule's thresholds; where it states none, the detector's own."""
    at = rule.raise_at or raise_at
    given = Limits(
        raise_at=at,
        clear_at=at * clear_share if rule.clear_at is None else rule.clear_at,
        below=rule.below,
        hold_ms=rule.hold_s * 1000,
        levels=tuple(sorted(rule.levels.values())),
    )
    return replace(given, **{k: v for k, v in defaults.items()})  # type: ignore[arg-type]  # field names by the callers in this package


def window_of(rule: Rule, kind: Kind) -> int | None:
    """The window a rule works on: as it says, or the kind's analysed one.

    A kind with a coarser cadence takes its next longer window, but not for totals, whose
    thresholds mean a certain length.
    """
    wanted = rule.window_s * 1000 or kind.analysed_ms
    lengths = kind.windows_ms + kind.rolling_ms
    if wanted in lengths:
        return wanted
    longer = [w for w in lengths if w > wanted]
    return min(longer) if longer and not kind.total else None


def changed(rule: Rule, settings: Mapping[str, float | str | bool]) -> Rule:
    """The rule with the fields that `settings` (`<rule>.<field>`) names for it.

    Raises PackError for a field that the rule does not have or a value that does not fit.
    """
    mine = {k.rpartition(".")[2]: v for k, v in settings.items() if k.rpartition(".")[0] == rule.name}
    fields = {k: v for k, v in mine.items() if k in Rule.__struct_fields__}
    extra = {k: v for k, v in mine.items() if k not in Rule.__struct_fields__}
    if "hold_s" in fields or "window_s" in fields:
        fields |= {k: int(fields[k]) for k in ("hold_s", "window_s") if k in fields}
    levels = {k.removeprefix("level_"): v for k, v in extra.items() if k.startswith("level_")}
    extra = {k: v for k, v in extra.items() if not k.startswith("level_")}
    new = msgspec.structs.asdict(rule) | fields
    new["settings"] = rule.settings | extra
    new["levels"] = rule.levels | levels
    try:
        return msgspec.convert(new, Rule)
    except msgspec.ValidationError as error:
        raise PackError(f"rule {rule.name}: {error}") from error


STALE_MS = 30 * MINUTE


def stale_ms(window_ms: int) -> int:
    """How long a score may be unknown before its episode ends: half an hour, or 3 windows."""
    return max(STALE_MS, 3 * window_ms)
