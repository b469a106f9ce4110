"""Junctions read from a real network: what is commissioned is what the street needs."""

from pathlib import Path

import pytest

from citybrain.edge import junctions
from citybrain.edge.world.network import network_file
from citybrain.errors import PackError
from citybrain.models.signals.timing import cycle_ms, schedule

pytestmark = pytest.mark.world

LIGHT = "945141768"


@pytest.fixture(scope="module")
def found() -> dict[str, junctions.Junction]:
    return {junction.id: junction for junction in junctions.read(network_file())}


def test_rail_signals_are_left_alone(found: dict[str, junctions.Junction]) -> None:
    assert len(found) == 15


def test_a_shipped_program_without_all_red_gets_one_and_keeps_its_cycle(
    found: dict[str, junctions.Junction],
) -> None:
    junction = found[LIGHT]
    assert cycle_ms(junction) == 90_000
    assert all(change >= 4_000 for _, change, _ in schedule(junction))
    assert all(group.clear_ms >= 1_000 for group in junction.table.groups)


def test_a_program_of_an_additional_file_stands_in_for_the_networks_own(
    found: dict[str, junctions.Junction], tmp_path: Path
) -> None:
    path = tmp_path / "programs.add.xml"
    path.write_text(
        f'<additional><tlLogic id="{LIGHT}" type="static" programID="x" offset="4">'
        '<phase duration="20" state="GGrr"/><phase duration="3" state="yyrr"/>'
        '<phase duration="2" state="rrrr"/><phase duration="30" state="rrGG"/>'
        '<phase duration="5" state="rrGr"/></tlLogic></additional>'
    )
    read = {junction.id: junction for junction in junctions.read(network_file(), [path])}
    assert cycle_ms(read[LIGHT]) == 60_000
    assert read["1525212345"] == found["1525212345"]


def test_every_vehicle_lane_has_detectors_up_to_the_signal_before(
    found: dict[str, junctions.Junction],
) -> None:
    for junction in found.values():
        walks = {g.id for g in junction.table.groups if g.kind == "pedestrian"}
        areas = {area.id: area for area in junction.areas}
        for move in junction.movements:
            if move.group in walks:
                assert not move.detectors
                continue
            assert areas[move.detectors[0]].lane == move.lanes_in[0]
            assert move.near_m[0] == 0.0
            assert max(move.near_m) < 150
            assert all(0 < share <= 1 for share in move.shares)


@pytest.mark.parametrize("text", ["<net", '<net><tlLogic id="a"><phase/></tlLogic></net>'])
def test_what_is_no_network_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.net.xml"
    path.write_text(text)
    with pytest.raises(PackError, match=r"bad\.net\.xml"):
        junctions.read(path)
