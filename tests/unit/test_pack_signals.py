"""A pack's signals.toml: what does not hold together is refused with the place and the value."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w

from citybrain import pack, signals_file
from citybrain.city import BUILT_IN
from citybrain.edge.arbiter import Arbiter
from citybrain.edge.interlock import Interlock
from citybrain.errors import PackError
from citybrain.models.signals.timing import cycle_ms
from citybrain.signals import Lamp
from tests.unit.test_interlock import unsafe
from tests.unit.test_signal_models import JUNCTION


def test_the_built_in_citys_local_plans_run_for_an_hour_without_a_refusal() -> None:
    city = pack.load("adlershof")
    assert len(city.signals) == 15
    for junction in city.signals.values():
        assert cycle_ms(junction) == pytest.approx(90_000, abs=10)
        arbiter = Arbiter(junction, b"key", 0)
        greens = dict.fromkeys(arbiter.interlock.lamps, 0)
        shown: list[tuple[int, dict[str, Lamp]]] = [(0, arbiter.interlock.lamps)]
        for second in range(1, 3_600):
            verdict = arbiter.tick(second * 1_000, second * 1_000)
            assert verdict.granted, (junction.id, verdict.refusals)
            assert arbiter.interlock.overdue() == () or second < 130
            shown.append((second * 1_000, verdict.lamps))
            for name, lamp in verdict.lamps.items():
                greens[name] += lamp == "green"
        assert min(greens.values()) >= 150, (junction.id, greens)
        assert list(unsafe(junction.table, shown)) == []


def test_every_group_of_the_built_in_city_has_a_proper_table() -> None:
    for junction in pack.load("adlershof").signals.values():
        Interlock(junction.table, 0)
        for group in junction.table.groups:
            assert group.min_green_ms >= 5_000
            assert group.clear_ms >= 1_000
            assert group.kind == "pedestrian" or group.yellow_ms >= 3_000


def test_a_pack_without_signals_loads(tmp_path: Path) -> None:
    assert signals_file.read(tmp_path / "signals.toml")[0] == {}


PLANTED: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda j: j["table"]["conflicts"].append(["main", "tram"]), "'tram' is not one of"),
    (lambda j: j["stages"][0]["green"].append("side"), "main and side exclude each other"),
    (lambda j: j["table"].update(junction="k"), "'k' is another one"),
    (lambda j: j["plan"]["steps"].append({"stage": "z", "green_ms": 1}), "'z' is not one of"),
    (lambda j: j["plan"]["steps"][0].update(green_ms=0), "green_ms: 0 is not above 0"),
    (lambda j: j["plan"]["steps"].pop(), "'side' never gets green"),
    (lambda j: j["table"]["groups"][1].update(links=[0]), "lamp 0: of 'main' and of 'side'"),
    (lambda j: j["movements"][0].update(group="x"), "'x' is not one of"),
    (lambda j: j.update(surprise=1), "surprise"),
    (lambda j: j["table"]["groups"][0].update(min_green_ms="long"), "min_green_ms"),
    (lambda j: j["table"]["groups"][0].update(yellow_ms=0), "yellow_ms: 0"),
]


@pytest.mark.parametrize(("plant", "message"), PLANTED)
def test_a_fault_planted_in_the_file_is_found(
    tmp_path: Path, plant: Callable[[dict[str, Any]], object], message: str
) -> None:
    row = json.loads(msgspec.json.encode(JUNCTION))
    plant(row)
    path = tmp_path / "signals.toml"
    path.write_text(tomli_w.dumps({"junction": [row]}), "utf-8")
    with pytest.raises(PackError, match=message):
        signals_file.read(path)


def test_a_junction_twice_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "signals.toml"
    row = json.loads(msgspec.json.encode(JUNCTION))
    path.write_text(tomli_w.dumps({"junction": [row, row]}), "utf-8")
    with pytest.raises(PackError, match="twice"):
        signals_file.read(path)
    path.write_bytes(b"junction = \xff")
    with pytest.raises(PackError, match=r"signals\.toml"):
        signals_file.read(path)


def test_a_table_that_does_not_fit_the_network_is_refused() -> None:
    pytest.importorskip("sumolib", reason="needs citybrain[world]")
    from citybrain.edge import junctions
    from citybrain.edge.world.network import network_file

    told = tomllib.loads((BUILT_IN / "adlershof" / "signals.toml").read_text("utf-8"))["junction"]
    good = msgspec.convert(told[0], type(JUNCTION))
    junctions.agree([good], network_file())
    blind = msgspec.structs.replace(
        good, table=msgspec.structs.replace(good.table, conflicts=good.table.conflicts[1:])
    )
    with pytest.raises(PackError, match="cross in the network"):
        junctions.agree([blind], network_file())
    elsewhere = msgspec.structs.replace(good, id="nowhere")
    with pytest.raises(PackError, match="'nowhere' is not a road signal"):
        junctions.agree([elsewhere], network_file())
