"""The emergency stage on its log: who is sent, what changes that, and that nobody is sent twice."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain.alerts import Alert
from citybrain.city import City
from citybrain.emergency import (
    AlertSeen,
    CloseIncident,
    CloseRoad,
    Entry,
    LinksSeen,
    Order,
    Position,
    SendResponder,
    SetStatus,
    Tick,
)
from citybrain.errors import InvalidInput
from citybrain.findings import DeadLetter, LinkState, Place
from citybrain.models.emergency.missions import TABLE
from citybrain.streams.emergency import Emergencies
from tests.alerting import T0
from tests.emergency import Log, answers, command, crash, decoded, grid_city, grid_links, on

GONE = 1_000_000


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return grid_city(tmp_path_factory.mktemp("city"))


@pytest.fixture
def log(city: City) -> Log:
    return Log(city)


def at(responder: str, link: str, at_s: float, share: float = 0.5, status: int = 0) -> Position:
    lon, lat = on(link, share)
    return Position(
        responder=responder, at_ms=T0 + round(at_s * 1000), lon=lon, lat=lat, status=status
    )


def closing(number: int, link: str, at_s: float = 0.0, **facts: object) -> CloseRoad:
    closed: CloseRoad = command(
        CloseRoad, number, at_s, **({"link": link, "until_ms": T0 + GONE} | facts)
    )
    return closed


def states(*pairs: tuple[str, float], at_s: float = 0.0, holds_s: float = 120.0) -> LinksSeen:
    now = T0 + round(at_s * 1000)
    return LinksSeen(
        states=[
            LinkState(link=link, state="jam", at_ms=now, expires_ms=now + round(holds_s * 1000),
                      ratio=ratio)
            for link, ratio in pairs
        ]
    )  # fmt: skip


def alert(**facts: object) -> AlertSeen:
    told: dict[str, object] = {
        "id": "speed-anomaly/1,0>2,0/x", "revision": 0, "transition": "raised",
        "rule": "speed-anomaly", "cause": "incident", "severity": 3, "active": True,
        "acknowledged": False, "opened_ms": T0, "updated_ms": T0,
        "place": Place(zone="north", link="1,0>2,0"),
    }  # fmt: skip
    return AlertSeen(alert=Alert(**(told | facts)))  # type: ignore[arg-type]  # fields by name


def sent(log: Log) -> list[Order]:
    return [o for o in log.orders().values() if o.ended_ms is None]


def test_the_ambulance_that_arrives_first_is_sent_and_the_order_says_why(log: Log) -> None:
    log.write(crash(1, "1,0>2,0"))
    (order,) = sent(log)
    assert order.responder == "amb-1"
    assert order.route == ["0,0>1,0", "1,0>2,0"]
    assert order.eta_ms == T0 + 28_000, "180 m and 100 m at 10 m/s"
    assert "first of 2" in order.why
    assert (order.live, order.times_age_ms) == (0.0, None), "no live speed, and it says so"
    assert log.incidents()["i1"].state == "under-way"


def test_a_jam_on_the_way_sends_the_other_one(log: Log) -> None:
    log.write(states(("0,0>1,0", 0.1), ("0,0>0,1", 0.1)), crash(1, "1,1>2,1"))
    (order,) = sent(log)
    assert order.responder == "amb-2"
    log.write(command(CloseIncident, 2, incident="i1", reason="test"))
    log.write(Tick(at_ms=T0 + 200_000), crash(3, "1,1>2,1", 200))
    (order,) = sent(log)
    assert order.responder == "amb-1", "the jam's news is older than it says it holds"


def test_the_order_says_how_old_its_link_times_are(log: Log) -> None:
    log.write(states(("1,0>2,0", 0.5)), Tick(at_ms=T0 + 30_000), crash(1, "1,0>2,0", 30))
    (order,) = sent(log)
    assert order.times_age_ms == 30_000
    assert order.live == 0.5
    assert order.eta_ms - order.sent_ms == 18_000 + 20_000


def test_a_closed_road_is_driven_round_and_the_order_says_it(log: Log) -> None:
    log.write(crash(1, "2,0>3,0"))
    log.write(closing(2, "1,0>2,0", reason="flood"))
    (order,) = sent(log)
    assert "1,0>2,0" not in order.route
    assert order.reroutes == 1
    assert "1,0>2,0 is closed (flood)" in order.why
    assert order.id == next(iter(log.orders())), "the same order, not a second one"


def test_without_a_way_it_is_called_back_and_the_incident_waits_with_the_reason(log: Log) -> None:
    log.write(crash(1, "2,0>3,0"))
    into = [n for n, (_, b) in grid_links().items() if b == (2, 0)]
    log.write(*(closing(10 + i, link) for i, link in enumerate(into)))
    incident = log.incidents()["i1"]
    assert incident.state == "queued"
    assert "no open way for any ambulance" in incident.why
    assert sent(log) == []
    log.write(command(CloseRoad, 90, link=into[0], until_ms=0))
    assert log.incidents()["i1"].state == "under-way"
    assert len(sent(log)) == 1


def test_a_road_opens_again_at_its_end(log: Log) -> None:
    log.write(*(
        closing(10 + i, link, until_ms=T0 + 60_000)
        for i, link in enumerate(n for n, (_, b) in grid_links().items() if b == (2, 0))
    ), crash(1, "2,0>3,0"))  # fmt: skip
    assert log.incidents()["i1"].state == "queued"
    log.write(Tick(at_ms=T0 + 60_000))
    assert log.incidents()["i1"].state == "under-way"


def test_a_road_that_responders_may_pass_stays_theirs(log: Log) -> None:
    log.write(closing(1, "1,0>2,0", responders_pass=True), crash(2, "1,0>2,0"))
    assert sent(log)[0].route[-1] == "1,0>2,0"


def test_a_route_over_a_closed_road_is_refused(log: Log) -> None:
    log.write(closing(1, "1,0>2,0"), crash(2, "2,0>3,0", confidence=0.1))
    route = ("0,0>1,0", "1,0>2,0", "2,0>3,0")
    order = command(SendResponder, 3, incident="i2", responder="amb-1", route=route)
    (answer,) = answers(log.write(order))
    assert answer.outcome == "refused"
    assert "'1,0>2,0' is closed" in answer.why
    assert sent(log) == []


@pytest.mark.parametrize(
    ("route", "why"),
    [
        (("0,0>1,0", "2,0>3,0"), "nobody may turn"),
        (("0,0>1,0", "nowhere"), "not a link"),
        (("0,0>1,0", "1,0>1,1"), "the incident on"),
    ],
)
def test_an_operators_route_that_cannot_be_driven_is_refused(
    log: Log, route: tuple[str, ...], why: str
) -> None:
    log.write(crash(2, "2,0>3,0", confidence=0.1))
    order = command(SendResponder, 3, incident="i2", responder="amb-1", route=route)
    (answer,) = answers(log.write(order))
    assert (answer.outcome, why in answer.why) == ("refused", True), answer.why


def test_it_drives_arrives_loads_and_is_free_again(log: Log) -> None:
    log.write(crash(1, "1,0>2,0"))
    log.write(at("amb-1", "0,0>1,0", 5, 0.9), at("amb-1", "1,0>2,0", 12, 0.2))
    (order,) = sent(log)
    assert order.route == ["1,0>2,0"]
    assert order.eta_ms == pytest.approx(T0 + 12_000 + 6_000, abs=100)
    log.write(at("amb-1", "1,0>2,0", 17, 0.45))
    assert log.responders()["amb-1"].status == "on-scene"
    log.write(at("amb-1", "1,0>2,0", 100, 0.45, status=7))
    assert log.responders()["amb-1"].status == "transporting"
    log.write(at("amb-1", "2,0>3,0", 200, 0.5, status=1))
    assert log.responders()["amb-1"].status == "free"
    incident = log.incidents()["i1"]
    assert (incident.state, incident.why) == ("closed", "all responders have finished")
    (done,) = log.orders().values()
    assert (done.state, done.on_scene_ms) == ("done", T0 + 17_000)


def test_one_that_becomes_free_nearby_takes_over(log: Log) -> None:
    log.write(command(SetStatus, 1, responder="amb-1", status="out"))
    log.write(crash(2, "1,0>2,0"))
    assert [o.responder for o in sent(log)] == ["amb-2"]
    log.write(command(SetStatus, 3, responder="amb-1", status="free"))
    assert [o.responder for o in sent(log)] == ["amb-1"]
    recalled = next(o for o in log.orders().values() if o.responder == "amb-2")
    assert recalled.state == "recalled"
    assert "amb-1 is there" in recalled.why
    assert log.responders()["amb-2"].status == "free"


def test_a_small_gain_takes_nobody_off_his_way(log: Log) -> None:
    log.write(command(SetStatus, 1, responder="amb-1", status="out"))
    log.write(crash(2, "0,1>0,2"))
    log.write(command(SetStatus, 3, responder="amb-1", status="free"))
    assert [o.responder for o in sent(log)] == ["amb-2"]


def test_nobody_is_taken_away_from_a_scene(log: Log) -> None:
    log.write(command(SetStatus, 1, responder="amb-1", status="out"))
    log.write(crash(2, "1,0>2,0"))
    log.write(command(SetStatus, 3, responder="amb-2", status="on-scene"))
    log.write(command(SetStatus, 4, responder="amb-1", status="free"))
    assert [o.responder for o in sent(log)] == ["amb-2"]


def test_who_falls_silent_is_degraded_and_then_replaced(log: Log) -> None:
    log.write(at("amb-1", "0,0>1,0", 0, 0.1), crash(1, "3,0>3,1"))
    (order,) = sent(log)
    log.write(Tick(at_ms=T0 + 40_000))
    (order,) = sent(log)
    assert "no position since 40 s" in order.degraded
    log.write(Tick(at_ms=T0 + 180_000))
    (order,) = sent(log)
    assert order.responder == "amb-2"
    lost = next(o for o in log.orders().values() if o.responder == "amb-1")
    assert lost.state == "lost"
    assert log.responders()["amb-1"].status == "out"
    log.write(at("amb-1", "0,0>1,0", 200, 0.5))
    assert log.responders()["amb-1"].status == "free", "it speaks again"


def test_who_is_silent_is_sent_only_if_nobody_else_can_be(log: Log) -> None:
    log.write(at("amb-1", "0,0>1,0", 0, 0.1), at("amb-2", "3,3>2,3", 100))
    log.write(Tick(at_ms=T0 + 100_000), crash(1, "1,0>2,0", 100))
    assert [o.responder for o in sent(log)] == ["amb-2"]
    log.write(crash(2, "1,0>2,0", 101))
    second = next(o for o in sent(log) if o.responder == "amb-1")
    assert "it is silent" in second.why
    assert "no position since" in second.degraded


def test_an_alert_of_a_crash_sends_somebody_once(log: Log) -> None:
    log.write(alert(), alert(revision=1, transition="escalated", severity=2))
    (incident,) = log.incidents().values()
    assert (incident.source, incident.severity, incident.state) == ("alert", 2, "under-way")
    assert len(sent(log)) == 1
    log.write(alert(revision=2, transition="cleared", active=False))
    assert len(sent(log)) == 1, "the crew finds out whether it was one"


def test_a_crash_that_somebody_reported_and_closed_is_not_opened_by_its_alert_again(
    log: Log,
) -> None:
    log.write(crash(1, "1,0>2,0"))
    log.write(alert())
    (incident,) = log.incidents().values()
    assert (incident.source, incident.joined) == ("operator", [alert().alert.id])
    log.write(command(CloseIncident, 2, incident=incident.id, reason="cleared"))
    assert log.incidents()[incident.id].state == "closed"
    log.write(alert(revision=1, transition="acknowledged", acknowledged=True))
    assert list(log.incidents()) == [incident.id]


def test_an_alert_that_ends_before_anybody_could_be_sent_ends_its_incident(log: Log) -> None:
    for number, name in enumerate(("amb-1", "amb-2")):
        log.write(command(SetStatus, number, responder=name, status="out"))
    log.write(alert())
    assert "no ambulance is free" in next(iter(log.incidents().values())).why
    log.write(alert(revision=2, transition="cleared", active=False))
    assert next(iter(log.incidents().values())).state == "closed"


@pytest.mark.parametrize(
    "facts", [{"suppressed_by": "congestion/x/y"}, {"cause": "noise"}, {"active": False}]
)
def test_an_alert_that_means_no_incident_sends_nobody(log: Log, facts: dict[str, object]) -> None:
    log.write(alert(**facts))
    assert log.incidents() == {}


def test_a_citizens_report_joins_what_detectors_found(log: Log) -> None:
    log.write(alert())
    lon, lat = on("1,0>2,0", 0.6)
    place = Place(zone="", lon=lon, lat=lat)
    report = crash(5, "", source="citizen", incident="", confidence=0.3, injured=2,
                   place=place, text="two cars, by the bakery")  # fmt: skip
    (answer,) = answers(log.write(report))
    (incident,) = log.incidents().values()
    assert answer.why == incident.id
    assert (incident.injured, incident.confidence) == (2, 0.6)
    assert len(sent(log)) == 1


def test_an_unsure_report_waits_for_somebody_who_knows(log: Log) -> None:
    log.write(crash(1, "1,0>2,0", source="citizen", confidence=0.3))
    assert "to be confirmed" in log.incidents()["i1"].why
    log.write(crash(2, "1,0>2,0", incident=""))
    assert log.incidents()["i1"].state == "under-way"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"kind": "ufo"}, "kind: 'ufo' is not one of"),
        ({"confidence": 2.0}, "confidence: 2.0 is not within 0 to 1"),
        ({"injured": -1}, "injured: -1 is below 0"),
        ({"place": Place(zone="", lon=0.0, lat=0.0)}, "from any road"),
        ({"place": Place(zone="", lon=1e308, lat=39.9)}, "lon, lat: 1e+308, 39.9: not WGS-84"),
        ({"place": Place(zone="", lon=116.4, lat=-91.0)}, "lon, lat: 116.4, -91.0: not WGS-84"),
        ({"place": Place(zone="north")}, "neither a link nor lon and lat"),
        ({"place": Place(zone="", link="nowhere")}, "'nowhere' is not a link"),
        ({"person": " "}, "person: is empty"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused_with_the_field(
    log: Log, facts: dict[str, object], why: str
) -> None:
    (answer,) = answers(log.write(msgspec.structs.replace(crash(1, "1,0>2,0"), **facts)))
    assert answer.outcome == "refused"
    assert why in answer.why
    assert log.incidents() == {}


def test_a_report_from_nowhere_leaves_a_state_that_can_be_opened_again(log: Log) -> None:
    place = Place(zone="", link="1,0>2,0", lon=1e308, lat=1e308)
    log.write(crash(1, "", place=place))
    Emergencies(log.city).restore(log.stage.changed())


def test_a_command_sent_twice_is_carried_out_once_and_a_late_one_not_at_all(log: Log) -> None:
    log.write(crash(1, "1,0>2,0"), crash(1, "1,0>2,0"))
    assert len(log.orders()) == 1
    (answer,) = answers(log.write(crash(2, "2,0>3,0"), wall_ms=T0 + 60_000))
    assert answer.outcome == "expired"


def test_a_fire_needs_two_kinds_and_says_which_one_is_missing(log: Log) -> None:
    log.write(command(SetStatus, 1, responder="fire-1", status="out"))
    log.write(crash(2, "1,0>2,0", kind="fire"))
    assert [o.need for o in sent(log)] == ["ambulance"]
    incident = log.incidents()["i2"]
    assert (incident.state, "no fire-engine is free" in incident.why) == ("queued", True)


def test_the_worse_incident_is_served_first(log: Log) -> None:
    for number, name in enumerate(("amb-1", "amb-2")):
        log.write(command(SetStatus, number, responder=name, status="out"))
    log.write(crash(3, "1,0>2,0", severity=3), crash(4, "2,0>3,0", severity=1))
    log.write(command(SetStatus, 5, responder="amb-1", status="free"))
    assert [o.incident for o in sent(log)] == ["i4"]


def test_the_position_of_somebody_unknown_or_nowhere_is_a_dead_letter(log: Log) -> None:
    outs = log.write(
        Position(responder="ghost", at_ms=T0, lon=116.4, lat=39.9),
        Position(responder="amb-1", at_ms=T0, lon=999.0, lat=39.9),
        b'{"type":"position"',
    )
    letters = decoded(outs, "dead-letter", DeadLetter)
    assert [letter.reason for letter in letters] == ["unknown", "range", "head"]


def test_a_position_that_is_older_than_the_last_one_moves_nobody(log: Log) -> None:
    log.write(at("amb-1", "0,0>1,0", 10), at("amb-1", "2,0>3,0", 5))
    assert log.responders()["amb-1"].link == "0,0>1,0"


def test_a_mission_has_no_way_around_its_table() -> None:
    ends = {state for _, state in TABLE.items()}
    assert ends == {"free", "sent", "on-scene", "transporting", "out"}
    assert TABLE.get(("on-scene", "recall")) is None
    assert TABLE.get(("transporting", "recall")) is None


def test_state_of_a_newer_version_is_refused(log: Log) -> None:
    head = log.stage.changed()["head"].replace(b'"version":1', b'"version":9', 1)
    with pytest.raises(InvalidInput, match="9, not 1"):
        Emergencies(log.city).restore({"head": head})


LINKS = sorted(grid_links())
UNITS = ("amb-1", "amb-2", "fire-1")


def _entries(seed: int, count: int) -> list[Entry]:
    """Anything that can come, in any order."""
    rng = random.Random(seed)
    entries: list[Entry] = []
    now = 0.0
    for number in range(count):
        now += rng.expovariate(1 / 8)
        link = rng.choice(LINKS)
        unit = rng.choice(UNITS)
        entries.append(
            rng.choices(
                [
                    crash(number, link, now, kind=rng.choice(["crash", "fire"]),
                          severity=rng.randint(1, 4), confidence=rng.choice([0.2, 1.0])),
                    at(unit, link, now, rng.random(), rng.choice([0, 1, 3, 4, 7])),
                    Tick(at_ms=T0 + round(now * 1000)),
                    states((link, rng.random()), at_s=now),
                    closing(number, link, now, until_ms=T0 + round(now * 1000) + 60_000),
                    command(SetStatus, number, now, responder=unit,
                            status=rng.choice(["free", "on-scene", "transporting", "out"])),
                    command(CloseIncident, number, now, incident=f"i{rng.randint(0, count)}",
                            reason="over"),
                    command(SendResponder, number, now, responder=unit,
                            incident=f"i{rng.randint(0, count)}"),
                    alert(id=f"speed-anomaly/{link}/{rng.randint(0, 5)}",
                          place=Place(zone="north", link=link), active=rng.random() < 0.7,
                          updated_ms=T0 + round(now * 1000)),
                ],
                weights=[3, 8, 3, 2, 2, 3, 1, 1, 2],
            )[0]
        )  # fmt: skip
    return entries


def _wall(entry: Entry) -> int:
    return getattr(entry, "issued_ms", T0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(5, 80))
def test_nobody_is_in_two_places_and_no_incident_is_forgotten(
    city: City, seed: int, count: int
) -> None:
    log = Log(city)
    for entry in _entries(seed, count):
        log.write(entry, wall_ms=_wall(entry))
        open_ = sent(log)
        busy = [o.responder for o in open_]
        assert len(busy) == len(set(busy)), "one responder in two incidents"
        units = log.responders()
        for order in open_:
            assert units[order.responder].order == order.id
            assert log.incidents()[order.incident].state != "closed"
        for unit in units.values():
            assert (unit.order in log.orders()) == (unit.status not in ("free", "out"))
        for incident in log.incidents().values():
            if incident.state == "queued":
                assert incident.why
                assert incident.why != "just reported"
            elif incident.state == "under-way":
                met = [o.need for o in log.orders().values() if o.incident == incident.id
                       and (o.ended_ms is None or o.state == "done")]  # fmt: skip
                assert all(met.count(need) >= incident.needs.count(need) for need in incident.needs)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 60))
def test_the_same_log_gives_the_same_bytes_after_a_crash_anywhere(
    city: City, seed: int, cut: int
) -> None:
    first = Log(city)
    outs = [first.write(e, wall_ms=_wall(e)) for e in _entries(seed, 60)]
    second = Emergencies(city)
    blocks: dict[str, bytes] = {}
    for number, record in enumerate(first.records):
        if number == cut:
            blocks |= second.changed()
            second = Emergencies(city)
            second.restore(blocks)
        elif number % 7 == 3:
            blocks |= second.changed()
        assert list(second.apply(record)) == outs[number]


def test_an_order_and_its_answer_hold_whoever_tells_the_time(log: Log) -> None:
    log.write(crash(1, "1,0>2,0"))
    (out,) = log.stage.tick(T0 + 5_000)
    assert msgspec.json.decode(out.value, type=Tick) == Tick(at_ms=T0 + 5_000)
    log.write(out.value)
    assert log.stage.tick(T0 + 6_000) == [], "it asks no oftener than it needs"


def test_how_soon_an_alert_sends_somebody_is_counted(log: Log) -> None:
    log.write(alert(), wall_ms=T0 + 4_000)
    log.write(alert(id="other", place=Place(zone="north", link="2,2>3,2")), wall_ms=T0 + 30_000)
    facts = log.stage.facts()
    assert facts["alert_orders"] == 2
    assert facts["alert_orders_soon"] == 1
    assert facts["alert_to_order_ms"] == 34_000
    assert facts["incidents"] == 2
