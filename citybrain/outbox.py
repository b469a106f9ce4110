"""What leaves the city's system because of an alert: each effect once, by its key."""

import msgspec

from citybrain.alerts import Alert

VERSION = 1


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
