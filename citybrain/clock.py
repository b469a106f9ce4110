"""Where the time comes from: passed in everywhere, so that tests and replays choose it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Returns milliseconds since 1970-01-01 UTC."""


def wall_clock() -> int:
    """Milliseconds since 1970-01-01 UTC by this machine's clock."""
    return time.time_ns() // 1_000_000


def stamp(time_ms: int) -> str:
    """A time as ids and messages say it: ISO 8601 basic form, UTC.

    >>> stamp(1_767_225_600_000), stamp(1_767_225_600_007)
    ('20260101T000000Z', '20260101T000000.007Z')
    """
    whole, rest = divmod(time_ms, 1000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y%m%dT%H%M%S")
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"
