"""What leaves the city's system because of an alert: each effect once, by its key."""

import msgspec

from citybrain.alerts import Alert
from citybrain.kinds import SECOND

VERSION = 1
HOLD_MS = 30 * SECOND
"""What may be the consequence of something else waits so long before it goes out: a gateway
that is away is noticed some seconds after the first of its sensors."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that somebody outside should hear of. key: alert id, transition and severity."""

    version: int = VERSION
    key: str
    alert: Alert


def effect(alert: Alert) -> Effect | None:
    """The outward effect of an alert record, if it has one.

    What is new, worse, or no longer hidden goes out, unless it is hidden (suppressed or
    shelved), has ended, or, coming out of hiding, has been acknowledged meanwhile.
    """
    hidden = alert.suppressed_by or alert.shelved_until_ms
    if hidden or not alert.active:
        return None
    unhidden = alert.transition in ("released", "unshelved") and not alert.acknowledged
    if alert.transition in ("raised", "escalated") or unhidden:
        return Effect(key=f"{alert.id}/{alert.transition}/{alert.severity}", alert=alert)
    return None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An effect that goes out at an event time, unless it has become pointless by then."""

    due_ms: int
    effect: Effect


class Outbox:
    """Which effects go out now, and which are held. `held` is by alert id."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}

    def take(self, alert: Alert, dependent: bool, now_ms: int) -> list[Effect]:
        """What goes out because of an alert record. dependent: its rule has a parent."""
        outward = effect(alert)
        hidden = alert.suppressed_by or alert.shelved_until_ms
        if hidden or not alert.active or alert.acknowledged:
            self.held.pop(alert.id, None)
        if outward is None:
            return []
        waiting = self.held.get(alert.id)
        if waiting or (dependent and alert.transition == "raised"):
            due_ms = waiting.due_ms if waiting else now_ms + HOLD_MS
            self.held[alert.id] = Held(due_ms=due_ms, effect=outward)
            return []
        return [outward]

    def next_due_ms(self) -> int | None:
        """When the first of the held effects goes out."""
        return min((held.due_ms for held in self.held.values()), default=None)

    def due(self, now_ms: int) -> list[Effect]:
        """Held effects whose time has come, by alert id."""
        ready = sorted(alert for alert, held in self.held.items() if held.due_ms <= now_ms)
        return [self.held.pop(alert).effect for alert in ready]
