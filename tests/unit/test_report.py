"""What `up --json` says of detections: nothing counts as detected that tells of something else."""

from citybrain.findings import Finding, Place
from citybrain.up.report import Event, judge

T0 = 1_000_000


def finding(
    kind: str, detector: str = "threshold", at_ms: int = T0 + 60_000, **place: str
) -> Finding:
    return Finding(
        id=f"r/{kind}/{at_ms}", detector=detector, rule="r", state="raised", kind=kind,
        place=Place(**({"zone": "a"} | place)), onset_ms=at_ms, at_ms=at_ms, score=1.0,
        threshold=1.0, observed=None, expected=None, unit="",
    )  # fmt: skip


def event(what: str, **where: str) -> Event:
    return Event(
        id="e", what=what, from_ms=T0, to_ms=T0 + 600_000, happened_ms=T0 + 5_000,
        **({"zone": "a"} | where),
    )  # fmt: skip


def test_a_traffic_jam_in_its_zone_does_not_tell_of_a_cloudburst() -> None:
    jam, rain = finding("vehicle_speed", link="l1"), finding("precipitation", at_ms=T0 + 90_000)
    (told,) = judge([event("cloudburst")], [jam, rain], {})
    assert (told.detected, told.after_s) == (True, 85.0)
    (told,) = judge([event("cloudburst")], [jam], {})
    assert not told.detected


def test_a_crash_is_told_by_its_link_or_a_neighbour_and_by_no_broken_sensor_there() -> None:
    broken = finding("vehicle_count", "health", link="l1", sensor="d1")
    queue = finding("vehicle_speed", link="l2")
    crash = event("crash", link="l1")
    assert not judge([crash], [broken, queue], {})[0].detected
    assert judge([crash], [broken, queue], {"l1": {"l2"}})[0].detected


def test_what_was_found_before_an_event_is_no_detection_of_it() -> None:
    early = finding("vehicle_count", "health", at_ms=T0 + 5_000, sensor="d1")
    assert not judge([event("dead", sensor="d1")], [early], {})[0].detected
