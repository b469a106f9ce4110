"""Times as people write them: one reading of them for every command."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from citybrain.clock import later, moment
from citybrain.errors import UsageError

SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


NOW = ms("2026-03-28T17:30:00+08:00")


@pytest.mark.parametrize(
    ("text", "zone", "want"),
    [
        ("30m", SHANGHAI, "2026-03-28T18:00:00+08:00"),
        ("2h", SHANGHAI, "2026-03-28T19:30:00+08:00"),
        ("18:00", SHANGHAI, "2026-03-28T18:00:00+08:00"),
        ("17:30", SHANGHAI, "2026-03-29T17:30:00+08:00"),
        ("9:05", SHANGHAI, "2026-03-29T09:05:00+08:00"),
        # 10:30 in Berlin; its clocks go forward in the night.
        ("10:15", BERLIN, "2026-03-29T10:15:00+02:00"),
        ("2026-03-28T18:00", SHANGHAI, "2026-03-28T18:00:00+08:00"),
        ("2026-03-28T18:00Z", SHANGHAI, "2026-03-28T18:00:00+00:00"),
    ],
)
def test_a_time_to_come_is_taken_as_people_give_it(text: str, zone: ZoneInfo, want: str) -> None:
    assert later(text, NOW, zone) == ms(want)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("noon", "until: 'noon' is neither a span .* nor a time"),
        ("24:00", "until: '24:00' is neither"),
        ("18:60", "is neither"),
        ("", "is neither"),
        ("2026-03-28T17:30", r"is past; it is 2026-03-28 17:30:00 \(Asia/Shanghai\)"),
    ],
)
def test_what_is_no_time_to_come_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        later(text, NOW, SHANGHAI)


def test_a_moment_without_a_zone_is_utc() -> None:
    assert moment("1970-01-01T01:00:00Z", "as-of") == 3_600_000
    assert moment("1970-01-01T01:00", "as-of") == 3_600_000
    assert moment("1970-01-01T01:00:00+01:00", "as-of") == 0
    assert moment("1970-01-01", "as-of", UTC) == 0
    with pytest.raises(UsageError, match="as-of: 'noon'"):
        moment("noon", "as-of")
