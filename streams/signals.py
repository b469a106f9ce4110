"""The signals stage: one log of reports and ticks in, plans for every junction out.

At each tick every junction is decided for by the controller that the pack names. A plan is
told when it is another one than before, and again before it runs out: if no more come, for
whatever reason, the junction's arbiter goes back to its local plan by itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from citybrain import findings, signal_log
from citybrain.alerts import Alert
from citybrain.city import City
from citybrain.errors import InvalidInput
from citybrain.findings import DeadLetter
from citybrain.models.signals import TOGETHER
from citybrain.models.signals.base import Decision
from citybrain.models.signals.preempt import Asked, Preempt, kept
from citybrain.models.signals.responses import Effects, Responder
from citybrain.models.signals.site import Site
from citybrain.priority import PriorityStatus
from citybrain.signal_log import Detections, Notice, PriorityRequest, Report, Tick
from citybrain.signals import Because, DetectorState, Plan
from citybrain.stage import Out, Record

VERSION = 1
PLAN_MS = 10_000
"""How long a plan is valid: with the arbiter's patience, this is how late the local plan takes
over when nobody decides any more."""
PRIORITY_MS, RELEASE_MS = 8_000, 3_000
"""How long a plan for a vehicle with priority is valid (it is told anew with each tick), and the
last one, which wants what the controller wants: so nobody waits for the others to run out. It
has to outlast the second in which a controller asks, and the way."""
AGAIN_MS = 4_000
"""A plan that stays the same is told again after so long."""
TICK_MS = 1_000
AHEAD_MS = 2_000
"""A time that lies further ahead of the broker's receipt comes from a clock that is wrong."""
OVER_KEPT = 500
_Level = Literal["emergency", "priority"]


class Head(msgspec.Struct, kw_only=True):
    """The small part of the state. told: junction -> when its last plan was told, its stage,
    and its reasons. alerts: by id. held, held_priority: junctions that somebody holds
    whose level is emergency, or priority."""

    version: int = VERSION
    at_ms: int
    told: dict[str, tuple[int, str, list[Because]]]
    alerts: dict[str, Alert]
    counts: dict[str, int]
    asked: list[Asked] = []
    held: list[str] = []
    held_priority: list[str] = []


class Signals:
    """Deterministic: see `citybrain/stage.py`."""

    def __init__(self, city: City) -> None:
        self._controller = city.signal_control.controller
        self._junctions = {junction.id: junction for junction in city.signals.values()}
        self._sites = {name: Site(one, self._controller) for name, one in self._junctions.items()}
        zones = {link.id: link.zone for link in city.links.values()}
        self._responders = {
            junction.id: Responder(junction, city.signal_control, zones)
            for junction in city.signals.values()
        }
        self._held: dict[_Level, set[str]] = {"emergency": set(), "priority": set()}
        self._preempts = {name: Preempt(site.junction) for name, site in self._sites.items()}
        self._alerts: dict[str, Alert] = {}
        self._effects: dict[str, Effects] = dict.fromkeys(self._sites, Effects())
        self._owner = {area.id: j.id for j in city.signals.values() for area in j.areas}
        self._at_ms = 0
        self._told: dict[str, tuple[int, str, list[Because]]] = {}
        self._counts: Counter[str] = Counter()
        self._dirty: set[str] = set()

    def apply(self, record: Record) -> Sequence[Out]:
        """Take one record of the signals log."""
        try:
            entry = signal_log.decode(record.value)
            match entry:
                case Tick(at_ms=at_ms):
                    return self._decide(at_ms, record.timestamp_ms)
                case Report():
                    self._report(entry, record.timestamp_ms)
                case Notice(alert=alert):
                    self._notice(alert)
                case PriorityRequest():
                    return self._request(entry, record.timestamp_ms)
        except InvalidInput as error:
            return [self._dead_letter(record, error)]
        return []

    def tick(self, now_ms: int) -> Sequence[Out]:
        """Ask for a decision, once a second, where somebody waits for one."""
        if not self._sites or -AHEAD_MS <= now_ms - self._at_ms < TICK_MS // 2:
            return []
        heard = max((s.shown.at_ms for s in self._sites.values() if s.shown), default=0)
        if now_ms - heard > PLAN_MS:
            return []  # no controller says anything: there is nobody to decide for
        return [Out("detector-states", signal_log.encode(Tick(at_ms=now_ms)), partition=0)]

    def changed(self) -> Mapping[str, bytes]:
        """The head, and every junction that a record has changed."""
        head = Head(
            at_ms=self._at_ms, told=self._told, alerts=self._alerts, counts=dict(self._counts),
            asked=kept(self._preempts.values()), held=sorted(self._held["emergency"]),
            held_priority=sorted(self._held["priority"]),
        )  # fmt: skip
        blocks = {f"site/{name}": self._sites[name].pack() for name in sorted(self._dirty)}
        self._dirty.clear()
        return blocks | {"head": msgspec.json.encode(head)}

    def restore(self, blocks: Mapping[str, bytes]) -> None:
        """Go on from saved blocks; junctions that the pack no longer has are passed over.

        Raises InvalidInput for a version that is not known.
        """
        try:
            head = msgspec.json.decode(blocks["head"], type=Head)
        except (msgspec.MsgspecError, KeyError) as error:
            raise InvalidInput("snapshot", f"signals: {error!r}") from error
        if head.version != VERSION:
            raise InvalidInput("version", f"signals snapshot: {head.version}, not {VERSION}")
        self._at_ms, self._told = head.at_ms, head.told
        self._counts = Counter(head.counts)
        self._alerts = head.alerts
        self._held = {"emergency": set(head.held), "priority": set(head.held_priority)}
        for asked in head.asked:
            preempt = self._preempts.get(asked.request.junction)
            if preempt is not None and not preempt.unfit(asked.request):
                preempt.asked[asked.request.id] = asked
        self._weigh()
        for name, site in self._sites.items():
            if f"site/{name}" not in blocks:
                continue
            try:
                site.take_up(blocks[f"site/{name}"])
            except InvalidInput:  # the pack has another junction of this name now
                self._counts["sites begun anew"] += 1

    def counts(self) -> Mapping[str, int]:
        """No readings come here."""
        return {}

    def facts(self) -> dict[str, int | None]:
        """What was taken and told since the beginning; the watermark is the last tick."""
        return {"watermark_ms": self._at_ms or None, **self._counts}

    def _report(self, report: Report, received_ms: int) -> None:
        """Take what is told by clocks that are right, then refuse what is not."""
        self._counts["reports"] += 1
        wrong: list[InvalidInput] = []
        for refusal in report.refusals:
            self._counts[f"refused {refusal.rule}"] += 1
        for shown in report.shown:
            site = self._sites.get(shown.junction)
            if site is None:
                raise InvalidInput("junction", f"junction: {shown.junction!r} is not in the pack")
            if shown.at_ms - received_ms > AHEAD_MS:
                wrong.append(_ahead(f"junction {shown.junction}", shown.at_ms, received_ms))
                continue
            site.see(shown)
            self._dirty.add(shown.junction)
        for detections in report.detections:
            if detections.at_ms - received_ms > AHEAD_MS:
                wrong.append(_ahead("detections", detections.at_ms, received_ms))
            elif detections.expires_ms < received_ms:
                self._counts["detections expired"] += 1
            else:
                self._learn(detections)
        if wrong:
            raise wrong[0]

    def _learn(self, told: Detections) -> None:
        columns = (told.detectors, told.passed, told.present, told.waiting)
        if len({len(column) for column in columns}) != 1:
            raise InvalidInput("columns", "detections: columns are of different lengths")
        by_site: dict[str, dict[str, DetectorState]] = {}
        for name, passed, present, waiting in zip(*columns, strict=True):
            owner = self._owner.get(name)
            if owner is None:
                raise InvalidInput("detector", f"detector: {name!r} is not in the pack")
            by_site.setdefault(owner, {})[name] = DetectorState(
                detector=name, at_ms=told.at_ms, expires_ms=told.expires_ms, passed=passed,
                occupancy=0.0, present=present, waiting=waiting,
            )  # fmt: skip
        for owner, states in by_site.items():
            self._sites[owner].learn(states)
            self._dirty.add(owner)

    def _request(self, request: PriorityRequest, received_ms: int) -> list[Out]:
        preempt = self._preempts.get(request.junction)
        if preempt is None:
            raise InvalidInput("junction", f"junction: {request.junction!r} is not in the pack")
        return self._statuses(preempt.take(self._at_ms or received_ms, request))

    def _statuses(self, told: Sequence[PriorityStatus]) -> list[Out]:
        """What became of requests, for who watches."""
        for status in told:
            self._counts[f"priority {status.state}"] += 1
        return [
            Out("priority-requests", msgspec.json.encode(status), status.vehicle.encode())
            for status in told
        ]

    def _notice(self, alert: Alert) -> None:
        """The latest revision of an alert counts, as long as it is active."""
        self._counts["notices"] += 1
        before = self._alerts.get(alert.id)
        if before is not None and before.revision >= alert.revision:
            return
        self._alerts.pop(alert.id, None)
        self._alerts[alert.id] = alert
        # Those that are over are remembered for a while: an old revision may be told again.
        over = [name for name, one in self._alerts.items() if not _counts(one)]
        for name in over[:-OVER_KEPT]:
            del self._alerts[name]
        self._weigh()

    def _weigh(self) -> None:
        """What all active alerts together change, at each junction."""
        alerts = [one for _, one in sorted(self._alerts.items()) if _counts(one)]
        self._effects = {name: one.effects(alerts) for name, one in self._responders.items()}

    def _decide(self, at_ms: int, received_ms: int) -> list[Out]:
        if at_ms <= self._at_ms:
            if self._at_ms - max(at_ms, received_ms) <= AHEAD_MS:
                return []  # somebody's who was still ticking when we took over
            self._begin_anew()
        self._at_ms = at_ms
        self._counts["ticks"] += 1
        outs: list[Out] = []
        for name, decision in self._decisions(at_ms).items():
            site = self._sites[name]
            effects = self._effects[name]
            self._dirty.add(name)
            first, told = self._preempts[name].decide(at_ms, site)
            outs += self._statuses(told)
            for source, held in self._held.items():
                wanted = first or decision
                if first is not None and first.source == source:
                    held.add(name)
                    outs.append(self._plan(name, at_ms, first, [], source, PRIORITY_MS))
                elif name in held:
                    held.remove(name)
                    if wanted is not None:
                        outs.append(self._plan(name, at_ms, wanted, [], source, RELEASE_MS))
            if decision is None:
                self._counts["left to the local plan"] += 1
                continue
            since, stage, because = self._told.get(name, (0, "", []))
            same = stage == decision.stage and because == effects.because
            if same and at_ms - since < AGAIN_MS:
                continue
            self._told[name] = (at_ms, decision.stage, effects.because)
            outs.append(self._plan(name, at_ms, decision, effects.because))
        self._counts["plans"] += sum(out.topic == "signal-plans" for out in outs)
        return outs

    def _begin_anew(self) -> None:
        """The last ticks were by a clock that was ahead: what was reckoned by them is dropped."""
        self._counts["clock set back"] += 1
        self._sites = {name: Site(one, self._controller) for name, one in self._junctions.items()}
        self._preempts = {name: Preempt(one) for name, one in self._junctions.items()}
        self._told, self._held = {}, {"emergency": set(), "priority": set()}
        self._dirty.update(self._sites)

    def _decisions(self, at_ms: int) -> dict[str, Decision | None]:
        """Of every junction, those that need thought all together."""
        asked = []
        for name, site in self._sites.items():
            effects = self._effects[name]
            view = site.look(at_ms, effects.weight, frozenset(effects.blocked))
            if view is not None:
                asked.append((site, view))
        together = TOGETHER.get(self._controller)
        pairs = [(site.controller, view) for site, view in asked]
        found = together(pairs) if together else [one.decide(view) for one, view in pairs]
        for (site, _), decision in zip(asked, found, strict=True):
            site.decision = decision
        return {name: site.decision for name, site in self._sites.items()}

    def _plan(
        self,
        junction: str,
        at_ms: int,
        decision: Decision,
        because: list[Because],
        source: Literal["adaptive", "emergency", "priority"] = "adaptive",
        valid_ms: int = PLAN_MS,
    ) -> Out:
        """A plan. Its number is its time: it grows, and is known again in a replay."""
        plan = Plan(
            junction=junction, sequence=at_ms, issued_ms=at_ms, expires_ms=at_ms + valid_ms,
            source=source, stage=decision.stage, why=decision.why, why_zh=decision.why_zh,
            because=because,
        )  # fmt: skip
        return Out("signal-plans", msgspec.json.encode(plan), junction.encode())

    def _dead_letter(self, record: Record, error: InvalidInput) -> Out:
        self._counts["dead_lettered"] += 1
        letter = DeadLetter(
            id=f"{record.topic}/{record.partition}/{record.offset}",
            step="signals",
            reason=error.reason,
            message=str(error),
            at_ms=record.timestamp_ms,
            original=record.value,
        )
        return Out("dead-letter", findings.encode(letter), letter.id.encode())


def _ahead(what: str, at_ms: int, received_ms: int) -> InvalidInput:
    return InvalidInput(
        "clock",
        f"{what}: at_ms: {at_ms} is {at_ms - received_ms} ms ahead of the broker's clock,"
        f" expected at most {AHEAD_MS}",
    )


def _counts(alert: Alert) -> bool:
    """Whether somebody should still react to it."""
    return alert.active and not alert.shelved_until_ms
