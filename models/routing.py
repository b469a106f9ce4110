"""The road network as responders drive it: times to a place, routes, the nearest link.

Links are the nodes of the graph and allowed turns its arcs (an edge-based graph), so that a
forbidden turn is no way. Shortest paths by `scipy.sparse.csgraph.dijkstra`, from the goal
backwards: one call tells the time from everywhere. (With new link times at each call, CPU on
one core: scipy 0.3 ms on 740 links and 8 ms on 40,000; rustworkx 0.7 and 134; python-igraph
1.0 and 577; networkx, weights unchanged, 1.8 and 317.)
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from citybrain.city import Link

Row = npt.NDArray[np.float64]

_EARTH_M = 111_320.0  # metres a degree of latitude
_JOIN_M = 1.0  # ends so close are one node where a pack does not say how links connect
_LEAST_S = 1e-3  # a link takes some time, or the graph has no arc


@dataclass(frozen=True, slots=True)
class Route:
    """Links in order, from the first metre driven to the goal; seconds for all of it."""

    links: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Goal:
    """Where to, and from the end of each link (by index): seconds left, and the link after it
    (-1: none, or already there)."""

    link: int
    pos_m: float
    left_s: Row
    after: npt.NDArray[np.int32]


class Roads:
    """Links with lengths, free times and allowed turns. Arrays are in the order of `names`."""

    def __init__(
        self,
        names: Sequence[str],
        length_m: Iterable[float],
        free_m_s: Iterable[float],
        turns: Mapping[str, Collection[str]],
    ) -> None:
        self.names = tuple(names)
        self.index = {name: i for i, name in enumerate(self.names)}
        self.length_m = np.array(list(length_m), float)
        self.free_s = np.maximum(self.length_m / np.array(list(free_m_s), float), _LEAST_S)
        pairs = [
            (self.index[a], self.index[b]) for a, beyond in turns.items() for b in sorted(beyond)
        ]
        count = len(self.names)
        self._from = np.array([a for a, _ in pairs], np.int32)
        self._to = np.array([b for _, b in pairs], np.int32)
        self._shape = (count, count)
        self._turns = set(pairs)

    def may_turn(self, one: str, other: str) -> bool:
        """Whether `other` may be driven on to from the end of `one`."""
        return (self.index.get(one, -1), self.index.get(other, -1)) in self._turns

    def goal(self, link: int, pos_m: float, seconds: Row, closed: npt.NDArray[np.bool_]) -> Goal:
        """Times to a place on a link from everywhere. seconds: what each link takes now.
        closed: links that must not be entered; a goal on one of them is out of reach."""
        open_ = ~closed[self._to]
        data = np.maximum(seconds[self._to], _LEAST_S)[open_]
        graph = csr_array((data, (self._to[open_], self._from[open_])), shape=self._shape)
        left, after = dijkstra(graph, indices=link, return_predecessors=True)
        rest = float(seconds[link]) * (1 - pos_m / max(self.length_m[link], 1e-9))
        left_s = np.asarray(left - rest, float)
        after = np.asarray(after, np.int32)
        # From the goal link's own end one has to come round again.
        again = data[(self._from[open_] == link)] + left[self._to[open_][self._from[open_] == link]]
        beyond = self._to[open_][self._from[open_] == link]
        left_s[link], after[link] = np.inf, -1
        if len(again) and np.isfinite(again.min()):
            left_s[link] = float(again.min()) - rest
            after[link] = int(beyond[int(again.argmin())])
        return Goal(link, pos_m, left_s, np.where(after < 0, -1, after))

    def seconds_from(self, goal: Goal, link: int, pos_m: float, seconds: Row) -> float:
        """From a place on a link to the goal; infinite where there is no way."""
        whole = max(float(self.length_m[link]), 1e-9)
        if link == goal.link and pos_m <= goal.pos_m:
            return float(seconds[link]) * (goal.pos_m - pos_m) / whole
        return float(seconds[link] * (1 - pos_m / whole) + goal.left_s[link])

    def route(self, goal: Goal, link: int, pos_m: float, seconds: Row) -> Route | None:
        """The fastest route from a place on a link, or None if there is no way."""
        total = self.seconds_from(goal, link, pos_m, seconds)
        if not np.isfinite(total):
            return None
        links = [link]
        at = link
        if not (link == goal.link and pos_m <= goal.pos_m):
            while at != goal.link or len(links) == 1:
                at = int(goal.after[at])
                links.append(at)
        return Route(tuple(self.names[i] for i in links), total)

    def along(self, route: Sequence[str], pos_m: float, goal_m: float, seconds: Row) -> float:
        """Seconds of a route from a place on its first link to one on its last."""
        at = [self.index[name] for name in route]
        whole = self.length_m[at[0]] or 1e-9
        if len(at) == 1:
            return float(seconds[at[0]]) * max(0.0, goal_m - pos_m) / whole
        first = float(seconds[at[0]]) * max(0.0, 1 - pos_m / whole)
        last = float(seconds[at[-1]]) * min(1.0, goal_m / (self.length_m[at[-1]] or 1e-9))
        return first + float(seconds[at[1:-1]].sum()) + last

    def broken(self, route: Sequence[str], closed: npt.NDArray[np.bool_]) -> str:
        """Why a route cannot be driven, or "": an unknown link, a forbidden turn, a closed
        road (the first link is where the vehicle is already)."""
        if not route:
            return "route: is empty"
        for name in route:
            if name not in self.index:
                return f"route: {name!r} is not a link of the pack"
        for one, other in pairwise(route):
            if not self.may_turn(one, other):
                return f"route: from {one!r} nobody may turn into {other!r}"
        for name in route[1:]:
            if closed[self.index[name]]:
                return f"route: {name!r} is closed"
        return ""


def roads_of(links: Mapping[str, Link]) -> Roads:
    """The network of a pack. Where it does not say how links connect, links connect where they
    meet, turning back excepted."""
    starts: dict[tuple[int, int], list[str]] = {}
    for link in links.values():
        starts.setdefault(_cell(link.line[0]), []).append(link.id)
    turns: dict[str, Collection[str]] = {}
    for link in links.values():
        if link.next is not None:
            turns[link.id] = link.next
            continue
        x, y = _cell(link.line[-1])
        near = {
            n for dx in (-1, 0, 1) for dy in (-1, 0, 1) for n in starts.get((x + dx, y + dy), ())
        }
        back = _cell(link.line[0])
        turns[link.id] = {n for n in near if _cell(links[n].line[-1]) != back}
    names = sorted(links)
    return Roads(
        names,
        [links[n].length_m for n in names],
        [links[n].speed_kmh / 3.6 for n in names],
        turns,
    )


def _cell(point: tuple[float, float]) -> tuple[int, int]:
    lon, lat = point
    step = _JOIN_M / _EARTH_M
    return round(lon * np.cos(np.radians(lat)) / step), round(lat / step)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place on the network. apart_m: how far the point was from it."""

    link: int
    pos_m: float
    apart_m: float


class Ground:
    """Where links lie: from WGS-84 to a place on a link, on a plane true to metres nearby."""

    def __init__(self, roads: Roads, links: Mapping[str, Link]) -> None:
        points = [links[name].line for name in roads.names]
        lat = float(np.mean([line[0][1] for line in points])) if points else 0.0
        self._scale = np.array([_EARTH_M * np.cos(np.radians(lat)), _EARTH_M])
        lines = [np.array(line) * self._scale for line in points]
        a = [line[:-1] for line in lines]
        self._a = np.concatenate(a) if a else np.zeros((0, 2))
        self._step = np.concatenate([np.diff(line, axis=0) for line in lines] or [self._a])
        self._link = np.repeat(np.arange(len(lines)), [len(part) for part in a])
        self._span = np.maximum(np.hypot(*self._step.T), 1e-9)
        # Drawn lengths differ a little from those that the pack states.
        drawn = np.array([np.hypot(*np.diff(line, axis=0).T).sum() for line in lines])
        self._stretch = roads.length_m / np.maximum(drawn, 1e-9)
        before = [
            np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(x, axis=0).T))[:-1]]) for x in lines
        ]
        self._before = np.concatenate(before) if before else np.zeros(0)

    def nearest(
        self,
        lon: float,
        lat: float,
        among: Collection[int] | None = None,
        moved: tuple[float, float] | None = None,
    ) -> Spot | None:
        """The nearest place of these links (of all). moved: metres east and north since the last
        position: of the links of a two-way road the one that is driven that way."""
        use = np.ones(len(self._a), bool) if among is None else np.isin(self._link, list(among))
        if not use.any():
            return None
        point = np.array([lon, lat]) * self._scale
        t = ((point - self._a) * self._step).sum(axis=1) / self._span**2
        t = np.clip(t, 0.0, 1.0)
        apart = np.hypot(*(self._a + t[:, None] * self._step - point).T)
        score = np.where(use, apart, np.inf)
        if moved is not None and np.hypot(*moved) > 1.0:
            against = (self._step @ np.array(moved)) / self._span / np.hypot(*moved) < -0.3
            score = score + np.where(against, 30.0, 0.0)
        best = int(score.argmin())
        link = int(self._link[best])
        pos = (self._before[best] + t[best] * self._span[best]) * self._stretch[link]
        return Spot(link, float(pos), float(apart[best]))

    def point(self, spot: Spot) -> tuple[float, float]:
        """Longitude and latitude of a place on a link."""
        pieces = np.flatnonzero(self._link == spot.link)
        drawn = spot.pos_m / max(float(self._stretch[spot.link]), 1e-9)
        piece = pieces[max(0, int(np.searchsorted(self._before[pieces], drawn, "right")) - 1)]
        share = min(1.0, max(0.0, (drawn - self._before[piece]) / self._span[piece]))
        lon, lat = (self._a[piece] + share * self._step[piece]) / self._scale
        return float(lon), float(lat)

    def apart_m(self, one: Spot, other: Spot) -> float:
        """Metres between two places, as the crow flies."""
        return float(np.hypot(*self.metres(self.point(one), self.point(other))))

    def metres(self, one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
        """Metres east and north from one point to another."""
        east, north = (np.array(other) - np.array(one)) * self._scale
        return float(east), float(north)
