"""One junction as the one sees it who decides for it, wherever that runs: bench or city.

What its controller reported last, the queues that its detectors speak of, since when each
group has been red and somebody has been waiting; and when a decision is due again. Everything
comes in through three methods and the state can be kept and taken up again, so the same
reports and times give the same decisions.
"""

from collections.abc import Collection, Mapping

import msgspec
import numpy as np

from citybrain.errors import InvalidInput, PackError
from citybrain.models import block
from citybrain.models.signals import CONTROLLERS
from citybrain.models.signals.base import Decision, View
from citybrain.models.signals.queues import Queues
from citybrain.signal_log import Shown
from citybrain.signals import DetectorState, Junction

EVERY_MS = 2_000
"""Between two decisions on the same stage."""
SETTLED_MS = 5_000
"""Before a stage has been shown for so long, every look at it is a decision."""
UNHEARD_MS = 5_000
"""A controller that has said nothing for so long is left to its local plan."""
_SECOND_MS = 1_000
_CATCH_UP_S = 120  # a longer silence is not simulated: what was known then is worth nothing


class _Kept(msgspec.Struct, kw_only=True):
    """The part of a site's state that is not arrays."""

    shown: Shown | None
    decision: tuple[str, str, str] | None
    again_ms: int
    through_ms: int
    opened: list[int]
    arrived: list[DetectorState]


class Site:
    """A junction, one of the registry's controllers, and what is known. Times UTC ms.

    Raises PackError for a controller that the registry does not have.
    """

    def __init__(self, junction: Junction, controller: str) -> None:
        self.junction = junction
        self.shown: Shown | None = None
        """What the junction's controller said last."""
        if controller not in CONTROLLERS:
            raise PackError(f"controller: {controller!r} is not one of {sorted(CONTROLLERS)}")
        self.controller = CONTROLLERS[controller](junction)
        self._queues = Queues(junction)
        self._moves = [move.group for move in junction.movements]
        place = {group.id: i for i, group in enumerate(junction.table.groups)}
        self._lamp_of = np.array([place[group] for group in self._moves], dtype=int)
        self._groups = [group.id for group in junction.table.groups]
        walks = {g.id for g in junction.table.groups if g.kind == "pedestrian"}
        self._walking = [i for i, group in enumerate(self._moves) if group in walks]
        self._stages = {stage.name: i for i, stage in enumerate(junction.stages)}
        count = len(self._moves)
        self._red_since = np.full(count, -1, dtype=np.int64)
        self._waiting_since = np.full(count, -1, dtype=np.int64)
        self._arrived: dict[str, DetectorState] = {}
        self.decision: Decision | None = None
        """The last one."""
        self._again_ms = self._through_ms = 0

    def see(self, shown: Shown) -> bool:
        """The junction's controller has reported; False if this is no news."""
        if self.shown is not None and shown.at_ms <= self.shown.at_ms:
            return False
        self._check(shown)
        self.shown = shown
        lamps = np.frombuffer(shown.lamps.encode(), dtype=np.uint8)[self._lamp_of]
        red = lamps != ord("g")
        since = np.full(len(self._moves), shown.at_ms, dtype=np.int64)
        if len(shown.lamp_ms) == len(self._groups):
            since -= np.array(shown.lamp_ms, dtype=np.int64)[self._lamp_of]
        # Yellow counts as red, and what was red before we heard of it was red all the same.
        since = np.where(self._red_since < 0, since, np.minimum(since, self._red_since))
        self._red_since = np.where(red, since, -1)
        return True

    def learn(self, states: Mapping[str, DetectorState]) -> None:
        """Detector states have arrived; they count from the next decision on."""
        for name, state in states.items():
            before = self._arrived.get(name)
            if before is None or before.at_ms < state.at_ms:
                self._arrived[name] = state

    def decide(
        self,
        now_ms: int,
        weight: Mapping[str, float] | None = None,
        blocked: frozenset[str] = frozenset(),
    ) -> Decision | None:
        """The stage wanted now; None leaves the junction to its local plan.

        weight, blocked: as in `View`, because of alerts.
        """
        view = self.look(now_ms, weight or {}, blocked)
        if view is not None:
            self.decision = self.controller.decide(view)
        return self.decision

    def look(
        self, now_ms: int, weight: Mapping[str, float], blocked: frozenset[str]
    ) -> View | None:
        """What is to be decided on now; None if `decision` stands as it is."""
        shown = self.shown
        if shown is None or now_ms - shown.at_ms > UNHEARD_MS:
            self.decision = None
            return None
        self._pass(now_ms, shown)
        if self._arrived:
            self._queues.learn(now_ms, self._arrived)
            self._arrived = {}
        before = self.decision
        settled = shown.stage_ms >= SETTLED_MS
        if settled and before and now_ms < self._again_ms and before.stage == shown.stage:
            return None
        if settled:
            self._again_ms = now_ms + EVERY_MS
        return self._view(now_ms, shown, weight, blocked)

    def before(self, groups: Collection[str], within_s: float) -> float:
        """Vehicles on the fullest lane of these groups: those that stand, and those that come
        up within so many seconds."""
        queues, soon = self._queues, max(0, min(int(within_s), self._queues.coming.shape[1]))
        lanes: dict[str, float] = {}
        for i, move in enumerate(self.junction.movements):
            if move.group in groups:
                count = float(queues.queue[i] + queues.coming[i, :soon].sum())
                lanes[move.lanes_in[0]] = lanes.get(move.lanes_in[0], 0.0) + count
        return max(lanes.values(), default=0.0)

    def ready_s(self, stage: str) -> float:
        """Until a stage could be shown in full; 0 if nothing is known of the lamps."""
        return self.shown.ready_ms[self._stages[stage]] / 1000 if self.shown else 0.0

    def green(self) -> frozenset[str]:
        """Groups that are green by the controller's last word."""
        lamps = self.shown.lamps if self.shown else ""
        return frozenset(g for g, lamp in zip(self._groups, lamps, strict=False) if lamp == "g")

    @property
    def standing(self) -> float:
        """Vehicles that wait at the stop lines, as far as is known."""
        queue = self._queues.queue
        return float(queue.sum() - queue[self._walking].sum())

    def pack(self) -> bytes:
        """The whole state, for `take_up`."""
        arrays, opened = self._arrays()
        last = self.decision
        kept = _Kept(
            shown=self.shown,
            decision=(last.stage, last.why, last.why_zh) if last else None,
            again_ms=self._again_ms,
            through_ms=self._through_ms,
            opened=opened,
            arrived=list(self._arrived.values()),
        )
        return block.pack(kept, arrays)

    def take_up(self, state: bytes) -> None:
        """Go on from `pack`. Raises InvalidInput if it is of another junction or form."""
        kept, arrays = block.unpack(state, _Kept)
        for name, array in self._arrays()[0].items():
            found = arrays.get(name)
            tall = name != "open"  # lamps are remembered for some seconds, more or less
            if found is None or found.shape[not tall :] != array.shape[not tall :]:
                shape = "missing" if found is None else found.shape
                raise InvalidInput(
                    "snapshot",
                    f"junction {self.junction.id}: {name}: {shape}, expected {array.shape}",
                )
        if kept.shown is not None:
            self._check(kept.shown)
        if kept.decision is not None and kept.decision[0] not in self._stages:
            raise InvalidInput(
                "snapshot",
                f"junction {self.junction.id}: stage {kept.decision[0]!r}, expected one of"
                f" {sorted(self._stages)}",
            )
        self._red_since, self._waiting_since = arrays["red_since"], arrays["waiting_since"]
        self._queues.take_up(arrays, kept.opened)
        self._arrived = {state.detector: state for state in kept.arrived}
        self.shown = kept.shown
        self.decision = Decision(*kept.decision) if kept.decision else None
        self._again_ms, self._through_ms = kept.again_ms, kept.through_ms

    def _arrays(self) -> tuple[dict[str, block.Array], list[int]]:
        arrays, opened = self._queues.arrays()
        arrays |= {"red_since": self._red_since, "waiting_since": self._waiting_since}
        return arrays, opened

    def _check(self, shown: Shown) -> None:
        """Raises InvalidInput `shown` if it is of another table."""
        if len(shown.lamps) != len(self._groups) or len(shown.ready_ms) != len(self._stages):
            raise InvalidInput(
                "shown",
                f"junction {shown.junction}: {len(shown.lamps)} lamps and {len(shown.ready_ms)}"
                f" stages, its table has {len(self._groups)} and {len(self._stages)}",
            )
        if shown.stage not in self._stages:
            raise InvalidInput("shown", f"junction {shown.junction}: stage {shown.stage!r}")

    def _pass(self, now_ms: int, shown: Shown) -> None:
        """Let the queue model live through the seconds up to now under the lamps shown."""
        if now_ms - self._through_ms > _CATCH_UP_S * _SECOND_MS:
            self._through_ms = now_ms - _SECOND_MS
        green = frozenset(
            name for name, lamp in zip(self._groups, shown.lamps, strict=True) if lamp == "g"
        )
        while self._through_ms + _SECOND_MS <= now_ms:
            self._through_ms += _SECOND_MS
            self._queues.tick(self._through_ms, green)

    def _view(
        self, now_ms: int, shown: Shown, weight: Mapping[str, float], blocked: frozenset[str]
    ) -> View:
        queues = self._queues
        queue = queues.queue.copy()
        for i in self._walking:
            queue[i] = float(self._moves[i] in shown.calls)
        waiting = (self._red_since >= 0) & (queue > 0.5)
        since = np.where(self._waiting_since < 0, now_ms, self._waiting_since)
        self._waiting_since = np.where(waiting, since, -1)
        red_s = np.where(self._red_since >= 0, (now_ms - self._red_since) / 1000, 0.0)
        ready = shown.ready_ms
        return View(
            now_ms=now_ms,
            stage=shown.stage,
            stage_s=max(0, shown.stage_ms) / 1000,
            changing=shown.stage_ms < 0,
            ready_s=lambda stage: ready[self._stages[stage]] / 1000,
            queue=queue,
            coming=queues.coming,
            room=queues.room,
            waited_s=np.where(waiting, (now_ms - self._waiting_since) / 1000, 0.0),
            red_s=red_s,
            age_s=queues.age_s,
            served=queues.served,
            blocked=blocked,
            weight=weight,
        )
