"""What holds of alerts whatever happens, in whatever order."""

from contextlib import suppress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from citybrain.alerts import Alert
from citybrain.errors import Refused
from citybrain.findings import Finding
from citybrain.grouping import contains, name_of
from citybrain.kinds import HOUR, MINUTE
from citybrain.lifecycle import Lifecycle
from citybrain.rules import ancestors
from tests.alerting import RULES, T0, finding

SENSORS = ("d1", "d2", "d3")


class Alerts(RuleBasedStateMachine):
    """Drives a lifecycle with findings, commands and time; keeps what a reader would know."""

    @initialize()
    def begin(self) -> None:
        self.life = Lifecycle(RULES, "pack-1")
        self.now_ms = T0
        self.open: dict[str, Finding] = {}
        self.ever: set[str] = set()
        self.read: dict[str, Alert] = {}
        self.of_finding: dict[str, set[str]] = {}

    def publish(self, records: list[Alert]) -> None:
        for record in records:
            before = self.read.get(record.id)
            assert record.revision == (before.revision + 1 if before else 0)
            assert (record.transition == "raised") or before is not None
            if record.transition == "escalated":
                assert before
                assert record.severity < before.severity
                assert not record.acknowledged
            if record.transition == "eased":
                assert before
                assert record.severity > before.severity
            self.read[record.id] = record
            for member in record.findings:
                self.of_finding.setdefault(member, set()).add(record.id)

    @rule(
        name=st.sampled_from(sorted(RULES)),
        sensor=st.sampled_from(SENSORS),
        score=st.sampled_from([0.1, 0.3, 1.5, 2.5, 4.5]),
    )
    def raise_finding(self, name: str, sensor: str, score: float) -> None:
        onset = self.now_ms - T0
        new = finding(name, sensor, onset / MINUTE, score=score, onset=onset)
        if new.id not in self.ever:
            self.ever.add(new.id)
            self.open[new.id] = new
        self.publish(self.life.take(self.now_ms, [new]))

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(),
        state=st.sampled_from(["updated", "cleared"]),
        score=st.sampled_from([0.1, 0.3, 1.5, 2.5, 4.5]),
    )
    def go_on(self, data: st.DataObject, state: str, score: float) -> None:
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        word = self.word(known, state, score)
        if word.at_ms > known.at_ms:
            self.open[known.id] = word
            if state == "cleared":
                del self.open[known.id]
            self.publish(self.life.take(self.now_ms, [word]))

    def word(self, known: Finding, state: str, score: float) -> Finding:
        at_min = (self.now_ms - T0) / MINUTE
        return finding(known.rule, known.place.sensor, at_min, state, score, known.onset_ms - T0)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        assert self.life.take(self.now_ms, [known]) == []

    @rule(minutes=st.sampled_from([1, 5, 11, 60, 26 * 60]))
    def wait(self, minutes: int) -> None:
        self.now_ms += minutes * MINUTE
        self.publish(self.life.advance(self.now_ms))

    @precondition(lambda self: self.read)
    @rule(data=st.data(), what=st.sampled_from(["acknowledge", "shelve", "unshelve", "assign"]))
    def command(self, data: st.DataObject, what: str) -> None:
        alert = data.draw(st.sampled_from(sorted(self.read)))
        orders: dict[str, Any] = {
            "acknowledge": lambda: self.life.acknowledge(alert, "operator-1", "", 1),
            "shelve": lambda: self.life.shelve(alert, "operator-1", self.now_ms + HOUR, "why"),
            "unshelve": lambda: self.life.shelve(alert, "operator-1", 0, ""),
            "assign": lambda: self.life.assign(alert, "operator-1", "crew-7"),
        }
        with suppress(Refused):  # what is refused must leave everything as it was
            self.publish(orders[what]())

    @invariant()
    def never_two_active_alerts_of_one_rule_and_place(self) -> None:
        active = [(a.rule, name_of(a.place)) for a in self.read.values() if a.active]
        assert len(active) == len(set(active))

    @invariant()
    def every_finding_belongs_to_exactly_one_alert(self) -> None:
        assert set(self.of_finding) == self.ever
        assert all(len(alerts) == 1 for alerts in self.of_finding.values())

    @invariant()
    def an_alert_is_active_exactly_while_a_member_is(self) -> None:
        burning = {next(iter(self.of_finding[finding])) for finding in self.open}
        assert {a.id for a in self.read.values() if a.active} == burning

    @invariant()
    def what_is_suppressed_has_an_active_cause_that_is_as_bad(self) -> None:
        for alert in self.read.values():
            if not alert.active:
                continue
            causes = [
                cause
                for cause in self.read.values()
                if cause.active
                and cause.rule in ancestors(RULES, alert.rule)
                and contains(cause.place, alert.place)
                and cause.severity <= alert.severity
                and not cause.shelved_until_ms
            ]
            assert bool(alert.suppressed_by) == bool(causes)
            assert not alert.suppressed_by or alert.suppressed_by in {c.id for c in causes}

    @invariant()
    def a_shelf_ends_in_time(self) -> None:
        latest = {(a.rule, name_of(a.place)): a for a in self.read.values()}
        assert all(
            not a.shelved_until_ms or a.shelved_until_ms > self.now_ms for a in latest.values()
        )


TestAlerts = Alerts.TestCase
TestAlerts.settings = settings(max_examples=40, stateful_step_count=35, deadline=None)
