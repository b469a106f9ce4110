"""Rules on the state of the devices; the conditions themselves are in `models.health`."""

import numpy as np

from citybrain.errors import PackError
from citybrain.kinds import Kind
from citybrain.models.block import Array, Arrays
from citybrain.models.detectors.base import Axis, Detector, Scored, limits
from citybrain.models.health import CONDITIONS, Condition
from citybrain.models.seen import Seen
from citybrain.rules import Rule

GATEWAY = "gateway-silent"


def dark(axis: Axis, seen: Seen) -> Array:
    """Sensors of which nothing could be heard: their gateway had said that it would be away, or
    has several of them here of which none said anything (then what is wrong is the gateway or
    the way to it)."""
    many = len(axis.gateways)
    mine = np.bincount(axis.gateway_of, ~seen.parked, many)
    heard = np.bincount(axis.gateway_of, seen.count > 0, many)
    away = _away(axis, seen)
    return np.asarray(((mine > 1) | away)[axis.gateway_of] & (heard == 0)[axis.gateway_of])


def _away(axis: Axis, seen: Seen) -> Array:
    """Gateways [n] that had said that they would be away."""
    if not seen.absent:
        return np.zeros(len(axis.gateways), dtype=bool)
    return np.array([name in seen.absent for name in axis.gateways], dtype=bool)


class Health:
    """One condition of every sensor of a kind; the score is 1 where it begins to hold."""

    def __init__(self, rule: Rule, kind: Kind, axis: Axis, condition: Condition) -> None:
        self.names = axis.names
        self.limits = limits(rule, 1.0, calm_rows=condition.calm_rows, stale_ms=2**60)
        self._kind, self._condition, self._axis = kind, condition, axis

    def takes(self, window_ms: int) -> bool:
        """As in `Detector`."""
        return window_ms == self._condition.window_ms(self._kind)

    def fresh(self) -> Arrays:
        """As in `Detector`."""
        return self._condition.fresh(len(self.names))

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """As in `Detector`."""
        score = self._condition.score(state, seen, dark(self._axis, seen))
        return Scored(score, seen.last, None, lambda row: {"condition": self._condition.name})


class Gateway:
    """Most of a gateway's sensors say nothing: for how long, over the kind's `silent_ms`.

    The rule's `settings.share` says how many of them (default 0.8).
    """

    def __init__(self, rule: Rule, kind: Kind, axis: Axis) -> None:
        self.names = axis.gateways
        self.limits = limits(rule, 1.0, stale_ms=2**60)
        self._share = float(rule.settings.get("share", 0.8))
        if not 0 < self._share <= 1:
            raise PackError(
                f"rules.toml: [{rule.name}]: settings.share: {self._share} is not within 0 to 1"
            )
        self._kind, self._axis = kind, axis

    def takes(self, window_ms: int) -> bool:
        """The shortest window."""
        return window_ms == self._kind.pane_ms

    def fresh(self) -> Arrays:
        """since_ms: start of the first window in which so many were silent, -1 for none."""
        return {"since_ms": np.full(len(self.names), -1, dtype=np.int64)}

    def score(self, state: Arrays, seen: Seen) -> Scored:
        """As in `Detector`; parked sensors do not count."""
        which, many = self._axis.gateway_of, len(self.names)
        mine = np.bincount(which, ~seen.parked, many)
        quiet = np.bincount(which, (seen.count == 0) & ~seen.parked, many)
        share = np.divide(quiet, mine, out=np.zeros(many), where=mine > 0)
        since = np.where(state["since_ms"] < 0, seen.start_ms, state["since_ms"])
        share = np.where(_away(self._axis, seen), 0.0, share)
        state["since_ms"][:] = np.where(share >= self._share, since, -1)
        lasted = np.where(state["since_ms"] < 0, 0, seen.end_ms - since)
        expected = np.zeros(many)
        return Scored(
            lasted / self._kind.health.silent_ms,
            share,
            expected,
            lambda row: {"condition": GATEWAY, "gateway": self.names[row]},
        )


def create(rule: Rule, kind: Kind, axis: Axis) -> Detector | None:
    """None where the kind has no such condition (a constant value may be normal)."""
    name = str(rule.settings.get("condition", "silent"))
    if name == GATEWAY:
        return Gateway(rule, kind, axis)
    if name not in CONDITIONS:
        raise PackError(
            f"rules.toml: [{rule.name}]: settings.condition: {name!r} is not one of"
            f" {sorted([*CONDITIONS, GATEWAY])}"
        )
    condition = CONDITIONS[name]
    return Health(rule, kind, axis, condition) if condition.applies(kind) else None
