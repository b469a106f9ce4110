"""Where the time comes from: passed in everywhere, so that tests and replays choose it."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from citybrain.errors import UsageError

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


_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


def later(text: str, now_ms: int, zone: tzinfo) -> int:
    """A time as people give it: `30m`, `2h`, `1d` after now, or ISO 8601 (in `zone` without
    an offset of its own). Raises UsageError.

    >>> later("2h", 1_000, UTC), later("1970-01-01T01:00", 0, UTC)
    (7201000, 3600000)
    """
    span = re.fullmatch(r"(\d{1,6})([mhd])", text.strip())
    if span:
        return now_ms + int(span[1]) * _UNITS_MS[span[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(
            f"until: {text!r} is neither a span (30m, 2h, 1d) nor a time (2026-01-31T18:00)"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return round(moment.timestamp() * 1000)


def shown(time_ms: int | None, zone: tzinfo) -> str:
    """A time for people, in their zone, to the second; "" for none.

    >>> shown(0, UTC)
    '1970-01-01 00:00:00'
    """
    if time_ms is None:
        return ""
    return datetime.fromtimestamp(time_ms / 1000, zone).strftime("%Y-%m-%d %H:%M:%S")


def age(past_ms: int, now_ms: int) -> str:
    """How long ago something was, in the unit that reads best.

    >>> age(0, 4_000), age(0, 150_000), age(0, 7_200_000), age(0, 500_000_000)
    ('4 s', '2 min', '2 h', '5 d')
    """
    seconds = max(0, now_ms - past_ms) // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
