"""What the logs say of junctions at this moment, for the command line."""

from collections.abc import Iterable, Iterator

import msgspec

from citybrain import signal_log
from citybrain.contents import records
from citybrain.errors import JSON_ERRORS, InvalidInput
from citybrain.kafka import KafkaSettings
from citybrain.signal_log import Report, Shown
from citybrain.signals import Junction, Plan

_REPORTS = 200
_PLANS = 5_000


class JunctionState(msgspec.Struct, frozen=True, kw_only=True):
    """A junction: what its controller said last, and the last plan for it."""

    junction: str
    shown: Shown | None = None
    plan: Plan | None = None


async def read(
    settings: KafkaSettings, city: str, junctions: Iterable[Junction]
) -> list[JunctionState]:
    """The state of some junctions. Raises BrokerError if the logs cannot be read."""
    shown: dict[str, Shown] = {}
    plans: dict[str, Plan] = {}
    async for record in records(settings, city, "detector-states", last=_REPORTS):
        try:
            entry = signal_log.decode(record.value or b"")
        except InvalidInput:
            continue  # the signals stage has written a dead letter of it
        if isinstance(entry, Report):
            shown |= {one.junction: one for one in entry.shown}
    async for record in records(settings, city, "signal-plans", last=_PLANS):
        try:
            plan = msgspec.json.decode(record.value or b"", type=Plan)
        except JSON_ERRORS:
            continue  # the edge agent's relay has refused it
        if plan.junction not in plans or plan.issued_ms >= plans[plan.junction].issued_ms:
            plans[plan.junction] = plan
    names = [junction.id for junction in junctions]
    return [JunctionState(junction=j, shown=shown.get(j), plan=plans.get(j)) for j in names]


def words(state: JunctionState, junction: Junction, now_ms: int) -> Iterator[str]:
    """Lines for people."""
    yield state.junction
    shown, plan = state.shown, state.plan
    if shown is None:
        yield "  its controller says nothing"
    else:
        lasts = "being changed to" if shown.stage_ms < 0 else f"for {shown.stage_ms // 1000} s"
        groups = [group.id for group in junction.table.groups]
        lamps = " ".join(f"{g}={c}" for g, c in zip(groups, shown.lamps, strict=False))
        yield f"  shows    {shown.stage}, {lasts}; told {_ago(now_ms - shown.at_ms)}"
        yield f"  lamps    {lamps}"
        yield f"  decides  {shown.source}"
    if plan is not None:
        yield f"  plan     {plan.source}: {plan.stage}, issued {_ago(now_ms - plan.issued_ms)}"
        yield f"  why      {plan.why}" + (f" / {plan.why_zh}" if plan.why_zh else "")
        for because in plan.because:
            yield f"  because  {because.en} / {because.zh} (alert {because.alert})"


def _ago(ms: int) -> str:
    return f"{ms / 1000:.0f} s ago"
