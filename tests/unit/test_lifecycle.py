"""The life of an alert, transition by transition."""

import msgspec
import pytest

from citybrain.alerts import Alert
from citybrain.casebook import EASE_MS, KEEP_MS, UNSEEN_MS
from citybrain.errors import Refused
from citybrain.findings import Finding
from citybrain.kinds import HOUR, MINUTE
from citybrain.lifecycle import MAX_SHELF_MS, QUIET_MS, UPDATE_MS, Lifecycle
from tests.alerting import RULES, T0, finding


def life() -> Lifecycle:
    return Lifecycle(RULES, "pack-1")


def took(alerts: Lifecycle, *findings: Finding) -> list[Alert]:
    return alerts.take(findings[0].at_ms, findings)


def transitions(records: list[Alert]) -> list[tuple[str, str]]:
    return [(record.rule, record.transition) for record in records]


def test_a_cloudburst_over_many_sensors_is_one_alert() -> None:
    alerts = life()
    first = took(alerts, *(finding("rain", sensor) for sensor in ("d1", "d3", "d4", "w2")))
    assert transitions(first) == [("rain", "raised")]
    (alert,) = first
    assert alert.id == "rain/city/20270115T080000Z"
    assert (alert.place.zone, alert.finding_count, alert.revision) == ("", 4, 0)
    later = took(alerts, finding("rain", "d2", 1))
    assert transitions(later) == [("rain", "updated")]
    assert (later[0].id, later[0].finding_count, later[0].revision) == (alert.id, 5, 1)


def test_an_alert_ends_when_its_last_finding_has_cleared() -> None:
    alerts = life()
    took(alerts, finding("rain", "d1"), finding("rain", "d2"))
    assert transitions(took(alerts, finding("rain", "d1", 5, "cleared"))) == [("rain", "updated")]
    (end,) = took(alerts, finding("rain", "d2", 6, "cleared"))
    assert (end.transition, end.active, end.cleared_ms) == ("cleared", False, T0 + 6 * MINUTE)


def test_the_figures_shown_are_those_of_the_worst_finding() -> None:
    alerts = life()
    took(alerts, finding("jam", "d1", score=0.35, place=finding("jam", "d1").place))
    (alert,) = took(
        alerts, finding("jam", "d1", 1, "raised", score=0.1, onset=7, params={"lane": "2"})
    )
    assert (alert.observed, alert.params, alert.severity) == (0.1, {"lane": "2"}, 2)


def test_severity_rises_at_once_and_falls_after_it_has_lasted() -> None:
    alerts = life()
    took(alerts, finding("rain", score=1.5))
    (worse,) = took(alerts, finding("rain", at_min=1, state="updated", score=3.5))
    assert (worse.transition, worse.severity) == ("escalated", 2)
    took(alerts, finding("rain", at_min=2, state="updated", score=1.5))
    assert alerts.advance(T0 + 2 * MINUTE + EASE_MS - 1) == []
    (eased,) = alerts.advance(T0 + 2 * MINUTE + EASE_MS)
    assert (eased.transition, eased.severity) == ("eased", 4)


def test_a_severity_that_flickers_does_not_ease() -> None:
    alerts = life()
    took(alerts, finding("rain", score=3.5))
    for minute in range(1, 20):
        score = 1.5 if minute % 3 else 3.5
        records = took(alerts, finding("rain", at_min=minute, state="updated", score=score))
        assert {record.transition for record in records} <= {"updated"}
        assert alerts.book.cases[records[0].id].alert.severity == 2


def test_what_was_acknowledged_and_gets_worse_has_to_be_acknowledged_again() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("rain", score=1.5))
    (seen,) = alerts.acknowledge(alert.id, "operator-1", "on it", 42)
    assert (seen.acknowledged, seen.acknowledged_by, seen.acknowledged_ms) == (
        True, "operator-1", 42,
    )  # fmt: skip
    assert (seen.comment, seen.person, seen.active) == ("on it", "operator-1", True)
    (worse,) = took(alerts, finding("rain", at_min=1, state="updated", score=4.5))
    assert (worse.transition, worse.acknowledged, worse.person) == ("escalated", False, "")


def test_acknowledging_says_nothing_about_being_active() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("rain"))
    took(alerts, finding("rain", at_min=1, state="cleared"))
    (seen,) = alerts.acknowledge(alert.id, "operator-1", "", 1)
    assert (seen.active, seen.acknowledged) == (False, True)
    with pytest.raises(Refused, match="acknowledged already, by operator-1"):
        alerts.acknowledge(alert.id, "operator-2", "", 2)
    with pytest.raises(Refused, match="'rain/city/none' is not known"):
        alerts.acknowledge("rain/city/none", "operator-2", "", 2)


def test_what_flaps_is_one_occurrence_and_stays_acknowledged() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("silent"))
    alerts.acknowledge(alert.id, "operator-1", "", 1)
    minute = 1.0
    for onset in range(1, 6):
        took(alerts, finding("silent", at_min=minute, state="cleared", onset=onset - 1))
        (again,) = took(alerts, finding("silent", at_min=minute + 1, onset=onset))
        assert (again.id, again.transition, again.acknowledged) == (alert.id, "raised", True)
        assert again.cleared_ms is None
        minute += 2
    took(alerts, finding("silent", at_min=minute, state="cleared", onset=5))
    quiet = QUIET_MS / MINUTE
    (new,) = took(alerts, finding("silent", at_min=minute + quiet, onset=9))
    assert (new.id != alert.id, new.acknowledged, new.finding_count) == (True, False, 1)


def test_figures_alone_are_written_once_a_minute() -> None:
    alerts = life()
    took(alerts, finding("rain"))
    written = [
        record
        for second in range(10, 310, 10)
        for record in took(alerts, finding("rain", at_min=second / 60, state="updated"))
    ]
    assert len(written) == 300_000 // UPDATE_MS


def test_a_consequence_is_suppressed_and_released_when_its_cause_ends() -> None:
    alerts = life()
    (child,) = took(alerts, finding("silent", "d1"))
    records = took(alerts, finding("outage", "d2", 1))
    assert transitions(records) == [("outage", "raised"), ("silent", "suppressed")]
    assert records[1].suppressed_by == records[0].id
    born = took(alerts, finding("silent", "d2", 2))
    assert [(r.transition, r.suppressed_by) for r in born] == [("raised", records[0].id)]
    assert took(alerts, finding("silent", "d3", 3))[0].suppressed_by == ""  # another zone
    took(alerts, finding("silent", "d2", 4, "cleared"))
    ended = took(alerts, finding("outage", "d2", 5, "cleared"))
    assert transitions(ended) == [("outage", "cleared"), ("silent", "released")]
    assert (ended[1].id, ended[1].suppressed_by) == (child.id, "")


def test_cause_and_consequence_at_the_same_moment_need_one_record_each() -> None:
    records = took(life(), finding("silent", "d1"), finding("outage", "d2"))
    assert transitions(records) == [("outage", "raised"), ("silent", "raised")]
    assert records[1].suppressed_by == records[0].id


def test_a_consequence_worse_than_its_cause_is_not_hidden() -> None:
    records = took(life(), finding("jam", score=0.3), finding("anomaly"))
    assert records[1].suppressed_by == records[0].id
    milder = msgspec.structs.replace(RULES["outage"], severity=4)
    alerts = Lifecycle(RULES | {"outage": milder}, "pack-1")
    records = took(alerts, finding("outage", "d2"), finding("silent", "d1"))
    assert (records[1].severity, records[1].suppressed_by) == (3, "")


def test_shelving_hides_new_occurrences_and_ends_by_event_time() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("silent"))
    until_ms = T0 + HOUR
    (shelved,) = alerts.shelve(alert.id, "operator-1", until_ms, "being repaired")
    assert (shelved.transition, shelved.shelved_until_ms) == ("shelved", until_ms)
    took(alerts, finding("silent", at_min=1, state="cleared"))
    (new,) = took(alerts, finding("silent", at_min=30, onset=5))
    assert (new.id != alert.id, new.shelved_until_ms) == (True, until_ms)
    assert new.shelved_reason == "being repaired"
    (back,) = alerts.advance(until_ms)
    assert (back.transition, back.id, back.shelved_until_ms) == ("unshelved", new.id, 0)
    assert back.updated_ms == until_ms


def test_what_gets_worse_comes_off_its_shelf() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("rain", score=1.5))
    alerts.shelve(alert.id, "operator-1", T0 + HOUR, "known")
    (worse,) = took(alerts, finding("rain", at_min=1, state="updated", score=4.5))
    assert (worse.transition, worse.shelved_until_ms) == ("escalated", 0)
    with pytest.raises(Refused, match="is not shelved"):
        alerts.shelve(alert.id, "operator-1", 0, "")


def test_a_shelved_cause_hides_no_consequence() -> None:
    alerts = life()
    parent, child = took(alerts, finding("outage", "d2"), finding("silent", "d1"))
    records = alerts.shelve(parent.id, "operator-1", T0 + HOUR, "planned work")
    assert transitions(records) == [("outage", "shelved"), ("silent", "released")]
    records = alerts.shelve(parent.id, "operator-1", 0, "")
    assert transitions(records) == [("outage", "unshelved"), ("silent", "suppressed")]
    assert records[1].id == child.id


@pytest.mark.parametrize(
    ("until_ms", "reason", "complaint"),
    [
        (T0, "x", "not within 7 days after"),
        (T0 + MAX_SHELF_MS + 1, "x", "not within 7 days after"),
        (T0 + HOUR, "  ", "reason: is empty"),
        (0, "", "is not shelved"),
    ],
)
def test_shelving_needs_an_end_and_a_reason(until_ms: int, reason: str, complaint: str) -> None:
    alerts = life()
    (alert,) = took(alerts, finding("rain"))
    with pytest.raises(Refused, match=complaint):
        alerts.shelve(alert.id, "operator-1", until_ms, reason)
    assert alerts.book.cases[alert.id].alert == alert


def test_what_has_ended_cannot_be_shelved() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("rain"))
    took(alerts, finding("rain", at_min=1, state="cleared"))
    with pytest.raises(Refused, match="has ended"):
        alerts.shelve(alert.id, "operator-1", T0 + HOUR, "x")


def test_assigning_and_giving_back() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("rain"))
    (mine,) = alerts.assign(alert.id, "operator-1", "crew-7")
    assert (mine.transition, mine.assignee, mine.person) == ("assigned", "crew-7", "operator-1")
    with pytest.raises(Refused, match="assigned to crew-7 already"):
        alerts.assign(alert.id, "operator-2", "crew-7")
    assert alerts.assign(alert.id, "operator-1", "")[0].assignee == ""


def test_a_finding_told_twice_counts_once() -> None:
    alerts = life()
    took(alerts, finding("rain"))
    assert took(alerts, finding("rain")) == []
    took(alerts, finding("rain", at_min=1, state="cleared"))
    assert took(alerts, finding("rain", at_min=1, state="cleared")) == []
    assert took(alerts, finding("rain")) == []
    assert alerts.repeats == 3


def test_a_finding_that_only_clears_opens_nothing() -> None:
    alerts = life()
    assert took(alerts, finding("rain", state="cleared")) == []
    assert alerts.book.cases == {}


def test_an_alert_that_began_and_ended_in_one_moment_says_both() -> None:
    alerts = life()
    records = took(alerts, finding("rain"), finding("rain", state="cleared"))
    assert transitions(records) == [("rain", "raised"), ("rain", "cleared")]


def test_an_ended_alert_is_forgotten_sooner_once_it_was_seen() -> None:
    alerts = life()
    (seen, unseen) = took(alerts, finding("outage", "d1"), finding("outage", "d3"))
    took(alerts, *(finding("outage", s, 1, "cleared") for s in ("d1", "d3")))
    alerts.acknowledge(seen.id, "operator-1", "", 1)
    end = T0 + MINUTE
    alerts.advance(end + KEEP_MS)
    assert list(alerts.book.cases) == [unseen.id]
    alerts.advance(end + UNSEEN_MS)
    assert alerts.book.cases == {}


def test_alerts_of_a_rule_that_the_pack_lost_are_cleared() -> None:
    alerts = life()
    (alert,) = took(alerts, finding("rain"))
    alerts.rules = {name: r for name, r in RULES.items() if name != "rain"}
    (end,) = alerts.retire()
    assert (end.id, end.transition) == (alert.id, "cleared")
    assert took(alerts, finding("rain", at_min=1, state="updated")) == []
