"""How far a simulated city is with the days that it makes up for its models to learn from."""

from pathlib import Path

import msgspec

from citybrain.errors import JSON_ERRORS


class _Progress(msgspec.Struct):
    """What matters here of `<data>/world/progress.json`."""

    from_ms: int = 0
    to_ms: int = 0
    through_ms: int = 0
    finished: bool = False


def past_share(data: Path) -> float | None:
    """The share of the past days that is done, None where none are being made."""
    try:
        progress = msgspec.json.decode(
            (data / "world" / "progress.json").read_bytes(), type=_Progress
        )
    except FileNotFoundError:
        return None
    except (OSError, *JSON_ERRORS):
        # Only for show, and its owner checks the file: no reason to stop the page.
        return None
    whole_ms = progress.to_ms - progress.from_ms
    if progress.finished or whole_ms <= 0:
        return None
    return round(min(1.0, max(0.0, (progress.through_ms - progress.from_ms) / whole_ms)), 4)
