"""One series for the chart: what memory holds, history before that, the forecasts beside."""

import asyncio
from pathlib import Path

import msgspec
from starlette.exceptions import HTTPException

from citybrain.city import City
from citybrain.dashboards.centre.frames import ForecastPoint, Frames, Point
from citybrain.kinds import HOUR

HISTORY_HOURS = 24 * 14
_SQL = """
SELECT epoch_ms(window_start) AS start_ms, value, seen, expected FROM stats
WHERE sensor = $1 AND kind = $2 AND window_ms = $3 AND step_ms = window_ms
  AND window_start >= epoch_ms($4::BIGINT)::timestamptz
  AND window_start < epoch_ms($5::BIGINT)::timestamptz
ORDER BY window_start
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
    """Statistics as the historian has written them; empty where there are none yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def points(
        self, sensor: str, kind: str, window_ms: int, since_ms: int, until_ms: int
    ) -> list[Point]:
        """Windows of a series within [since_ms, until_ms), oldest first."""
        # DuckDB takes a moment to import, and a page without long charts never needs it.
        from citybrain.history.journal import NAME
        from citybrain.history.read import Reader

        if not (self._folder / NAME).is_file():
            return []
        with Reader(self._folder, tables=("stats",)) as reader:
            rows = reader.arrow(_SQL, [sensor, kind, window_ms, since_ms, until_ms])
        return [Point(*row.values()) for row in rows.to_pylist()]


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
            history.points, sensor, kind, window_ms, since_ms, until_ms
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
