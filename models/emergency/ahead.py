"""The signals ahead of a responder, and what is asked of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from citybrain.models.routing import Roads
from citybrain.signal_log import PriorityRequest
from citybrain.signals import Junction

ASK_MS = 120_000
"""A green is asked for so long before the arrival: the junction alone knows its queue."""
HOLDS_MS = 12_000
"""A request that is not renewed means nothing after so long."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A stop line on a route. number: of its link in the route. groups: of the whole approach;
    own: of the way from this link to the next."""

    junction: str
    link: str
    number: int
    groups: tuple[str, ...]
    own: tuple[str, ...]


class Signals:
    """Which signal groups stand at the end of which link."""

    def __init__(self, junctions: Mapping[str, Junction]) -> None:
        self._at: dict[str, str] = {}
        self._groups: dict[str, set[str]] = {}
        self._own: dict[tuple[str, str], set[str]] = {}
        for junction in junctions.values():
            walks = {g.id for g in junction.table.groups if g.kind == "pedestrian"}
            for move in junction.movements:
                if move.group in walks:
                    continue
                for link in map(_link, move.lanes_in):
                    self._at[link] = junction.id
                    self._groups.setdefault(link, set()).add(move.group)
                    for beyond in map(_link, move.lanes_out):
                        self._own.setdefault((link, beyond), set()).add(move.group)

    def along(self, route: Sequence[str]) -> Iterator[Crossing]:
        """The stop lines of a route; one at the end of its last link is not crossed."""
        for number, (link, beyond) in enumerate(pairwise(route)):
            junction = self._at.get(link)
            if junction is not None:
                groups = tuple(sorted(self._groups[link]))
                own = tuple(sorted(self._own.get((link, beyond), ())))
                yield Crossing(junction, link, number, groups, own)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who drives: mission is unique to a drive, importance 1 to 4 as severities."""

    mission: str
    vehicle: str
    importance: int


def requests(
    asker: Asker,
    route: Sequence[str],
    signals: Signals,
    roads: Roads,
    pos_m: float,
    now_ms: int,
    sets_out_ms: int = 0,
) -> dict[str, PriorityRequest]:
    """Id -> what a vehicle on the way asks now, `pos_m` along the first link of its route; one
    that has its order and has not set out yet does so at `sets_out_ms`.

    Arrivals are at free speed: the earliest that can be, since what stands in the way is the
    junction's to clear.
    """
    found = {}
    links = [roads.index[name] for name in route]
    whole_m = max(float(roads.length_m[links[0]]), 1e-9)
    ends = [float(roads.free_s[links[0]] * (1 - pos_m / whole_m))]
    for link in links[1:]:
        ends.append(ends[-1] + float(roads.free_s[link]))
    for crossing in signals.along(route):
        eta_ms = max(now_ms, sets_out_ms) + round(ends[crossing.number] * 1000)
        if eta_ms - now_ms > ASK_MS:
            break
        name = f"{asker.mission}@{crossing.junction}:{crossing.link}"
        found[name] = PriorityRequest(
            id=name, vehicle=asker.vehicle, junction=crossing.junction,
            groups=list(crossing.groups), own=list(crossing.own), importance=asker.importance,
            eta_ms=eta_ms, issued_ms=now_ms, expires_ms=now_ms + HOLDS_MS,
        )  # fmt: skip
    return found


def _link(lane: str) -> str:
    return lane.rpartition("_")[0]
