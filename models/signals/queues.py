"""Queues between detector states: what a junction's movements look like now.

Area detectors say every few seconds, late and not quite right, how many vehicles were on each
stretch of the way. From the last states known, the lamps shown since then and the time that
the way takes, the vehicles at the stop line now and the arrivals of the next seconds follow
(a vertical queue; Lin and others, ITSC 2009, use the same model for rolling horizons).
"""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from citybrain.models import block
from citybrain.models.signals.base import Row
from citybrain.signals import DetectorState, Junction

HORIZON_S = 60
"""How far ahead arrivals are known or supposed."""

_VEHICLE_M = 7.5
_FLOW_MEMORY_S = 300.0  # over which the flow from beyond the detectors is smoothed
_FAR_M = 40.0  # from the stop line on, moving vehicles are arrivals and no dissolving queue
_LEARN, _FORGET = 0.3, 0.03  # of a stop line's discharge, by detector state
_SEEN = 0.8  # a discharge above this share of saturation counts as full: detectors miss some
_STATE = (
    "_drawn", "_seen", "_standing", "_at_ms", "flow", "queue", "coming", "room", "served", "age_s",
)  # fmt: skip
_DRAWN, _DRAWN_LEAST = 0.03, 0.02  # smoothing and floor of what a lane draws, vehicles a state


class Queues:
    """Tracks one junction's movements. Arrays are by movement.

    tick: once a second with the groups that are open. learn: when states have arrived.
    """

    def __init__(self, junction: Junction) -> None:
        moves = junction.movements
        self._index = {area.id: i for i, area in enumerate(junction.areas)}
        self._length = np.array([max(1.0, a.end_m - a.begin_m) for a in junction.areas])
        count, areas = len(moves), len(junction.areas)
        self._share = np.zeros((count, areas))
        # Arrival profile of a vehicle that moves freely somewhere on an area, by second.
        self._profile = np.zeros((count, areas, HORIZON_S))
        self._exits = np.zeros((count, areas))
        self._far = np.zeros((count, areas))
        self._far_s = np.ones(count)
        self._reach_s = np.zeros(count, dtype=int)
        for m, move in enumerate(moves):
            for area, share, near in zip(move.detectors, move.shares, move.near_m, strict=True):
                a = self._index[area]
                self._share[m, a] = share
                first = near / max(move.speed_m_s, 3.0)
                last = (near + self._length[a]) / max(move.speed_m_s, 3.0)
                self._profile[m, a] = _spread(first, last)
                self._reach_s[m] = max(self._reach_s[m], min(HORIZON_S - 1, int(last)))
            far = {a for a, near in zip(move.detectors, move.near_m, strict=True) if near >= _FAR_M}
            for area in move.detectors:
                if area in far or not far:
                    self._far[m, self._index[area]] = 1.0
            spans = [near for near in move.near_m if near >= _FAR_M or not far]
            if spans:
                length = max(self._length[self._index[a]] for a in (far or move.detectors))
                reach = max(spans) - min(spans) + length
                self._far_s[m] = max(1.0, reach / max(move.speed_m_s, 3.0))
            for area in move.exits:
                self._exits[m, self._index[area]] = 1 / len(move.exits)
        self._groups = [move.group for move in moves]
        self._rate = np.array([move.saturation_veh_h / 3600 for move in moves])
        self._stop_lines = [move.detectors[0] if move.detectors else "" for move in moves]
        self._drawn = np.ones(count)
        # A permitted turn is slow by its opponents; the controller reckons with those itself.
        self._yielding = [any(str(k) in junction.yields for k in move.links) for move in moves]
        self._seen = np.zeros(areas)
        self._standing = np.zeros(areas)
        self._at_ms = np.full(areas, -1, dtype=np.int64)
        self._open: deque[tuple[int, Row]] = deque(maxlen=60)
        self.flow = np.zeros(count)
        """Vehicles a second that come from beyond the detectors, smoothed."""
        self.queue = np.zeros(count)
        self.coming = np.zeros((count, HORIZON_S))
        self.room = np.ones(count)
        self.served = np.ones(count)
        """Share of its saturation flow that each movement was seen to use when it could."""
        self.age_s = np.full(count, np.nan)
        """How old the oldest state of each movement is; NaN where one has never arrived."""

    def tick(self, now_ms: int, green: frozenset[str]) -> None:
        """A second passes with these groups green."""
        open_ = np.array([group in green for group in self._groups], dtype=float)
        self._open.append((now_ms, open_))
        self.queue, self.coming = self._second(self.queue, self.coming, open_)
        self.age_s += 1.0

    def learn(self, now_ms: int, states: Mapping[str, DetectorState]) -> None:
        """Take over what has arrived and bring it forward to now. Unknown areas are ignored;
        a state older than the one known is too."""
        for name, state in states.items():
            a = self._index.get(name)
            if a is None or state.at_ms <= self._at_ms[a]:
                continue
            self._at_ms[a] = state.at_ms
            self._seen[a], self._standing[a] = state.present, min(state.waiting, state.present)
        self._watch(states)
        moving = self._seen - self._standing
        share = self._turned()
        queue = share @ self._standing
        coming = np.einsum("ma,mat->mt", share * moving, self._profile)
        beyond = ((share * self._far) @ moving) / self._far_s
        self.flow += 5.0 / _FLOW_MEMORY_S * (beyond - self.flow)
        coming += self.flow[:, None] * (np.arange(HORIZON_S) > self._reach_s[:, None])
        since = int(np.median(self._at_ms)) if len(self._at_ms) else now_ms
        for at, open_ in self._open:
            if at > since:
                queue, coming = self._second(queue, coming, open_)
        self.queue, self.coming = queue, coming
        filled = np.where(self._at_ms < 0, 0.0, self._standing * _VEHICLE_M / self._length)
        age = np.where(self._at_ms < 0, np.nan, (now_ms - self._at_ms) / 1000)
        self.age_s = np.where(self._share > 0, age, -np.inf).max(axis=1, initial=-np.inf)
        self.room = 1.0 - self._exits @ np.minimum(filled, 1.0)

    def arrays(self) -> tuple[dict[str, block.Array], list[int]]:
        """The state: arrays, and the times of the lamps that are remembered."""
        lamps = [row for _, row in self._open]
        found: dict[str, block.Array] = {name: getattr(self, name) for name in _STATE}
        found["open"] = np.array(lamps) if lamps else np.zeros((0, len(self._groups)))
        return found, [at for at, _ in self._open]

    def take_up(self, arrays: Mapping[str, block.Array], opened: Sequence[int]) -> None:
        """Go on from `arrays`."""
        for name in _STATE:
            setattr(self, name, arrays[name])
        self._open.clear()
        self._open.extend(zip(opened, arrays["open"], strict=True))

    def _watch(self, states: Mapping[str, DetectorState]) -> None:
        """Learn from stop lines where vehicles stood in green for a whole interval: whatever is
        in their way (a full exit, a parked van, oncoming traffic), it shows there."""
        self.served += _FORGET * (1.0 - self.served)
        for m, name in enumerate(self._stop_lines):
            state = states.get(name)
            if state is None:
                continue
            self._drawn[m] += _DRAWN * (state.passed - self._drawn[m])
            if state.present < 2 or self._yielding[m]:
                continue
            open_s = sum(open_[m] for at, open_ in self._open if -5_000 < at - state.at_ms <= 0)
            if open_s < 5:
                continue
            whole = _SEEN * self._rate[m] * open_s
            self.served[m] += _LEARN * (min(1.0, state.passed / whole) - self.served[m])

    def _turned(self) -> Row:
        """Shares of each area by movement, as the lanes at the stop line draw vehicles: who
        waits on a full lane's approach is bound for that lane and not for the empty one."""
        bound = self._share * (self._drawn[:, None] + _DRAWN_LEAST)
        whole = bound.sum(axis=0)
        share: Row = bound * np.divide(
            self._share.sum(axis=0), whole, out=np.zeros_like(whole), where=whole > 0
        )
        return share

    def _second(self, queue: Row, coming: Row, open_: Row) -> tuple[Row, Row]:
        queue = queue + coming[:, 0]
        queue -= np.minimum(queue, self._rate * self.served * open_)
        moved = np.empty_like(coming)
        moved[:, :-1] = coming[:, 1:]
        moved[:, -1] = self.flow
        return queue, moved


def _spread(first: float, last: float) -> Row:
    """Share of a vehicle that arrives in each second, evenly between two times."""
    edges = np.clip(np.arange(HORIZON_S + 1), first, max(last, first + 1e-3))
    parts = np.diff(edges)
    total = parts.sum()
    if total <= 0:
        parts[-1] = total = 1.0
    return np.asarray(parts / total, dtype=float)
