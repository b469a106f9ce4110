"""Roads as they are now: what each link takes by live speeds, and which are closed."""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from citybrain.findings import LinkState
from citybrain.models.routing import Roads, Row

_LEAST_RATIO = 0.1
"""No live speed counts as less than this share of the free one: a queue stands before a red
light, and priority clears it; it is not the speed of the whole link."""


class Closure(msgspec.Struct, frozen=True, kw_only=True):
    """A closed link. until_ms: event time. responders_pass: closed to the others only."""

    link: str
    until_ms: int
    reason: str = ""
    responders_pass: bool = False


class Conditions:
    """Live link states and closures over a network."""

    def __init__(self, roads: Roads) -> None:
        self.roads = roads
        self.states: dict[str, LinkState] = {}
        self.closures: dict[str, Closure] = {}
        count = len(roads.names)
        self._ratio = np.ones(count)
        self._at_ms = np.zeros(count, np.int64)
        self._expires_ms = np.zeros(count, np.int64)

    def learn(self, state: LinkState) -> bool:
        """Take a link's state; False for a link that the pack lacks, or older news."""
        i = self.roads.index.get(state.link)
        if i is None or state.at_ms < self._at_ms[i]:
            return False
        self.states[state.link] = state
        known = state.ratio is not None and state.state != "unknown"
        self._ratio[i] = max(_LEAST_RATIO, min(1.0, state.ratio or 0.0)) if known else 1.0
        self._at_ms[i] = state.at_ms
        self._expires_ms[i] = state.expires_ms if known else 0
        return True

    def seconds(self, now_ms: int) -> Row:
        """What each link takes: by its live speed while that holds, else at free speed."""
        ratio = np.where(self._expires_ms > now_ms, self._ratio, 1.0)
        return np.asarray(self.roads.free_s / ratio, float)

    def basis(self, route: Sequence[str], now_ms: int) -> tuple[float, int | None]:
        """(share of a route's free time on links with a live speed, age of the oldest one)."""
        at = np.array([self.roads.index[name] for name in route])
        live = self._expires_ms[at] > now_ms
        free = self.roads.free_s[at]
        age = int(now_ms - self._at_ms[at][live].min()) if live.any() else None
        return round(float(free[live].sum() / free.sum()), 3), age

    def closed(self) -> npt.NDArray[np.bool_]:
        """Links that responders may not enter."""
        found = np.zeros(len(self.roads.names), bool)
        for closure in self.closures.values():
            if not closure.responders_pass:
                found[self.roads.index[closure.link]] = True
        return found

    def expire(self, now_ms: int) -> list[str]:
        """Open again what was closed until now; their links."""
        over = [c.link for c in self.closures.values() if c.until_ms <= now_ms]
        for link in over:
            del self.closures[link]
        return over

    def why_closed(self, links: Collection[str]) -> str:
        """The closures among these links, for people."""
        told = [
            f"{c.link} is closed" + (f" ({c.reason})" if c.reason else "")
            for c in self.closures.values()
            if c.link in links and not c.responders_pass
        ]
        return ", ".join(told)
