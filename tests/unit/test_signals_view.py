"""What the page shows of the signals, and the secret that plans are signed with."""

from pathlib import Path

import msgspec
import pytest

from citybrain import pack, plan_keys
from citybrain.dashboards.centre.signals_view import SignalsState, junctions
from citybrain.errors import SetupError
from citybrain.signal_log import GATEWAY, Measured, Report, Shown
from citybrain.signals import Plan, signature

CITY = pack.load("adlershof")


def shown(at_ms: int, source: str = "adaptive", junction: str = "joinedS_0") -> Shown:
    return Shown(junction=junction, at_ms=at_ms, source=source, stage="s1", stage_ms=5_000,
                 lamps="rgrrrrr", ready_ms=[0])  # fmt: skip


def report(*rows: Shown, measured: tuple[Measured, ...] = ()) -> Report:
    return Report(gateway=GATEWAY, at_ms=0, shown=list(rows), measured=list(measured))


def plan(source: str = "adaptive", why: str = "a queue", junction: str = "joinedS_0") -> Plan:
    return msgspec.convert(
        {"junction": junction, "sequence": 1, "issued_ms": 9, "expires_ms": 10, "source": source,
         "stage": "s1", "why": why, "why_zh": "排队"}, Plan)  # fmt: skip


def test_a_junction_is_told_with_the_plan_that_it_follows_and_not_with_another() -> None:
    state = SignalsState(CITY)
    state.take_plan(plan())
    state.take_plan(plan("emergency", "an ambulance"))
    state.take_report(report(shown(1), shown(1, junction="nowhere")))
    changes = state.changes()
    assert changes is not None
    (view,) = changes.junctions
    assert (view.why, view.why_zh, view.source) == ("a queue", "排队", "adaptive")
    assert state.changes() is None, "nothing is new"
    state.take_report(report(shown(2, "emergency")))
    assert [one.why for one in state.snapshot().junctions] == ["an ambulance"]
    state.take_report(report(shown(3, "local")))
    assert [one.why for one in state.snapshot().junctions] == [""], "the local plan needs no plan"


def test_an_older_report_does_not_turn_the_lamps_back() -> None:
    state = SignalsState(CITY)
    state.take_report(report(shown(5)))
    state.take_report(report(shown(4, "local")))
    assert [one.source for one in state.snapshot().junctions] == ["adaptive"]


def test_junctions_are_on_the_map_where_their_roads_end() -> None:
    about_all = junctions(CITY)
    placed = {name: about for name, about in about_all.items() if about["lat"] is not None}
    # One is on a path for bicycles, which the pack does not hold as a road.
    assert about_all.keys() - placed.keys() == {"GS_2391105461"}
    for name, about in placed.items():
        assert 52.3 < about["lat"] < 52.6, name
        assert 13.4 < about["lon"] < 13.7, name
        assert about["groups"]


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    key = plan_keys.key(tmp_path)
    assert len(key) == 32
    assert plan_keys.key(tmp_path) == key
    path = tmp_path / "secrets" / "signals.key"
    assert path.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["signals.key"]
    signed = msgspec.json.decode(plan_keys.sealed(tmp_path)(msgspec.json.encode(plan())), type=Plan)
    assert signed.mac == signature(key, plan())


@pytest.mark.parametrize("text", ["", "ab" * 31, "no hex at all"])
def test_a_key_that_is_none_is_refused_and_not_made_anew(tmp_path: Path, text: str) -> None:
    plan_keys.key(tmp_path)
    (tmp_path / "secrets" / "signals.key").write_text(text)
    with pytest.raises(SetupError, match="signals key"):
        plan_keys.key(tmp_path)
