"""What every detector has: the windows it takes, its places, its scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

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


def limits(rule: Rule, raise_at: float, clear_share: float = 1.0, **defaults: Any) -> Limits:
    """A rule's thresholds; where it states none, the detector's own."""
    at = rule.raise_at or raise_at
    given = Limits(
        raise_at=at,
        clear_at=at * clear_share if rule.clear_at is None else rule.clear_at,
        below=rule.below,
        hold_ms=rule.hold_s * 1000,
        levels=tuple(sorted(rule.levels.values())),
    )
    return replace(given, **defaults)


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


STALE_MS = 30 * MINUTE


def stale_ms(window_ms: int) -> int:
    """How long a score may be unknown before its episode ends: half an hour, or 3 windows."""
    return max(STALE_MS, 3 * window_ms)
