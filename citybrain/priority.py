"""What becomes of priority requests at signals, in the terms of NTCIP 1211 and SAE J2735 (SSM).

The request itself is `citybrain.signal_log.PriorityRequest`. It is renewed as the vehicle comes
nearer and means nothing after its expiry, so that a vehicle that falls silent holds no green.
"""

from typing import Literal

import msgspec

VERSION = 1

RequestState = Literal[
    "queued", "granted", "active", "overridden", "completed", "cancelled", "rejected", "expired"
]
"""In NTCIP 1211's words: readyQueued; activeProcessing (its green is being prepared); active:
shown; readyOverridden (another one goes first); closedCompleted, closedCanceled,
closedStrategyError, closedTimeToLiveError."""

ENDS = frozenset({"completed", "cancelled", "rejected", "expired"})
"""States that a request does not leave."""


class PriorityStatus(
    msgspec.Struct, frozen=True, kw_only=True, tag="priority-status", tag_field="type"
):
    """What became of a request at its junction, when it changes. early_ms: how long before the
    vehicle's arrival its green began to be prepared, once it has."""

    version: int = VERSION
    id: str
    junction: str
    vehicle: str
    state: RequestState
    at_ms: int
    eta_ms: int
    why: str
    early_ms: int | None = None
