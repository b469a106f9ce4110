"""The hidden schedule: what goes wrong, where and when, decided by seed and time alone.

Kept in `<data>/world/events.json` for whoever judges what the engine found; the engine never
reads it. Everything in it is generated.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from citybrain.errors import UsageError

HOUR_MS = 3_600_000
MINUTE_MS = 60_000

What = Literal["crash", "surge", "cloudburst", "dead", "stuck", "chattering"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens. Times UTC ms; only the places that apply are filled in.

    happened_ms: when it really began in the simulator (a crash needs a car to crash), None
    until then. strength: mm/h of a cloudburst's core, vehicles an hour of a surge.
    """

    id: str
    what: What
    from_ms: int
    to_ms: int
    zone: str = ""
    link: str = ""
    sensor: str = ""
    lane: str = ""
    pos_m: float = 0.0
    x: float = 0.0
    y: float = 0.0
    strength: float = 0.0
    happened_ms: int | None = None
    generated: bool = True

    def active(self, now_ms: int) -> bool:
        """Whether it lasts at a time."""
        return self.from_ms <= now_ms < self.to_ms


class _File(msgspec.Struct, frozen=True):
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Spot:
    """A sensor that something may happen to, and the lane it watches."""

    sensor: str
    zone: str
    link: str
    lane: str
    pos_m: float
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Where things may happen: crash sites, detectors that may fail, weather stations."""

    crash_sites: Sequence[Spot]
    detectors: Sequence[Spot]
    stadium: Spot
    stations: Sequence[Spot]


# An hour's chance of each, once the opening is over.
_PER_HOUR: dict[What, float] = {
    "crash": 0.15,
    "dead": 0.2,
    "stuck": 0.15,
    "chattering": 0.1,
    "cloudburst": 0.01,
}
_LASTS_MIN: dict[What, tuple[float, float]] = {
    "crash": (8.0, 20.0),
    "dead": (15.0, 90.0),
    "stuck": (20.0, 90.0),
    "chattering": (10.0, 40.0),
    "cloudburst": (15.0, 35.0),
}
# In a run's first minutes one of each happens, so that a short run shows every detection.
_OPENING_S: tuple[tuple[What, float, float], ...] = (
    ("dead", 10.0, 20.0),
    ("stuck", 10.0, 20.0),
    ("chattering", 15.0, 25.0),
    ("crash", 15.0, 20.0),
    ("cloudburst", 10.0, 15.0),
)


def opening(seed: int, start_ms: int, stage: Stage) -> list[Event]:
    """What happens in the first minutes of a run that starts at `start_ms`."""
    rng = np.random.default_rng((seed, start_ms // 1000, 1))
    events: list[Event] = []
    for what, after, before in _OPENING_S:
        from_ms = start_ms + int(rng.uniform(after, before) * 1000)
        taken = {e.sensor for e in events} | {e.link for e in events}
        events.append(_event(rng, what, from_ms, stage, taken, f"opening-{start_ms // 1000}"))
    return events


def hour(seed: int, hour_ms: int, stage: Stage, evening: bool) -> list[Event]:
    """What begins within the hour that starts at `hour_ms`. evening: a match is played."""
    rng = np.random.default_rng((seed, hour_ms // HOUR_MS, 2))
    events: list[Event] = []
    for what, chance in _PER_HOUR.items():
        for number in range(rng.poisson(chance)):
            from_ms = hour_ms + int(rng.uniform(0, HOUR_MS))
            taken = {e.sensor for e in events} | {e.link for e in events}
            name = f"{hour_ms // HOUR_MS}-{number}"
            events.append(_event(rng, what, from_ms, stage, taken, name))
    if evening:
        place = stage.stadium
        events.append(
            Event(
                id=f"surge-{hour_ms // HOUR_MS}", what="surge",
                from_ms=hour_ms + 10 * MINUTE_MS, to_ms=hour_ms + 50 * MINUTE_MS,
                zone=place.zone, link=place.link, x=place.x, y=place.y, strength=500.0,
            )
        )  # fmt: skip
    return sorted(events, key=lambda e: (e.from_ms, e.id))


def _event(
    rng: np.random.Generator, what: What, from_ms: int, stage: Stage, taken: set[str], name: str
) -> Event:
    shortest, longest = _LASTS_MIN[what]
    to_ms = from_ms + int(rng.uniform(shortest, longest) * MINUTE_MS)
    identity = f"{what}-{name}"
    if what == "cloudburst":
        # It begins near a station: what no gauge sees cannot be found.
        over = stage.stations[int(rng.integers(len(stage.stations)))]
        x, y = rng.normal((over.x, over.y), 100.0)
        strength = float(rng.uniform(110.0, 160.0))
        return Event(
            id=identity, what=what, from_ms=from_ms, to_ms=to_ms, zone=over.zone,
            x=round(float(x)), y=round(float(y)), strength=round(strength),
        )  # fmt: skip
    spots = stage.crash_sites if what == "crash" else stage.detectors
    free = [s for s in spots if s.sensor not in taken and s.link not in taken] or list(spots)
    spot = free[int(rng.integers(len(free)))]
    return Event(
        id=identity, what=what, from_ms=from_ms, to_ms=to_ms, zone=spot.zone, link=spot.link,
        sensor="" if what == "crash" else spot.sensor, lane=spot.lane if what == "crash" else "",
        pos_m=spot.pos_m, x=spot.x, y=spot.y,
    )  # fmt: skip


def write(path: Path, events: Sequence[Event]) -> None:
    """Keep the schedule for judging, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"generated": True, "events": [msgspec.to_builtins(e) for e in events]}
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(body, indent=1, ensure_ascii=False), encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> list[Event]:
    """The schedule of `write`, or one that somebody wrote.

    Raises UsageError naming the file and the field of an event that does not fit.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).events
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error


def check(events: Sequence[Event], sensors: Collection[str], lanes: Mapping[str, str]) -> None:
    """Whether events can happen in a city. lanes: lane with a detector -> its link.

    Raises UsageError naming the event, the field, the value and what was expected.
    """
    for event in events:
        if event.to_ms <= event.from_ms:
            raise UsageError(f"{event.id}: to_ms: {event.to_ms} is not after from_ms")
        if event.what in ("dead", "stuck", "chattering") and event.sensor not in sensors:
            raise UsageError(f"{event.id}: sensor: {event.sensor!r} is not a sensor of the city")
        if event.what == "crash" and lanes.get(event.lane) != event.link:
            raise UsageError(
                f"{event.id}: lane: {event.lane!r} is not a lane of link {event.link!r} that has"
                " a detector"
            )
