"""The arbiter at a junction: whose plan is followed, and the local plan when there is none.

Pure. It is told two times: UTC for plans and the cycle, and the time since its start, by a
clock that never jumps, for every duration. It returns the lamps that the interlock let through.
Ranks: operator > emergency > priority > adaptive > local. A plan counts while it is fresh; of
the fresh ones the highest rank is followed. What is refused is refused with the reason:

* unknown junction or stage, a signature that does not fit, a sequence number that is not
  higher than the last one of that source (a replayed plan),
* expired, issued in the future or too long ago by this clock (skew), before this arbiter
  started (it cannot know what has been seen before), valid for too long.

No fresh plan, or a group that is overdue (red for too long, yellow that does not end): the
local plan, within `Limits.silence_ms` of the last plan's end. It joins its own cycle where the
clock says that it should be; greens and clearances on the way are the sequencer's and the
interlock's, so nothing is cut short. A red that is too long overrules an emergency plan too,
but not before that has been followed for `Limits.preempt_ms`. Terms of NTCIP 1202: a followed
plan is a *hold* of a phase set, an emergency one a *preempt*, the local plan the *coordinated
pattern*.
"""

import hmac
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from citybrain.edge.interlock import Interlock, Verdict
from citybrain.edge.sequencer import Sequencer
from citybrain.errors import PackError
from citybrain.models.signals.timing import schedule
from citybrain.signal_log import Shown
from citybrain.signals import Junction, Plan, Refusal, signature

RANKS = ("operator", "emergency", "priority", "adaptive")
"""Sources of plans, the strongest first."""

LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in ms. skew_ms: how far a plan's clock may be ahead. stale_ms: how old a plan may
    be when it arrives. longest_ms: how long a plan may claim to be valid. silence_ms: how
    long after the end of the last plan the stage is still held, waiting for the next.
    overdue_ms: how long the local plan runs after it had to take over. preempt_ms: for so long
    an emergency plan may keep others red beyond their maximum (NTCIP 1202's
    preemptMaximumPresence: a request that does not end is a fault, not an ambulance).
    recover_ms: so long afterwards the others may still be on their way to green."""

    skew_ms: int = 2_000
    stale_ms: int = 10_000
    longest_ms: int = 60_000
    silence_ms: int = 3_000
    overdue_ms: int = 120_000
    preempt_ms: int = 90_000
    recover_ms: int = 30_000


class Arbiter:
    """One junction's arbiter with its interlock.

    key: shared secret of the signatures. Raises PackError if table, stages or local plan do
    not hold together.
    """

    def __init__(
        self,
        junction: Junction,
        key: bytes,
        now_ms: int,
        up_ms: int = 0,
        limits: Limits | None = None,
    ) -> None:
        if not key:
            raise PackError(f"junction {junction.id}: the key of the plans' signatures is empty")
        self.junction = junction
        self.interlock = Interlock(junction.table, up_ms)
        self.source = LOCAL
        """Whose plan is being followed."""
        self.refusals: deque[Refusal] = deque(maxlen=1_000)
        """The latest refusals, of plans and of lamps."""
        self._sequencer = Sequencer(junction, up_ms)
        self._limits = limits or Limits()
        self._key = key
        self._started_ms = self._now_ms = now_ms
        self._up_ms = up_ms
        self._plans: dict[str, tuple[Plan, int]] = {}  # with the end by the steady clock
        self._sequences: dict[str, int] = {}
        self._local_until_ms = 0
        self._preempted_ms: int | None = None  # since when emergency plans are followed
        self._passed_ms = 0  # when one was followed last
        self._steps = [(stage, change + green) for stage, change, green in schedule(junction)]
        self._cycle_ms = sum(length for _, length in self._steps)
        for stage, _ in self._steps:
            if stage not in self._sequencer.stages:
                raise PackError(
                    f"junction {junction.id}: local plan: {stage!r} is not one of"
                    f" {sorted(self._sequencer.stages)}"
                )
        if any(step.green_ms <= 0 for step in junction.plan.steps):
            raise PackError(f"junction {junction.id}: local plan: a green time is not above 0")

    def take(self, now_ms: int, plan: Plan) -> Refusal | None:
        """A plan has arrived. None if it counts from now on, or why not."""
        self._now_ms = now_ms
        found = self._wrong(plan)
        if found is not None:
            refusal = self._no(*found)
            self.refusals.append(refusal)
            return refusal
        self._sequences[plan.source] = plan.sequence
        self._plans[plan.source] = (plan, self._up_ms + plan.expires_ms - now_ms)
        return None

    def tick(self, now_ms: int, up_ms: int, calls: Collection[str] = ()) -> Verdict:
        """Choose whom to follow, ask the interlock for the next change of lamps.

        now_ms: UTC, which may be set back and forth. up_ms: by a clock that only goes forward.
        calls: pedestrian groups whose button was pressed. Call it at least once a second.
        """
        if up_ms - self._up_ms > self.interlock.max_step_ms:
            self._sequencer.restart(up_ms)
        self._now_ms, self._up_ms = now_ms, max(up_ms, self._up_ms)
        sequencer = self._sequencer
        sequencer.calls.update(set(calls) & sequencer.walks)
        overdue = self.interlock.overdue()
        if self._excused():
            overdue = tuple(one for one in overdue if one.rule != "maximum red")
        if overdue and self.source != LOCAL:
            self._refuse(overdue)
            self._local_until_ms = self._up_ms + self._limits.overdue_ms
        plan = self._followed()
        self.source = plan.source if plan is not None else LOCAL
        if self.source == "emergency":
            self._preempted_ms = self._up_ms if self._preempted_ms is None else self._preempted_ms
            self._passed_ms = self._up_ms
        elif self._up_ms - self._passed_ms > self._limits.recover_ms:
            self._preempted_ms = None
        sequencer.recall = plan is None
        sequencer.aim(plan.stage if plan is not None else self._local_stage())
        verdict = self.interlock.change(self._up_ms, sequencer.step(self._up_ms))
        self._refuse(verdict.refusals)
        sequencer.shown(self._up_ms, verdict.lamps)
        return verdict

    def report(self) -> Shown:
        """What is shown now and whose plan is followed."""
        return self._sequencer.report(self._up_ms, self._now_ms, self.source)

    def _excused(self) -> bool:
        """Whether somebody's long red is an ambulance's doing, and not for too long."""
        if self._preempted_ms is None:
            return False
        limits = self._limits
        spare = 0 if self.source == "emergency" else limits.recover_ms
        return self._up_ms - self._preempted_ms < limits.preempt_ms + spare

    def _refuse(self, refusals: Iterable[Refusal]) -> None:
        """Keep the interlock's refusals, with the time of day."""
        self.refusals.extend(
            msgspec.structs.replace(refusal, at_ms=self._now_ms) for refusal in refusals
        )

    def _followed(self) -> Plan | None:
        """The fresh plan of the highest rank."""
        if self._up_ms < self._local_until_ms:
            return None
        for source in RANKS:
            plan, end_ms = self._plans.get(source, (None, 0))
            if plan is None:
                continue
            if self._up_ms < end_ms + self._limits.silence_ms:
                return plan
            del self._plans[source]
        return None

    def _local_stage(self) -> str:
        into = (self._now_ms - self.junction.plan.offset_ms) % self._cycle_ms
        for stage, length in self._steps:
            if into < length:
                return stage
            into -= length
        raise AssertionError("a cycle is the sum of its steps")

    def _wrong(self, plan: Plan) -> tuple[str, str] | None:
        """The rule that a plan breaks, and how."""
        now, limits = self._now_ms, self._limits
        if plan.junction != self.junction.id:
            return "junction", f"junction: {plan.junction!r} is not {self.junction.id!r}"
        if not hmac.compare_digest(plan.mac.encode(), signature(self._key, plan).encode()):
            return "signature", f"mac: {plan.mac[:8]!r} does not fit plan {plan.sequence}"
        if plan.stage not in self._sequencer.stages:
            known = sorted(self._sequencer.stages)
            return "stage", f"stage: {plan.stage!r} is not one of {known}"
        last = self._sequences.get(plan.source, -1)
        if plan.sequence <= last:
            return "sequence", f"sequence: {plan.sequence} of {plan.source}, {last} has been seen"
        if plan.issued_ms > now + limits.skew_ms:
            return "clock", f"issued_ms: {plan.issued_ms - now} ms ahead of this clock"
        if plan.issued_ms < self._started_ms:
            return "restart", f"issued_ms: {self._started_ms - plan.issued_ms} ms before the start"
        if plan.issued_ms < now - limits.stale_ms:
            return "stale", f"issued_ms: {now - plan.issued_ms} ms old, at most {limits.stale_ms}"
        if plan.expires_ms <= now:
            return "expired", f"expires_ms: {now - plan.expires_ms} ms ago"
        if plan.expires_ms > now + limits.longest_ms:
            ahead = plan.expires_ms - now
            return "validity", f"expires_ms: {ahead} ms ahead, at most {limits.longest_ms}"
        return None

    def _no(self, rule: str, why: str) -> Refusal:
        return Refusal(junction=self.junction.id, at_ms=self._now_ms, rule=rule, why=why)
