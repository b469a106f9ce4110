"""Where the time comes from: passed in everywhere, so that tests and replays choose it."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

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


def moment(text: str, name: str, zone: tzinfo = UTC) -> int:
    """UTC milliseconds of an ISO 8601 time, in `zone` if it has no offset of its own.

    Raises UsageError with `name` of the option.

    >>> moment("1970-01-01T01:00", "start"), moment("1970-01-01T01:00+01:00", "start")
    (3600000, 0)
    """
    try:
        when = datetime.fromisoformat(text.strip())
        when = when if when.tzinfo else when.replace(tzinfo=zone)
        return round(when.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{name}: {text!r} is not an ISO 8601 time like 2026-01-31T18:00:00Z"
        ) from error


def later(text: str, now_ms: int, zone: tzinfo) -> int:
    """A time to come, as people give it: `30m`, `2h`, `1d` after now; `18:00`, the next one in
    `zone`; or ISO 8601 (in `zone` without an offset of its own). Raises UsageError.

    >>> later("2h", 1_000, UTC), later("00:00", 1_000, UTC), later("1970-01-01T01:00", 0, UTC)
    (7201000, 86400000, 3600000)
    """
    if span := re.fullmatch(r"(\d{1,6})([mhd])", text.strip()):
        return now_ms + int(span[1]) * _UNITS_MS[span[2]]
    if re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text.strip()):
        hour, minute = map(int, text.split(":"))
        now = datetime.fromtimestamp(now_ms / 1000, zone)
        when = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        # Tomorrow's by the calendar, not in 24 hours: the clocks may change tonight.
        when = when if when > now else when + timedelta(days=1)
        return round(when.timestamp() * 1000)
    try:
        until = moment(text, "until", zone)
    except UsageError as error:
        raise UsageError(
            f"until: {text!r} is neither a span (30m, 2h, 1d) nor a time (18:00, 2026-01-31T18:00)"
        ) from error
    if until <= now_ms:
        raise UsageError(f"until: {text!r} is past; it is {shown(now_ms, zone)} ({zone})")
    return until


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
