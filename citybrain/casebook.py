"""What the alert lifecycle remembers: cases by id, by place and by finding, and what is due."""

import heapq
from collections.abc import Iterator

import msgspec

from citybrain.alerts import Alert
from citybrain.clock import stamp
from citybrain.findings import Finding, Place
from citybrain.grouping import name_of
from citybrain.kinds import DAY, MINUTE
from citybrain.rules import Rule

EASE_MS = 5 * MINUTE
"""A lesser severity must last so long before an alert eases."""
KEEP_MS = DAY
"""An alert is remembered so long after its end, and `UNSEEN_MS` if nobody acknowledged it."""
UNSEEN_MS = 7 * DAY

Key = tuple[str, str]
"""Rule and name of the place."""


class Case(msgspec.Struct, kw_only=True):
    """An alert and what stands behind it.

    members: the last word of each finding, by id; those that cleared more than `KEEP_MS` ago
    are dropped. count: all members that there ever were.
    """

    alert: Alert
    members: dict[str, Finding] = {}
    count: int = 0
    lesser_since_ms: int | None = None

    @property
    def key(self) -> Key:
        """Rule and place."""
        return self.alert.rule, name_of(self.alert.place)

    def due_ms(self) -> int | None:
        """When the case has to be looked at again if nothing happens."""
        if self.alert.active:
            return None if self.lesser_since_ms is None else self.lesser_since_ms + EASE_MS
        kept = KEEP_MS if self.alert.acknowledged else UNSEEN_MS
        return None if self.alert.cleared_ms is None else self.alert.cleared_ms + kept


def opening(rule: Rule, place: Place, now_ms: int) -> Case:
    """A case of which nothing has been published yet: revision -1, not active."""
    alert = Alert(
        id=f"{rule.name}/{name_of(place)}/{stamp(now_ms)}",
        revision=-1,
        transition="raised",
        rule=rule.name,
        cause=rule.cause,
        place=place,
        severity=rule.severity,
        active=False,
        acknowledged=False,
        opened_ms=now_ms,
        updated_ms=now_ms,
        advice=rule.advice,
    )
    return Case(alert=alert)


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """One (rule, place) out of the way, up to the severity that it had."""

    rule: str
    place: str
    until_ms: int
    reason: str
    severity: int


class Casebook:
    """Cases and shelves with their indexes.

    active: ids of alerts that are active. touched: ids of cases that changed or went.
    forgotten: ids of those that went, until somebody has taken note.
    """

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.shelves: dict[Key, Shelf] = {}
        self.active: set[str] = set()
        self.touched: set[str] = set()
        self.forgotten: list[str] = []
        self._at: dict[Key, list[str]] = {}
        self._owner: dict[str, str] = {}
        self._due: list[tuple[int, str, str]] = []

    def open(self, case: Case) -> None:
        """Keep a case; it is the latest of its rule and place."""
        self.cases[case.alert.id] = case
        self._at.setdefault(case.key, []).append(case.alert.id)
        self._owner |= dict.fromkeys(case.members, case.alert.id)
        self.note(case)
        self.watch(case)

    def note(self, case: Case) -> None:
        """A case has changed."""
        self.touched.add(case.alert.id)
        if case.alert.active:
            self.active.add(case.alert.id)
        else:
            self.active.discard(case.alert.id)

    def forget(self, case: Case) -> None:
        """Drop a case and its findings."""
        del self.cases[case.alert.id]
        self._at[case.key].remove(case.alert.id)
        if not self._at[case.key]:
            del self._at[case.key]
        for finding in case.members:
            del self._owner[finding]
        self.touched.add(case.alert.id)
        self.forgotten.append(case.alert.id)

    def join(self, case: Case, finding: Finding) -> None:
        """Note the last word of a finding; without its evidence, which history keeps."""
        case.count += finding.id not in case.members
        case.members[finding.id] = msgspec.structs.replace(finding, evidence=[])
        self._owner[finding.id] = case.alert.id
        self.touched.add(case.alert.id)

    def prune(self, case: Case, now_ms: int) -> None:
        """Drop members that cleared more than `KEEP_MS` ago."""
        old = [
            member.id
            for member in case.members.values()
            if member.state == "cleared" and member.at_ms < now_ms - KEEP_MS
        ]
        for member_id in old:
            del case.members[member_id], self._owner[member_id]

    def at(self, key: Key) -> list[Case]:
        """The cases of a rule at a place, oldest first."""
        return [self.cases[alert] for alert in self._at.get(key, ())]

    def latest(self, key: Key) -> Case | None:
        """The last case of a rule at a place."""
        known = self._at.get(key)
        return self.cases[known[-1]] if known else None

    def owner(self, finding_id: str) -> Case | None:
        """The case that a finding belongs to."""
        return self.cases.get(self._owner.get(finding_id, ""))

    def watch(self, case: Case) -> None:
        """Have the case come up when it is due."""
        due_ms = case.due_ms()
        if due_ms is not None:
            heapq.heappush(self._due, (due_ms, *case.key))

    def shelve(self, shelf: Shelf) -> None:
        """Keep a shelf until its end."""
        self.shelves[shelf.rule, shelf.place] = shelf
        heapq.heappush(self._due, (shelf.until_ms, shelf.rule, shelf.place))

    def due(self, to_ms: int) -> Iterator[tuple[int, Key]]:
        """Times up to `to_ms` at which something may be due for a key, in order, once each."""
        while self._due and self._due[0][0] <= to_ms:
            due_ms, rule, place = heapq.heappop(self._due)
            yield due_ms, (rule, place)
