"""Priority at one junction: which of those who ask gets a green, which stage, and from when.

Rules, all of them:

* The stage that is shown opens the vehicle's whole approach, not its own lane alone: it stands
  behind others who go elsewhere. Of those stages the one in which it gives way to the fewest,
  then the one that is ready soonest.
* It is prepared from `arrival - (change + queue ahead + margin)` on: as early as the queue that
  stands, and comes meanwhile, needs to be gone. Once begun it stays until the vehicle has
  passed, falls silent, or has held it for `LONGEST_MS`.
* Of several that are due, level (emergency before public transport), importance, arrival and id
  decide, in this order; whoever needs the same stage goes with the first.
* Afterwards nothing is held: the controller, or the local plan at its place in the cycle, goes
  on, and what it does about long reds is its own matter.

States as in NTCIP 1211 (`citybrain.priority`).
"""

from collections.abc import Iterable

import msgspec

from citybrain.models.signals.base import Decision
from citybrain.models.signals.site import Site
from citybrain.priority import ENDS, PriorityStatus, RequestState
from citybrain.signal_log import PriorityRequest
from citybrain.signals import Junction

START_S = 2.0
"""Until the first of a queue moves."""
HEADWAY_S = 2.0
"""Between two that leave a lane."""
MARGIN_S = 6.0
"""The queue's end has to be on its way when the vehicle comes up to it at full speed."""
LASTS_MS = 60_000
"""A request means nothing longer than this after it came, unless it is renewed."""
LONGEST_MS = 180_000
"""So long a vehicle may hold a junction; then something is wrong with it, or with us."""
REST_MS = 60_000
"""And so long it gets nothing after that."""


class Asked(msgspec.Struct, kw_only=True):
    """A request and what became of it so far. begun_ms: when its green began to be prepared;
    stage: by which, since then."""

    request: PriorityRequest
    state: RequestState
    why: str
    begun_ms: int | None = None
    stage: str = ""
    early_ms: int | None = None
    rests_ms: int = 0


class Preempt:
    """The requests of one junction. `asked` is the whole state, by request id."""

    def __init__(self, junction: Junction) -> None:
        self._junction = junction
        self.asked: dict[str, Asked] = {}
        links = {group.id: set(group.links) for group in junction.table.groups}
        self._green = {stage.name: frozenset(stage.green) for stage in junction.stages}
        self._known = set(links)
        self._links = links
        self._yields = {int(a): set(b) for a, b in junction.yields.items()}

    def take(self, now_ms: int, request: PriorityRequest) -> list[PriorityStatus]:
        """A request has come, or has been renewed or taken back."""
        before = self.asked.get(request.id)
        if before is not None:
            if request.issued_ms <= before.request.issued_ms:
                return []
            renewed = _capped(now_ms, request)
            if request.cancelled:
                before.request = renewed
                if before.state == "active":
                    return self._end(now_ms, before, "completed", "it has passed")
                return self._end(now_ms, before, "cancelled", "it needs nothing any more")
            if why := self.unfit(renewed):
                return self._end(now_ms, before, "rejected", why)
            before.request = renewed
            return []
        if request.cancelled:
            return []
        request = _capped(now_ms, request)
        asked = self.asked[request.id] = Asked(request=request, state="queued", why="")
        if why := self.unfit(request):
            return self._end(now_ms, asked, "rejected", why)
        if request.expires_ms <= now_ms:
            return self._end(now_ms, asked, "expired", "it was too late when it came")
        return [self._status(now_ms, asked)]

    def unfit(self, request: PriorityRequest) -> str:
        """Why this junction cannot serve a request; "" if it can."""
        if not request.groups:
            return "groups: [] is empty, expected the groups of the vehicle's approach"
        for field, groups in (("groups", request.groups), ("own", request.own)):
            if odd := sorted(set(groups) - self._known):
                return f"{field}: {odd[0]!r} is not one of {sorted(self._known)}"
        if not self._stages(request):
            return f"no stage opens {sorted(request.own or request.groups)}"
        return ""

    def decide(self, now_ms: int, site: Site) -> tuple[Decision | None, list[PriorityStatus]]:
        """The stage that somebody needs from now on, None for nobody; and what has changed."""
        told: list[PriorityStatus] = []
        for asked in list(self.asked.values()):
            if asked.request.expires_ms <= now_ms:
                told += self._end(now_ms, asked, "expired", "it was not renewed")
            elif asked.begun_ms is not None and now_ms - asked.begun_ms > LONGEST_MS:
                asked.begun_ms, asked.rests_ms = None, now_ms + REST_MS
                why = f"it has not passed in {LONGEST_MS // 1000} s; others go for a minute"
                told += self._become(now_ms, asked, "queued", why)
        due: list[tuple[Asked, str]] = []
        for asked in sorted(self.asked.values(), key=_rank):
            stage, need_s = self._needs(asked, site)
            left_ms = asked.request.eta_ms - now_ms
            if asked.begun_ms is None and left_ms > need_s * 1000:
                told += self._become(now_ms, asked, "queued", f"due {need_s:.0f} s before arrival")
            elif now_ms >= asked.rests_ms:
                due.append((asked, stage))
        if not due:
            return None, told
        first, wanted = due[0]
        for asked, _ in due:
            own = set(asked.request.own or asked.request.groups)
            if not own <= self._green[wanted]:
                why = f"{first.request.vehicle} goes first"
                told += self._become(now_ms, asked, "overridden", why)
                continue
            if asked.begun_ms is None:
                asked.begun_ms, asked.stage = now_ms, wanted
                asked.early_ms = asked.request.eta_ms - now_ms
            shown = site.shown is not None and own <= site.green()
            state: RequestState = "active" if shown else "granted"
            told += self._become(now_ms, asked, state, f"stage {wanted}")
        why = f"green for {first.request.vehicle}"
        return Decision(wanted, why, source=first.request.level), told

    def _stages(self, request: PriorityRequest) -> list[str]:
        """Stages that open the whole approach, or at least the vehicle's own way."""
        own, whole = set(request.own or request.groups), set(request.groups)
        fit = [name for name, green in self._green.items() if own <= green]
        full = [name for name in fit if whole <= self._green[name]]
        return full or fit

    def _needs(self, asked: Asked, site: Site) -> tuple[str, float]:
        """The stage for a request, and how long before its arrival it has to be begun. What has
        been begun is kept: on the way to one stage another may seem nearer."""
        request = asked.request
        own = request.own or request.groups
        links = {link for group in own for link in self._links[group]}

        def cost(name: str) -> tuple[int, float, str]:
            shown = {link for group in self._green[name] for link in self._links[group]}
            gives_way = sum(len(self._yields.get(link, set()) & shown) > 0 for link in links)
            return gives_way, site.ready_s(name), name

        fit = self._stages(request)
        begun = asked.begun_ms is not None and asked.stage in fit
        stage = asked.stage if begun else min(fit, key=cost)
        ready_s = site.ready_s(stage)
        count = site.before(request.groups, ready_s + START_S)
        clear_s = START_S + HEADWAY_S * count if count >= 1.0 else 0.0
        count = site.before(request.groups, ready_s + clear_s)
        clear_s = START_S + HEADWAY_S * count if count >= 1.0 else 0.0
        return stage, ready_s + clear_s + MARGIN_S

    def _become(
        self, now_ms: int, asked: Asked, state: RequestState, why: str
    ) -> list[PriorityStatus]:
        if asked.state == state:
            return []
        asked.state, asked.why = state, why
        return [self._status(now_ms, asked)]

    def _end(
        self, now_ms: int, asked: Asked, state: RequestState, why: str
    ) -> list[PriorityStatus]:
        assert state in ENDS
        asked.state, asked.why = state, why
        del self.asked[asked.request.id]
        return [self._status(now_ms, asked)]

    def _status(self, now_ms: int, asked: Asked) -> PriorityStatus:
        request = asked.request
        return PriorityStatus(
            id=request.id, junction=self._junction.id, vehicle=request.vehicle,
            state=asked.state, at_ms=now_ms, eta_ms=request.eta_ms, why=asked.why,
            early_ms=asked.early_ms,
        )  # fmt: skip


def _capped(now_ms: int, request: PriorityRequest) -> PriorityRequest:
    """Whoever falls silent is forgotten in `LASTS_MS`, whatever it asked for."""
    expires_ms = min(request.expires_ms, now_ms + LASTS_MS)
    return msgspec.structs.replace(request, expires_ms=expires_ms)


def _rank(asked: Asked) -> tuple[bool, int, int, str]:
    request = asked.request
    return request.level != "emergency", request.importance, request.eta_ms, request.id


def kept(preempts: Iterable[Preempt]) -> list[Asked]:
    """The open requests of all junctions, for a snapshot."""
    return [asked for preempt in preempts for asked in preempt.asked.values()]
