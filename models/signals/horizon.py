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

import numpy as np

from citybrain.models.signals.base import Decision, Row, View
from citybrain.models.signals.timing import changeover_ms, useful_stages
from citybrain.signals import Junction

_BIN_S, _BINS = 3, 20  # the model's step and how many of them
_HOLDS_S = (0, 3, 6, 9, 12, 15, 21, 27)  # "stay for so long" that are tried
_MIN_GREEN_S, _MAX_GREEN_S = 5.0, 20  # of a stage in the model's plain rule
_WORTH_S, _BUSY = 20.0, 4.0  # a stage is kept so long while a lane has so many to discharge
_GONE = 1.0  # fewer vehicles than this are no queue
_MAX_RED_S = 100.0  # recall: no vehicle group is red for longer,
_BEFORE_S = 20.0  # and none comes so near to what its table allows
_PATIENCE_S = 60.0  # who has waited so long counts twice
_FULL = 0.4  # less room than this beyond the junction: next to nothing leaves
_HELD = 0.8  # share of its flow that a permitted turn loses while opponents flow
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
        self._change = np.array(
            [
                [changeover_ms(junction.table, green[a], green[b]) / 1000 for b in self._names]
                for a in self._names
            ]
        )

    def decide(self, view: View) -> Decision | None:
        """Stay for the minimum; then the first step of what waits least. None (the local plan)
        while most movements' detectors say nothing."""
        blind = ~(view.age_s <= _BLIND_S)
        if blind.sum() > len(blind) / 2:
            return None
        if view.changing or view.stage_s < _MIN_GREEN_S:
            return Decision(view.stage, "minimum green", "最短绿灯")
        return self._decide(view)

    def _decide(self, view: View) -> Decision:
        forced = self._overdue(view)
        if forced is not None:
            return forced
        ready = np.array([view.ready_s(name) for name in self._names])
        if view.stage not in self._names:
            return Decision(
                self._names[int(np.argmin(ready))],
                "a stage that opens more",
                "切换到放行更多的相位",
            )
        now = self._names.index(view.stage)
        if view.stage_s < _WORTH_S and self._flowing(view, now) >= _BUSY:
            return Decision(view.stage, "a queue still leaves", "排队仍在驶离")
        allowed = [
            k for k, opens in enumerate(self._opens)
            if k != now and not any(self._moves[m] in view.blocked for m in np.flatnonzero(opens))
        ]  # fmt: skip
        if not allowed:
            return Decision(view.stage, "nothing else may open", "其他相位不可放行")
        holds = np.repeat(_HOLDS_S, len(allowed))
        nexts = np.tile(allowed, len(_HOLDS_S))
        cost = self._rollout(view, now, holds, nexts, ready)
        best = int(np.argmin(cost))
        stay = cost[holds > 0].min()
        if holds[best] == 0 and cost[best] >= stay:
            best = int(np.argmin(np.where(holds > 0, cost, np.inf)))  # nothing to gain: no change
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

    def _rollout(self, view: View, now: int, holds: Row, nexts: Row, ready: Row) -> Row:
        """Vehicle seconds of waiting by candidate, over the horizon."""
        count, lines = len(holds), np.arange(len(holds))
        arrivals = view.coming[:, : _BINS * _BIN_S].reshape(len(self._moves), _BINS, _BIN_S)
        arrivals = arrivals.sum(axis=2)
        weight = 1.0 + (view.waited_s / _PATIENCE_S) ** 2
        weight *= np.array([view.weight.get(group, 1.0) for group in self._moves])
        rates = self._rates * np.where(view.room > _FULL, view.served, 0.1) * _BIN_S
        queue = np.repeat(view.queue[None, :], count, axis=0)
        stage = np.full(count, now)
        source = stage
        hold = np.ceil(holds / _BIN_S).astype(int)
        change = np.zeros(count)  # bins of change that are left
        shown = np.full(count, view.stage_s / _BIN_S)
        total = np.zeros(count)
        useful = np.where(self._opens & (self._rates[:-1] > 0), weight, 0.0).T
        for t in range(_BINS):
            queue += arrivals[:, t]
            pressure = queue @ useful
            own = pressure[lines, stage]
            spent = (own < _GONE) | (shown * _BIN_S >= _MAX_GREEN_S)
            spent &= (shown * _BIN_S >= _MIN_GREEN_S) & (change <= 0)
            pressure[lines, stage] = 0.0
            rival = pressure.argmax(axis=1)
            leave = np.where(hold > t, False, spent & (pressure[lines, rival] > own))
            target = np.where(hold == t, nexts, rival)
            leave |= hold == t
            took = np.where(t == 0, ready[target], self._change[stage, target]) / _BIN_S
            source = np.where(leave, stage, source)
            stage = np.where(leave, target, stage)
            change = np.where(leave, took, change)
            part = np.clip(1.0 - change, 0.0, 1.0)[:, None]
            both = np.minimum(rates[source], rates[stage])
            capacity = part * rates[stage] + (1.0 - part) * both
            pressed = np.minimum(1.0, (queue + arrivals[:, t]) @ self._foes)
            capacity *= 1.0 - _HELD * pressed * self._yields[stage]
            queue -= np.minimum(queue, capacity)
            total += queue @ weight
            shown = np.where(leave, 0.0, shown + part[:, 0])
            change = np.maximum(change - 1.0, 0.0)
        return total * _BIN_S


def _service(junction: Junction, stages: list[frozenset[str]]) -> tuple[Row, Row, Row]:
    """Vehicles a second by stage and movement (a last row of zeros: changing); how much of
    each movement gives way in each stage; who it gives way to, (opponents, movements)."""
    moves = junction.movements
    count = len(moves)
    rates = np.zeros((len(stages) + 1, count))
    yields = np.zeros((len(stages) + 1, count))
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
