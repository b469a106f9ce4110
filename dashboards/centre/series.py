"""One series for the chart: what memory holds, history before that, the forecasts beside."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from citybrain.city import City
from citybrain.dashboards.centre.frames import ForecastPoint, Frames, Point
from citybrain.kinds import DAY, HOUR

HISTORY_HOURS = 24 * 14
_DAY_SQL = """
SELECT start_ms, CASE WHEN seen = 0 THEN NULL ELSE {value} END AS value, seen, expected
FROM read_parquet(?, union_by_name = true)
WHERE sensor = ? AND window_ms = ? AND start_ms >= ? AND start_ms < ?
QUALIFY row_number() OVER (PARTITION BY start_ms ORDER BY revision DESC) = 1
ORDER BY start_ms
"""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A series for the chart. points: oldest first; forecasts: by horizon in milliseconds."""

    sensor: str
    kind: str
    unit: str
    window_ms: int
    points: list[Point]
    forecasts: dict[int, list[ForecastPoint]]
    from_history: int = 0


class History:
    """Statistics as the historian has written them to Parquet; empty where there are none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def points(
        self, sensor: str, kind: str, window_ms: int, total: bool, since_ms: int, until_ms: int
    ) -> list[Point]:
        """Windows of a series within [since_ms, until_ms), oldest first."""
        import duckdb

        folder = self._folder / "stats" / f"kind={kind}"
        # Only the days asked for, so that a long history costs nothing.
        days = {f"date={_day(ms)}" for ms in range(since_ms, until_ms + DAY, DAY)}
        files = [
            str(file) for day in sorted(days) for file in sorted((folder / day).glob("*.parquet"))
        ]
        if not files:
            return []
        sql = _DAY_SQL.format(value="sum" if total else "sum / seen")
        with duckdb.connect() as db:
            db.execute("SET threads = 1")
            rows = db.execute(sql, [files, sensor, window_ms, since_ms, until_ms]).fetchall()
        return [Point(start, value, seen, expected) for start, value, seen, expected in rows]


async def series(
    city: City,
    frames: Frames,
    history: History,
    now_ms: int,
    *,
    sensor: str,
    kind: str,
    window: str = "",
    hours: str = "",
) -> Series:
    """A series by the text of a request. Raises HTTPException naming what is wrong."""
    if sensor not in city.sensors:
        raise HTTPException(404, f"sensor: {sensor[:80]!r} is not in the pack of {city.id}")
    if kind not in city.sensors[sensor].kinds:
        known = ", ".join(city.sensors[sensor].kinds)
        raise HTTPException(404, f"kind: {kind[:80]!r}: {sensor} reports {known}")
    row = city.kinds[kind]
    window_ms = _number("window", window, row.analysed_ms)
    if window_ms not in row.windows_ms:
        raise HTTPException(400, f"window: {window_ms}: {kind} has {row.windows_ms}, in ms")
    back_ms = _number("hours", hours, 0) * HOUR
    if back_ms > HISTORY_HOURS * HOUR:
        raise HTTPException(400, f"hours: {hours}: at most {HISTORY_HOURS}")
    points = frames.points(sensor, kind, window_ms)
    since_ms = now_ms - back_ms
    until_ms = points[0].start_ms if points else now_ms
    before: list[Point] = []
    if since_ms < until_ms:
        before = await asyncio.to_thread(
            history.points, sensor, kind, window_ms, row.total, since_ms, until_ms
        )
    return Series(
        sensor=sensor,
        kind=kind,
        unit=row.unit,
        window_ms=window_ms,
        points=before + points,
        forecasts=frames.forecasts(sensor, kind),
        from_history=len(before),
    )


def _number(name: str, text: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise HTTPException(400, f"{name}: {text[:40]!r}: expected a whole number")
    return int(text)


def _day(ms: int) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).date()
