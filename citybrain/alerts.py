"""Alerts: what operators see. Written by the alerting stage alone, one whole record a change."""

from typing import Literal

import msgspec

from citybrain.findings import Place

VERSION = 1
SEVERITIES = (1, 2, 3, 4)
"""I red, II orange, III yellow, IV blue, as in China's emergency response law."""

Transition = Literal[
    "raised", "escalated", "eased", "updated", "cleared", "acknowledged", "assigned",
    "shelved", "unshelved", "suppressed", "released",
]  # fmt: skip


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One cause at one place, from its first finding to its end.

    id: `<rule>/<place>/<occurrence>`; revision counts its records from 0, readers keep the
    highest. active and acknowledged are independent. findings: ids, newest last, capped;
    finding_count is the whole number. advice: key of what to do about it, in the catalogue
    of the page. suppressed_by: the alert whose consequence this one is.
    acknowledged_ms: wall clock at which acknowledged_by said so; the other times are event
    times. place: as wide as the rule groups; zone "" is the whole city. person: whose command
    this transition carries out, "" for none.
    cause_ms: broker's receipt time of the reading behind this transition (for latency).
    """

    version: int = VERSION
    id: str
    revision: int
    transition: Transition
    rule: str
    cause: str
    place: Place
    severity: int
    active: bool
    acknowledged: bool
    opened_ms: int
    updated_ms: int
    cleared_ms: int | None = None
    acknowledged_by: str = ""
    acknowledged_ms: int | None = None
    comment: str = ""
    assignee: str = ""
    shelved_until_ms: int = 0
    shelved_reason: str = ""
    suppressed_by: str = ""
    detector: str = ""
    kind: str = ""
    observed: float | None = None
    expected: float | None = None
    unit: str = ""
    params: dict[str, str | float] = {}
    findings: list[str] = []
    finding_count: int = 0
    advice: str = ""
    pack: str = ""
    person: str = ""
    cause_ms: int = 0
    generated: bool = False
