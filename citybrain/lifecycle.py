"""The life of alerts: a pure function of findings, commands and event time.

Rules of this module:

* An alert is one (rule, place). Findings join it while it is active and for `QUIET_MS` after
  its end (so what flaps is one occurrence, not twenty); after that a new occurrence begins.
* Active and acknowledged are independent. Active is: some member finding has not cleared.
* Severity rises at once, and makes an acknowledged alert unacknowledged. It falls only after
  the lesser severity has lasted for `casebook.EASE_MS`.
* Shelving is of (rule, place), until a stated event time. It hides new occurrences too, and
  ends early if the severity rises above the one that was shelved.
* An alert is suppressed while an ancestor of its rule is active at a place that contains its
  own, is at least as severe, and is not shelved itself. It is released when that ends.
* Times are event times. They come with findings and from `advance`, never from a clock.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from citybrain.alerts import Alert, Transition
from citybrain.casebook import Case, Casebook, Key, Shelf, opening
from citybrain.clock import stamp
from citybrain.errors import Refused
from citybrain.findings import Finding
from citybrain.grouping import contains, name_of, order, place_of, rule_of, severity_of, worst
from citybrain.kinds import DAY, MINUTE
from citybrain.rules import Rule, ancestors

QUIET_MS = 10 * MINUTE
UPDATE_MS = MINUTE
"""An alert of which figures alone change is written at most so often."""
MAX_SHELF_MS = 7 * DAY
SHOWN_FINDINGS = 50

Facts = dict[str, Any]
"""Fields of an alert that a transition changes."""


class Lifecycle:
    """All alerts of a city. Methods return the records to publish, in order."""

    def __init__(self, rules: Mapping[str, Rule], pack: str) -> None:
        self.rules = rules
        self.pack = pack
        self.book = Casebook()
        self.now_ms = 0
        self.repeats = 0

    def take(self, at_ms: int, findings: Iterable[Finding]) -> list[Alert]:
        """Findings that were all decided at `at_ms`; each alert is written as seldom as can be.

        A finding of the past (its shard had been left out) counts as of now. Repeats, and
        findings of no known rule, change nothing.
        """
        records = self.advance(at_ms)
        moved: dict[str, list[Finding]] = {}
        for finding in sorted(findings, key=order):
            case = self._case(finding)
            if case:
                self.book.join(case, finding)
                moved.setdefault(case.alert.id, []).append(finding)
        # Ancestors first, so that what they cause is born suppressed.
        for alert_id in sorted(moved, key=lambda i: (len(self._line(self.book.cases[i])), i)):
            records += self._settle(self.book.cases[alert_id], moved[alert_id])
        return records + self._suppress()

    def advance(self, to_ms: int) -> list[Alert]:
        """Event time has passed `to_ms`: shelves end, alerts ease, old ones are forgotten."""
        records: list[Alert] = []
        for due_ms, key in self.book.due(to_ms):
            self.now_ms = max(self.now_ms, due_ms)
            shelf = self.book.shelves.get(key)
            ended = shelf is not None and shelf.until_ms <= self.now_ms
            changed = self._end_shelf(key, "") if ended else []
            for case in self.book.at(key):
                changed += self._review(case)
            if changed:
                records += [*changed, *self._suppress()]
        self.now_ms = max(self.now_ms, to_ms)
        return records

    def retire(self, person: str = "") -> list[Alert]:
        """Clear what is active under rules that are off, or that the pack no longer has.

        Nobody will tell that their findings have ended, so they end here.
        """
        records: list[Alert] = []
        for case in [self.book.cases[alert] for alert in sorted(self.book.active)]:
            rule = self._rule(case)
            if rule is None or not rule.enabled:
                for finding in case.members.values():
                    ended = msgspec.structs.replace(finding, state="cleared", at_ms=self.now_ms)
                    case.members[finding.id] = ended
                records.append(self._clear(case, 0, person))
        return [*records, *self._suppress()] if records else []

    def acknowledge(self, alert: str, person: str, comment: str, said_ms: int) -> list[Alert]:
        """Somebody has seen it. Raises Refused if it is unknown or acknowledged already."""
        case = self._known(alert)
        if case.alert.acknowledged:
            raise Refused(f"{alert} is acknowledged already, by {case.alert.acknowledged_by}")
        seen: Facts = {"acknowledged": True, "acknowledged_by": person, "acknowledged_ms": said_ms}
        record = self._record(case, "acknowledged", **seen, comment=comment, person=person)
        self.book.watch(case)
        return [record]

    def assign(self, alert: str, person: str, assignee: str) -> list[Alert]:
        """It is `assignee`'s to deal with; "" gives it back. Raises Refused if it is so."""
        case = self._known(alert)
        if case.alert.assignee == assignee:
            raise Refused(f"{alert} is assigned to {assignee or 'nobody'} already")
        return [self._record(case, "assigned", assignee=assignee, person=person)]

    def shelve(self, alert: str, person: str, until_ms: int, reason: str) -> list[Alert]:
        """Out of the way until an event time; 0 takes it back. Raises Refused with why not."""
        case = self._known(alert)
        if until_ms == 0:
            if case.key not in self.book.shelves:
                raise Refused(f"{alert} is not shelved")
            return [*self._end_shelf(case.key, person), *self._suppress()]
        if not case.alert.active:
            raise Refused(f"{alert} has ended; only what is active can be shelved")
        if not reason.strip():
            raise Refused("reason: is empty; shelving needs one")
        if not self.now_ms < until_ms <= self.now_ms + MAX_SHELF_MS:
            raise Refused(
                f"until: {stamp(until_ms)} is not within {MAX_SHELF_MS // DAY} days after the"
                f" city's time, {stamp(self.now_ms)}"
            )
        rule, place = case.key
        severity = case.alert.severity
        self.book.shelve(
            Shelf(rule=rule, place=place, until_ms=until_ms, reason=reason, severity=severity)
        )
        facts: Facts = {"shelved_until_ms": until_ms, "shelved_reason": reason}
        return [self._record(case, "shelved", **facts, person=person), *self._suppress()]

    def _case(self, finding: Finding) -> Case | None:
        """Where a finding goes, opening a case if need be; None if it says nothing new."""
        rule = rule_of(self.rules, finding)
        if rule is None or not rule.enabled:
            return None
        case = self.book.owner(finding.id)
        known = case and case.members[finding.id]
        if finding.state == "cleared" and not known:
            self.repeats += 1
            return None
        if case and known:
            if known.state == "cleared" or order(finding) <= order(known):
                self.repeats += 1
                return None
            return case
        place = place_of(rule.group, finding.place)
        latest = self.book.latest((rule.name, name_of(place)))
        if latest and (
            latest.alert.cleared_ms is None or self.now_ms - latest.alert.cleared_ms < QUIET_MS
        ):
            return latest
        case = opening(rule, place, self.now_ms)
        self.book.open(case)
        return case

    def _settle(self, case: Case, moved: list[Finding]) -> list[Alert]:
        """What the findings that moved make of their alert."""
        rule, alert = self.rules[case.alert.rule], case.alert
        self.book.prune(case, self.now_ms)
        active = [f for f in case.members.values() if f.state != "cleared"]
        cause_ms = max(f.cause_ms for f in moved)
        records: list[Alert] = []
        if not alert.active:
            records.append(self._raise(case, rule, active or moved, cause_ms))
        if not active:
            records.append(self._clear(case, cause_ms))
        elif not records:
            records += self._weigh(case, rule, active, cause_ms)
        return records

    def _raise(self, case: Case, rule: Rule, shown: list[Finding], cause_ms: int) -> Alert:
        severity = min(severity_of(rule, f) for f in shown)
        seen = case.alert.acknowledged and severity >= case.alert.severity
        raised: Facts = {"active": True, "cleared_ms": None, "acknowledged": seen}
        raised |= self._at_severity(case, severity)
        return self._record(case, "raised", shown, **raised, cause_ms=cause_ms)

    def _clear(self, case: Case, cause_ms: int, person: str = "") -> Alert:
        case.lesser_since_ms = None
        ended: Facts = {"active": False, "cleared_ms": self.now_ms}
        record = self._record(case, "cleared", **ended, cause_ms=cause_ms, person=person)
        self.book.watch(case)
        return record

    def _weigh(self, case: Case, rule: Rule, active: list[Finding], cause_ms: int) -> list[Alert]:
        """An alert that goes on: worse, better for long enough, or only other figures."""
        alert = case.alert
        severity = min(severity_of(rule, f) for f in active)
        if severity < alert.severity:
            case.lesser_since_ms = None
            worse = self._at_severity(case, severity) | {"acknowledged": False}
            return [self._record(case, "escalated", active, **worse, cause_ms=cause_ms)]
        if severity == alert.severity:
            case.lesser_since_ms = None
        elif case.lesser_since_ms is None:
            case.lesser_since_ms = self.now_ms
            self.book.watch(case)
        if case.count > alert.finding_count or self.now_ms - alert.updated_ms >= UPDATE_MS:
            return [self._record(case, "updated", active, cause_ms=cause_ms)]
        return []

    def _review(self, case: Case) -> list[Alert]:
        """A case that may be due: ease it, or forget it."""
        due_ms, rule = case.due_ms(), self._rule(case)
        if due_ms is None or due_ms > self.now_ms:
            return []
        if not case.alert.active:
            self.book.forget(case)
            return []
        case.lesser_since_ms = None
        active = [f for f in case.members.values() if f.state != "cleared"]
        if rule is None:
            return []
        severity = min(severity_of(rule, f) for f in active)
        return [self._record(case, "eased", active, severity=severity)]

    def _at_severity(self, case: Case, severity: int) -> Facts:
        """What hides an alert of this severity. One worse than its shelf ends the shelf."""
        shelf = self.book.shelves.get(case.key)
        if shelf and severity < shelf.severity:
            del self.book.shelves[case.key]
            shelf = None
        return {
            "severity": severity,
            "suppressed_by": self._cover(case, severity),
            "shelved_until_ms": shelf.until_ms if shelf else 0,
            "shelved_reason": shelf.reason if shelf else "",
        }

    def _end_shelf(self, key: Key, person: str) -> list[Alert]:
        del self.book.shelves[key]
        case = self.book.latest(key)
        if case is None or not case.alert.shelved_until_ms:
            return []
        facts: Facts = {"shelved_until_ms": 0, "shelved_reason": ""}
        return [self._record(case, "unshelved", **facts, person=person)]

    def _suppress(self) -> list[Alert]:
        """Suppress and release until every active alert says by which ancestor it is covered."""
        records: list[Alert] = []
        for case in [self.book.cases[alert] for alert in sorted(self.book.active)]:
            cover = self._cover(case, case.alert.severity)
            if cover != case.alert.suppressed_by:
                transition: Transition = "suppressed" if cover else "released"
                records.append(self._record(case, transition, suppressed_by=cover))
        return records

    def _cover(self, case: Case, severity: int) -> str:
        """The nearest ancestor's alert that explains this one, or ""."""
        for name in self._line(case):
            place = place_of(self.rules[name].group, case.alert.place)
            parent = self.book.latest((name, name_of(place)))
            if (
                parent
                and parent.alert.active
                and parent.alert.severity <= severity
                and not parent.alert.shelved_until_ms
                and contains(parent.alert.place, case.alert.place)
            ):
                return parent.alert.id
        return ""

    def _rule(self, case: Case) -> Rule | None:
        return self.rules.get(case.alert.rule)

    def _line(self, case: Case) -> list[str]:
        return ancestors(self.rules, case.alert.rule) if self._rule(case) else []

    def _known(self, alert: str) -> Case:
        if alert not in self.book.cases:
            raise Refused(f"alert: {alert!r} is not known, or ended long ago")
        return self.book.cases[alert]

    def _record(
        self,
        case: Case,
        transition: Transition,
        shown: Iterable[Finding] = (),
        **facts: Any,
    ) -> Alert:
        """The next record of an alert: `facts`, and the figures of the worst of `shown`."""
        common: Facts = {"transition": transition, "updated_ms": self.now_ms, "pack": self.pack}
        common |= {"person": "", "cause_ms": 0, "revision": case.alert.revision + 1}
        findings = list(shown)
        if findings:
            first = worst(self.rules[case.alert.rule], findings)
            for name in ("detector", "kind", "observed", "expected", "unit", "params"):
                common[name] = getattr(first, name)
            common["generated"] = case.alert.generated or any(f.generated for f in findings)
        newest = sorted(case.members.values(), key=order)[-SHOWN_FINDINGS:]
        common |= {"findings": [f.id for f in newest], "finding_count": case.count}
        case.alert = msgspec.structs.replace(case.alert, **(common | facts))
        self.book.note(case)
        return case.alert
