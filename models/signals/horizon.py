"""Rolling-horizon control: the stage that makes the next minute wait least.

At every decision each "stay for h more seconds, then go to stage k" is played through on the
junction's own queue model (what stands, what is seen to come, what comes on average), with the
time that each change takes; afterwards a plain rule goes on (serve a stage until its queue is
gone, then the largest one). The first step of the best is carried out and all is decided anew:
a rollout (Bertsekas, Rollout, Policy Iteration, and Distributed Reinforcement Learning, 2020)
of the exhaustive rule of Laemmer and Helbing (JSTAT 2008 P04019) on the arrivals that detectors
see coming, as in Surtrac (Smith and others, ICAPS 2013). A change costs what it costs, so
nothing switches for one car.

What the model knows beside queues: a lane that serves several groups is held up by those that
stay red; a permitted turn gets little while its opponents flow; nothing leaves into a full
exit; who has waited long weighs more, and no vehicle group is red for longer than a limit,
calls or no calls, since detectors fail (recall).
"""

from collections.abc import Sequence

import numpy as np

from citybrain.models.signals.base import Decision, Row, View
from citybrain.models.signals.rollout import BIN_S, BINS, MIN_GREEN_S, Task, costs
from citybrain.models.signals.timing import changeover_ms, useful_stages
from citybrain.signals import Junction

_HOLDS_S = (0, 3, 6, 9, 12, 15, 21, 27)  # "stay for so long" that are tried
_WORTH_S, _BUSY = 20.0, 4.0  # a stage is kept so long while a lane has so many to discharge
_MAX_RED_S = 100.0  # recall: no vehicle group is red for longer,
_BEFORE_S = 20.0  # and none comes so near to what its table allows
_PATIENCE_S = 60.0  # who has waited so long counts twice
_FULL = 0.4  # less room than this beyond the junction: next to nothing leaves
_BLIND_S = 60.0  # states older than this are none


class Horizon:
    """One junction's planner. See the module for the method."""

    def __init__(self, junction: Junction) -> None:
        groups = {group.id: group for group in junction.table.groups}
        green = {stage.name: frozenset(stage.green) for stage in junction.stages}
        self._names = useful_stages(junction)
        self._moves = [move.group for move in junction.movements]
        self._walks = np.array([groups[g].kind == "pedestrian" for g in self._moves])
        self._longest_s = np.array(
            [min(_MAX_RED_S, (groups[g].max_red_ms or 1e9) / 1000 - _BEFORE_S) for g in self._moves]
        )
        self._rates, self._yields, self._foes = _service(
            junction, [green[name] for name in self._names]
        )
        self._opens = np.array(
            [[group in green[name] for group in self._moves] for name in self._names]
        )
        self._serves = self._opens & (self._rates > 0)
        self._change = np.array(
            [
                [changeover_ms(junction.table, green[a], green[b]) / 1000 for b in self._names]
                for a in self._names
            ]
        )

    def decide(self, view: View) -> Decision | None:
        """Stay for the minimum; then the first step of what waits least. None (the local plan)
        while most movements' detectors say nothing."""
        return decide_all([(self, view)])[0]

    def consider(self, view: View) -> Decision | Task | None:
        """A decision that needs no looking ahead, or what has to be played through."""
        blind = ~(view.age_s <= _BLIND_S)
        if blind.sum() > len(blind) / 2:
            return None
        if view.changing or view.stage_s < MIN_GREEN_S:
            return Decision(view.stage, "minimum green", "最短绿灯")
        forced = self._overdue(view)
        if forced is not None:
            return forced
        ready = np.array([view.ready_s(name) for name in self._names])
        shut = self._shut(view)
        fewest = int(np.lexsort((ready, shut))[0])
        if view.stage not in self._names:
            return Decision(
                self._names[fewest],
                "a stage that opens more",
                "切换到放行更多的相位",
            )
        now = self._names.index(view.stage)
        if not shut[now] and view.stage_s < _WORTH_S and self._flowing(view, now) >= _BUSY:
            return Decision(view.stage, "a queue still leaves", "排队仍在驶离")
        allowed = [k for k in range(len(self._names)) if k != now and not shut[k]]
        if not allowed and shut[fewest] < shut[now]:
            return Decision(
                self._names[fewest], "the fewest roads that are shut", "封闭方向最少的相位"
            )
        if not allowed:
            return Decision(view.stage, "nothing else may open", "其他相位不可放行")
        return self._task(view, now, allowed, ready, (0,) if shut[now] else _HOLDS_S)

    def choose(self, view: View, task: Task, cost: Row) -> Decision:
        """The first step of what costs least; no change that gains nothing."""
        holds, nexts = task.holds, task.nexts
        best = int(np.argmin(cost))
        if not holds.any():
            why = f"a road that it opens is shut: {cost[best]:.0f} vehicle seconds"
            why_zh = f"所放行道路封闭,切换:预计 {cost[best]:.0f} 车·秒"
            return Decision(self._names[int(nexts[best])], why, why_zh)
        stay = cost[holds > 0].min()
        if holds[best] == 0 and cost[best] >= stay:
            best = int(np.argmin(np.where(holds > 0, cost, np.inf)))
        if holds[best] > 0:
            return Decision(
                view.stage,
                f"{holds[best]} s more: {cost[best]:.0f} vehicle seconds",
                f"延长 {holds[best]} 秒:预计 {cost[best]:.0f} 车·秒",
            )
        why = f"{cost[best]:.0f} vehicle seconds, staying {stay:.0f}"
        why_zh = f"切换:预计 {cost[best]:.0f} 车·秒,保持 {stay:.0f}"
        return Decision(self._names[int(nexts[best])], why, why_zh)

    def _flowing(self, view: View, now: int) -> float:
        """Vehicles that stand before open lamps of the stage and can leave, a lane's worth."""
        going = self._opens[now] & ~self._walks & (view.room > _FULL)
        return float(view.queue[going].max(initial=0.0))

    def _overdue(self, view: View) -> Decision | None:
        """The stage that ends the longest red, if that red has come to its limit."""
        red = np.where(self._walks, view.waited_s, view.red_s)
        red = np.where(self._opens.any(axis=0), red - self._longest_s, -1.0)
        worst = int(np.argmax(red))
        if red[worst] < 0:
            return None
        fit = [k for k in range(len(self._names)) if self._opens[k, worst]]
        k = max(fit, key=lambda k: (float((view.queue * self._opens[k]).sum()), -k))
        group, lasted = self._moves[worst], f"{red[worst] + self._longest_s[worst]:.0f}"
        return Decision(
            self._names[k], f"{group} red for {lasted} s", f"{group} 红灯已 {lasted} 秒"
        )

    def _shut(self, view: View) -> Row:
        """How many groups that must not open each stage opens."""
        groups = [
            {self._moves[m] for m in np.flatnonzero(opens)} & view.blocked for opens in self._opens
        ]
        return np.array([len(found) for found in groups], dtype=float)

    def _task(
        self, view: View, now: int, allowed: list[int], ready: Row, holds: tuple[int, ...]
    ) -> Task:
        """What has to be played through to decide."""
        arrivals = view.coming[:, : BINS * BIN_S].reshape(len(self._moves), BINS, BIN_S)
        weight = 1.0 + (view.waited_s / _PATIENCE_S) ** 2
        if view.weight:
            weight *= np.array([view.weight.get(group, 1.0) for group in self._moves])
        return Task(
            queue=view.queue,
            weight=weight,
            arrivals=arrivals.sum(axis=2),
            rates=self._rates * np.where(view.room > _FULL, view.served, 0.1) * BIN_S,
            yields=self._yields,
            foes=self._foes,
            change=self._change,
            ready=ready,
            useful=np.where(self._serves, weight, 0.0),
            now=now,
            stage_s=view.stage_s,
            holds=np.repeat(holds, len(allowed)),
            nexts=np.tile(allowed, len(holds)),
        )


def decide_all(asked: Sequence[tuple[Horizon, View]]) -> list[Decision | None]:
    """The decisions of many junctions; each is what `decide` would say of it alone."""
    found: list[Decision | Task | None] = [one.consider(view) for one, view in asked]
    tasks = [task for task in found if isinstance(task, Task)]
    cost = iter(costs(tasks))
    return [
        one.choose(view, entry, next(cost)) if isinstance(entry, Task) else entry
        for (one, view), entry in zip(asked, found, strict=True)
    ]


def _service(junction: Junction, stages: list[frozenset[str]]) -> tuple[Row, Row, Row]:
    """Vehicles a second by stage and movement; how much of each movement gives way in each
    stage; who it gives way to, (opponents, movements)."""
    moves = junction.movements
    count = len(moves)
    rates = np.zeros((len(stages), count))
    yields = np.zeros((len(stages), count))
    foes = np.zeros((count, count))
    links = {group.id: set(group.links) for group in junction.table.groups}
    walks = {group.id for group in junction.table.groups if group.kind == "pedestrian"}
    lanes: dict[str, list[int]] = {}
    for m, move in enumerate(moves):
        lanes.setdefault(move.lanes_in[0], []).append(m)
        for link in move.links:
            before = set(junction.yields.get(str(link), ()))
            for o, other in enumerate(moves):
                if before & set(other.links) and other.group not in walks:
                    foes[o, m] = 1.0
    for k, open_ in enumerate(stages):
        shown = {link for group in open_ for link in links[group]}
        for m, move in enumerate(moves):
            if move.group not in open_:
                continue
            if move.group in walks:
                rates[k, m] = 10.0
                continue
            lane = lanes[move.lanes_in[0]]
            flowing = sum(len(moves[o].links) for o in lane if moves[o].group in open_)
            held = flowing / max(1, sum(len(moves[o].links) for o in lane))
            rates[k, m] = move.saturation_veh_h / 3600 * held
            giving = [x for x in move.links if shown & set(junction.yields.get(str(x), ()))]
            yields[k, m] = len(giving) / max(1, len(move.links))
    return rates, yields, foes
